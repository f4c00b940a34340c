"""The best epoch's state, to which a training goes back whose loss is no number any more.

The code of Merity, Keskar, Socher, arXiv 1708.02182, goes back so, and those of NAO and DARTS after it; here a limited
number of times.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nao_ray.training.checkpoint import part
from nao_ray.training.trainer import Trainer

_log = logging.getLogger(__name__)


class Recovery:
    """Of one training. It goes on from there with other random numbers, or it would come to the same end.

    Args:
        trainer: at its beginning, which is the first state to go back to.
        restarts: how often it may go back.
    """

    def __init__(self, trainer: Trainer, restarts: int) -> None:
        self._trainer, self._most, self._left = trainer, restarts, restarts
        self._loss, self._epoch, self._kept = math.inf, 0, _copy(trainer.state())

    def keep(self, loss: float) -> None:
        """The state now, after an epoch, if none had a lower loss."""
        if self._left and loss < self._loss:
            self._loss, self._epoch, self._kept = loss, self._trainer.epochs_done, _copy(self._trainer.state())

    def back(self, epoch: int) -> int | None:
        """Go back.

        Args:
            epoch: the last whose loss was a number, counted from 1.

        Returns:
            How many epochs before it; None: it has gone back as often as it may.
        """
        if not self._left:
            return None
        self._left -= 1
        self._trainer.restore(self._kept, draws=False)
        _log.warning(
            "the loss of epoch %d is not finite: on from the end of epoch %d, the best (restart %d of %d)",
            epoch + 1, self._epoch, self._most - self._left, self._most,
        )  # fmt: skip
        return epoch - self._epoch

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """To be kept with that of the training; tensors named ``recovery.``."""
        own = {"left": self._left, "epoch": self._epoch, "loss": self._loss}
        state = {f"recovery.{name}": torch.tensor(float(value), dtype=torch.float64) for name, value in own.items()}
        if self._left and self._epoch != self._trainer.epochs_done:  # else it is the state that this goes with
            state |= {f"recovery.kept.{name}": value for name, value in self._kept.items()}
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was called; what it went with has been restored."""
        own = part(state, "recovery")
        if own:
            self._left, self._epoch, self._loss = int(own["left"]), int(own["epoch"]), float(own["loss"])
        else:
            self._epoch, self._loss = self._trainer.epochs_done, math.inf
        self._kept = _copy(part(own, "kept") or self._trainer.state())
        # what another team has kept may count other steps
        self._kept["step"] = torch.tensor(self._epoch * self._trainer.objective.steps)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
