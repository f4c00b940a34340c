"""One network at one fidelity -> Measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nao_ray import rng
from nao_ray.metric import Metric
from nao_ray.training import resources
from nao_ray.training.devices import device_name
from nao_ray.training.group import Team
from nao_ray.training.objective import Objective, Scores
from nao_ray.training.recovery import Recovery
from nao_ray.training.streams import Continuing, InTeam
from nao_ray.training.text_parts import Restarts
from nao_ray.training.trainer import Trainer
from nao_ray.trial import Measurement


@dataclass(frozen=True)
class Epoch:
    """What is told after each epoch."""

    done: int
    """Epochs trained, those before a resume too."""
    loss: float
    """Mean training loss, in nats."""
    scores: Scores | None
    """On the validation split; None where it is empty."""
    history: tuple[Scores, ...]
    """Those of all epochs, those before a resume too."""
    state: Callable[[], dict[str, Tensor]]
    """What the next epoch begins with, as `Trainer.state`, and `Recovery.state` where the training may go back; to be
    called before it begins."""


@dataclass(frozen=True)
class Start:
    """Where a training goes on."""

    epochs_done: int
    state: Mapping[str, Tensor]
    """What `Epoch.state` gave."""
    history: tuple[Scores, ...] = ()
    """`Epoch.history`, for a measurement of all epochs."""


def fit(
    network: nn.Module,
    objective: Objective,
    *,
    epochs: int,
    seed: int,
    start: Start | None = None,
    listener: Callable[[Epoch], object] = lambda _: None,
    autotune: bool = False,
    team: Team | None = None,
) -> Measurement:
    """Train `network` in place, on the objective's device, under its recipe; the score is of the validation split.

    In the end `network` is what the last epoch was scored by: the mean of its weights where the recipe averages.

    Same network, objective, epochs and seed: same measurement, to the device's arithmetic. A loss that is not finite,
    or so large that its perplexity is not, ends the training at once (on a CPU; elsewhere see `Trainer.epoch`) with a
    NaN score, or takes it back to its best epoch as often as the recipe's `restarts`. A training that goes on where
    another was ends as that would have.

    Args:
        network: as `Trainer` wants it.
        objective: what it learns, and how.
        epochs: >= 1.
        seed: names the order of the examples, their augmentation, and dropout.
        start: the state to go on from, of the same network, objective, epochs and seed; the measurement is then of the
            epochs since, and those of its `history`, its times of those since alone.
        listener: told of every epoch whose loss is finite; again of those that were gone back. True: the training
            pauses there, to be gone on with from the epoch's state, and is measured so far.
        autotune: cuDNN tries its algorithms at every new shape, which pays in a long training.
        team: those who train the network together, each called with the same and with its shard of the objective; all
            are told what the first one has validated.

    Raises:
        DataError: `start` is of another network, or of another kind of device.
    """
    device = objective.device
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=autotune, allow_tf32=True)
    apart = team is not None and not objective.as_one
    streams = InTeam(seed, device, objective.shard.rank) if apart else Continuing(seed, device)
    with (
        resources.watch(device) as usage,
        rng.torch_seeded(seed, "dropout"),
        cudnn,
        Trainer(network, objective, epochs=epochs, streams=streams, averager=team) as trainer,
    ):
        history: list[Scores] = []
        if start is not None:  # states of old told no step, and one of another team may tell another
            trainer.restore({**start.state, "step": torch.tensor(start.epochs_done * objective.steps)})
            history += start.history
        if team is not None:
            team.watch(trainer.network)
        recovery = _recovery(trainer, start)
        while (before := trainer.epochs_done) < epochs:
            loss, scores = _epoch(trainer, team)
            judged = loss if scores is None else scores.loss
            if not math.isfinite(judged) or (scores is not None and not math.isfinite(scores.value)):
                undone = None if recovery is None else recovery.back(before)
                if undone is not None:
                    history = history[: max(0, len(history) - undone)]
                    continue
                history.append(Scores(math.nan, math.nan))
                break
            trainer.tell(judged)
            if recovery is not None:
                recovery.keep(judged)
            history += [scores] if scores is not None else []
            state = partial(_state, trainer, recovery)
            if listener(Epoch(trainer.epochs_done, loss, scores, tuple(history), state)) is True:
                break
        trainer.settle()
    return Measurement(
        **scored(history, objective),
        wall_seconds=usage.wall_seconds,
        device_seconds=usage.device_seconds,
        peak_memory_bytes=usage.peak_memory_bytes,
        device=device_name(device),
        execution=trainer.execution,
    )


def _epoch(trainer: Trainer, team: Team | None) -> tuple[float, Scores | None]:
    """One more: its training loss, NaN where that is no number, and validation scores."""
    try:
        loss = trainer.epoch()
    except ArithmeticError:  # of a library that does not go on with what is no number
        if team is not None:
            raise  # the others do not know
        loss = math.nan
    if trainer.objective.num_valid == 0 or not math.isfinite(loss):
        return loss, None
    if team is None:
        return loss, trainer.evaluate()
    scores = trainer.evaluate() if team.rank == 0 else Scores(math.nan, math.nan)
    top5 = math.nan if scores.top5 is None else scores.top5
    value, judged, top5 = team.of_first(torch.tensor([scores.value, scores.loss, top5], dtype=torch.float64)).tolist()
    return loss, Scores(value, judged, None if math.isnan(top5) else top5)


def _recovery(trainer: Trainer, start: Start | None) -> Recovery | None:
    recipe = trainer.recipe
    if not isinstance(recipe, Restarts) or not recipe.restarts:
        return None
    recovery = Recovery(trainer, recipe.restarts)
    if start is not None:
        recovery.restore(start.state)
    return recovery


def _state(trainer: Trainer, recovery: Recovery | None) -> dict[str, Tensor]:
    return trainer.state() | ({} if recovery is None else recovery.state())


def scored(history: Sequence[Scores], objective: Objective) -> dict[str, Any]:
    """The fields of a measurement that follow from the scores of its epochs."""
    chosen = _chosen(history, objective.metric, best=objective.recipe.score == "best")
    return {
        **({} if chosen is None else objective.metric.measured(chosen.value)),
        "valid_loss": None if chosen is None else chosen.loss,
        "curve": tuple(scores.value for scores in history),
    }


def _chosen(history: Sequence[Scores], metric: Metric, *, best: bool) -> Scores | None:
    """Whose scores the measurement has; None where nothing validated."""
    if best and history and not math.isnan(history[-1].value):
        return max(history, key=lambda scores: metric.score(scores.value))
    return history[-1] if history else None
