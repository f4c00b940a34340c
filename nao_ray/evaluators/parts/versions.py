"""A training of shared weights that goes on from a version of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nao_ray.errors import DataError, PoolError
from nao_ray.training.recipe import Recipe
from nao_ray.training.schedule import Averaging
from nao_ray.training.text_parts import Restarts
from nao_ray.trial import Phase

if TYPE_CHECKING:
    from nao_ray.training.trainer import Trainer

_CURE = "put the right file back and resume, or begin another pool"


def check_recipe(recipe: Recipe) -> None:
    """Of shared weights and relaxed supernets, whose training nobody validates.

    Raises:
        ValueError: it asks for what validation decides.
    """
    if isinstance(recipe, Averaging) and recipe.averaging != "none":
        raise ValueError("recipe.averaging: shared weights are those of the last step, not a mean; give none")
    if getattr(recipe, "sync_batch_norm", False):
        raise ValueError("recipe.sync_batch_norm: workers that share weights compute a path each; give false")
    if isinstance(recipe, Restarts) and recipe.restarts:
        raise ValueError("recipe.restarts: shared weights do not go back to an earlier epoch; give 0")


def go_on(trainer: Trainer, phase: Phase, source: bytes | None, supernet: str) -> None:
    """Put a new training where a phase begins.

    Args:
        trainer: of fresh weights.
        phase: what is to be trained.
        source: the version that it goes on from; None: fresh weights.
        supernet: what they are the weights of, for people.

    Raises:
        PoolError: the version is of another supernet, or was trained for longer or shorter.
    """
    import torch

    from nao_ray.training.checkpoint import unpack_version

    if source is not None:
        with of_supernet(str(phase.source), supernet):
            state, epochs = unpack_version(source)
            trainer.restore({**state, "step": torch.tensor(epochs * trainer.objective.steps)})
    if trainer.epochs_done != phase.first_epoch:
        raise PoolError(
            f"weights {phase.source} have had {trainer.epochs_done} epochs, expected {phase.first_epoch}; {_CURE}"
        )


def train_to_the_end(trainer: Trainer, phase: Phase) -> tuple[float, ...]:
    """The mean loss of each of the phase's epochs; the last is NaN where it is not finite, and no other follows."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):  # few shapes, often
        losses = [trainer.epoch()]
        while trainer.epochs_done < phase.last_epoch and math.isfinite(losses[-1]):
            losses.append(trainer.epoch())
    return tuple(losses)


@contextmanager
def of_supernet(version: str, supernet: str) -> Iterator[None]:
    """What reads a version.

    Raises:
        PoolError: it is of another supernet.
    """
    try:
        yield
    except DataError as error:
        raise PoolError(f"weights {version} are not of this supernet ({supernet}): {error}; {_CURE}") from None
