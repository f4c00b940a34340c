"""How the learning rate changes in a training, and which weights are evaluated. Imports without torch.

One cycle: Smith, Topin, 2017, arXiv 1708.07120. Warm restarts: Loshchilov, Hutter, ICLR 2017, arXiv 1608.03983. The
switch to averaged weights: Merity, Keskar, Socher, ICLR 2018, arXiv 1708.02182; the mean of the last ones: Izmailov,
Podoprikhin, Garipov, Vetrov, Wilson, UAI 2018, arXiv 1803.05407.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from nao_ray.settings import Settings


class Schedule(Settings):
    """How far a step moves the weights."""

    lr: float = Field(default=0.024, gt=0)
    """Learning rate at its highest, where it begins to fall."""
    lr_end: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the fall."""
    decay: Literal["cosine", "linear", "step"] = "cosine"
    """How it falls: by a cosine, by a line, or by `step_factor` after every `step_epochs`."""
    rate_schedule: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes with every step, or with every epoch (DARTS)."""
    cosine_epochs: int | None = Field(default=100, ge=1)
    """Period of the cosine or the line, in epochs; null: the epochs trained."""
    restart_factor: int | None = Field(default=None, ge=1)
    """The fall begins anew after each period, the next one that many times as long; null: there is one, after which
    the rate stays at its end."""
    step_factor: float = Field(default=0.97, gt=0, le=1)
    """What `decay: step` multiplies the rate by; no period ends it."""
    step_epochs: float = Field(default=1.0, gt=0)
    """Epochs between two such steps."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the learning rate rises linearly, on top of the fall."""
    rise: float = Field(default=0.0, ge=0, lt=1)
    """Share of a period in which the rate rises from 0 to `lr` before it falls; with `decay: linear` one cycle."""


class Averaging(Settings):
    """Which weights are evaluated in the end."""

    averaging: Literal["none", "nonmonotone", "tail"] = "none"
    """`nonmonotone`: the mean of those after each step, from the epoch on whose validation loss is above the least one
    of all epochs but the last `averaging_patience`; `tail`: of the last `averaging_share` of all steps."""
    averaging_patience: int = Field(default=5, ge=1)
    """Epochs; there have to be more of them before."""
    averaging_share: float = Field(default=0.2, gt=0, le=1)
    """Of the steps, for `tail`."""


@dataclass(frozen=True)
class Period:
    """The stretch of one fall, in epochs."""

    start: int
    length: int


def period(epoch: float, first: int, factor: int = 1) -> Period:
    """The period that `epoch` belongs to: the first is `first` epochs long, each next one `factor` times the last."""
    start, length = 0, first
    while epoch >= start + length:
        start, length = start + length, length * factor
    return Period(start, length)


def learning_rate(schedule: Schedule, progress: float, epochs: int) -> float:
    """After `progress` epochs, a real number >= 0, of a training of `epochs`."""
    now = Period(0, schedule.cosine_epochs or epochs)
    if schedule.restart_factor is not None:
        now = period(progress, now.length, schedule.restart_factor)
    at, risen = progress - now.start, schedule.rise * now.length
    warm = min(progress / schedule.warmup_epochs, 1.0) if schedule.warmup_epochs else 1.0
    if at < risen:
        return schedule.lr * at / risen * warm
    gone = min((at - risen) / (now.length - risen), 1.0)
    if schedule.decay == "step":
        left = schedule.step_factor ** math.floor((at - risen) / schedule.step_epochs)
    else:
        left = 1 - gone if schedule.decay == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return (schedule.lr_end + (schedule.lr - schedule.lr_end) * left) * warm
