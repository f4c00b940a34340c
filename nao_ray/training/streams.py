"""The random numbers of a training: the order of its examples, their augmentation, dropout.

Of a network on its own each stream goes on from step to step, and its state is part of the training's. Of shared
weights each step's draws are named by seed and step: epochs a to b from any version are those of a training in one go,
whoever trained up to a. Where several processes train one network only the order goes on, and is the same for all; or,
with synchronised batch norm, each draws what one process would, and takes what is of its examples
(`networks/whole_batch.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from nao_ray import rng
from nao_ray.errors import DataError


class Streams(ABC):
    """Where a training draws."""

    @abstractmethod
    def order(self, epoch: int) -> torch.Generator:
        """For the order of an epoch's examples; on the CPU."""

    @abstractmethod
    def augmentation(self, step: int) -> torch.Generator:
        """For the augmentation of a step's batch; on the device."""

    def dropout(self, step: int) -> AbstractContextManager[None]:
        """Within it torch's global generators, which dropout draws from, are those of a step."""
        return nullcontext()

    @property
    def lasting(self) -> Sequence[torch.Generator] | None:
        """Generators of the augmentation, where the same ones go on through all steps; None: each step has its own."""
        return None

    def renew(self) -> None:  # noqa: B027 - those that go on do anyway
        """Draw other numbers from now on, where a training goes back to an earlier step."""

    def state(self, *, within_epoch: bool) -> dict[str, Tensor]:
        """What the next step's draws depend on besides its number; of an epoch that has begun, from its beginning."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was called.

        Raises:
            DataError: it is of other streams, or of another kind of device.
        """
        expected = self.state(within_epoch=False).keys()
        if state.keys() != expected:
            raise DataError(
                f"weights: a training that goes on needs the generators {_names(expected)}, there are "
                f"{_names(state)}; was it begun on another kind of device?"
            )


class _Order:
    """That of the examples, which goes on from epoch to epoch."""

    def __init__(self, seed: int) -> None:
        self._generator = rng.torch_generator(seed, "order")
        self._before = self._generator.get_state()

    def next(self) -> torch.Generator:
        self._before = self._generator.get_state()
        return self._generator

    def state(self, *, within_epoch: bool) -> Tensor:
        return self._before if within_epoch else self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        self._generator.set_state(state)
        self._before = state


class Continuing(Streams):
    """Each goes on; dropout draws from torch's global generators, which are to be seeded around the training."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._order = _Order(seed)
        self._augmentation = rng.torch_generator(seed, "augmentation", device=str(device))

    def order(self, epoch: int) -> torch.Generator:
        return self._order.next()

    def augmentation(self, step: int) -> torch.Generator:
        return self._augmentation

    @property
    def lasting(self) -> Sequence[torch.Generator] | None:
        return [self._augmentation]

    def state(self, *, within_epoch: bool) -> dict[str, Tensor]:
        order = self._order.state(within_epoch=within_epoch)
        drawn = {"order": order, "augmentation": self._augmentation.get_state()}
        return drawn | rng.torch_state(self._device)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._order.restore(state["order"])
        self._augmentation.set_state(state["augmentation"])
        rng.set_torch_state(self._device, state)


class ByStep(Streams):
    """Named by seed and step; of `worker` all but the order, which is one for a whole group."""

    def __init__(self, seed: int, device: torch.device, worker: int = 0) -> None:
        self._seed, self._device, self._worker = seed, device, worker

    def order(self, epoch: int) -> torch.Generator:
        return rng.torch_generator(self._seed, "order", epoch)

    def augmentation(self, step: int) -> torch.Generator:
        return rng.torch_generator(self._seed, self.purpose("augmentation"), step, device=str(self._device))

    def dropout(self, step: int) -> AbstractContextManager[None]:
        return rng.torch_seeded(self._seed, self.purpose("dropout"), step, self._device)

    def purpose(self, name: str) -> str:
        """Of this worker's draws, for `rng.child`."""
        return f"{name} of worker {self._worker}"


class InTeam(ByStep):
    """Those of one of several processes that train one network: its examples come in the order of `Continuing`."""

    def __init__(self, seed: int, device: torch.device, worker: int) -> None:
        super().__init__(seed, device, worker)
        self._order, self._turn = _Order(seed), 0

    def order(self, epoch: int) -> torch.Generator:
        return self._order.next()

    def renew(self) -> None:
        self._turn += 1

    def purpose(self, name: str) -> str:
        return super().purpose(name) + (f", turn {self._turn}" if self._turn else "")

    def state(self, *, within_epoch: bool) -> dict[str, Tensor]:
        return {"order": self._order.state(within_epoch=within_epoch), "turn": torch.tensor(self._turn)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self._order.restore(state["order"])
        self._turn = int(state["turn"])


def _names(given: Iterable[str]) -> str:
    return ", ".join(sorted(given)) or "none"
