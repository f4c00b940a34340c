"""How a network is trained, apart from its size and its epochs, and published full trainings. Imports without torch.

The defaults are the search recipe of NAO without weight sharing (Luo, Tian, Qin, Chen, Liu, "Neural Architecture
Optimization", NeurIPS 2018, arXiv 1808.07233, and the child trainer of its TensorFlow code): SGD with momentum 0.9, a
cosine from 0.024 whose period is 100 epochs although training stops at 25, weight decay 5e-4 on all weights, gradients
clipped at norm 5, auxiliary head 0.4, drop path with keep 0.7, no cutout, score of the best epoch.

Differs from the paper: weight decay is added after the clipping, as torch's SGD does; the cosine falls with every step
instead of every epoch; drop path's schedule ends with the epochs trained.

Drop path and identity edges, which `drop_path_identity` decides: the paper's search and final trainings (its TensorFlow
code) leave them alone, and so do ENAS's; NAO_pytorch drops them since 2020-03-16, in supernets and final trainings. The
errors that it publishes for V1 are of before, when it spared the edges that read state 4 or 5 instead, by a mix-up of
ids. So left at null every recipe does as the reference of its results did, those of V1 but for the mix-up, and shared
weights do as the code that is out now.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from nao_ray.errors import ConfigError
from nao_ray.settings import Settings
from nao_ray.training import recipe_file
from nao_ray.training.augmentation import Augmentation


class _Named(Settings):
    name: str = "paper_search"
    """One of `RECIPES`; what is not given is taken from it. In YAML also a file of such settings."""


class Optimiser(Settings):
    """How a step moves the weights: SGD with momentum."""

    batch: int = Field(default=128, ge=2)
    """Examples per step."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)
    """On all trainable weights, those of batch norm too."""
    clip_norm: float | None = Field(default=5.0, gt=0)
    """Largest global norm of the gradient; null: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast for a network on its own on a CUDA device that has it, also where its step could not be
    recorded; else float32: steps of shared weights, launched one by one, and of a CPU are slower under autocast."""


class Schedule(Settings):
    """How far a step moves them."""

    lr: float = Field(default=0.024, gt=0)
    """Learning rate at the start of the cosine."""
    lr_end: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the cosine's period."""
    rate_schedule: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes with every step, or with every epoch (DARTS)."""
    cosine_epochs: int | None = Field(default=100, ge=1)
    """Period of the cosine, in epochs; null: the epochs trained."""
    restart_factor: int | None = Field(default=None, ge=1)
    """The cosine begins anew after each period, the next one that many times as long; null: there is one, after which
    the rate stays at its end."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the learning rate rises linearly, on top of the cosine."""


class Regularisation(Settings):
    """What keeps a network from learning by heart, and what its heads need for it."""

    auxiliary_weight: float = Field(default=0.4, ge=0)
    """Weight of the auxiliary head's loss; 0: no such head."""
    drop_path_keep: float = Field(default=0.7, gt=0, le=1)
    """Probability of keeping an edge where fewest are kept, see `drop_path_schedule`."""
    drop_path_schedule: Literal["cell_and_step", "epoch"] = "cell_and_step"
    """How the share of dropped edges grows. `cell_and_step`: from cell to cell and from step to step, most in the last
    cell at the last step (NAO); `epoch`: alike in all cells, e/E of the most in epoch e of 0..E-1 (DARTS)."""
    drop_path_identity: bool | None = None
    """Identity edges are dropped too; null: in shared weights they are, in a network of one genotype they are not."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping a pooled feature."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class Recipe(Augmentation, Regularisation, Schedule, Optimiser, _Named):
    """Settings of a training, of four parts. In YAML a name, or a mapping with a name and the settings that differ."""

    score: Literal["best", "last"] = "best"
    """Which epoch's validation scores the architecture. `best` is the paper's; where the learning rate ends near 0
    `last` is the fairer one: the best of all epochs rewards noise, and more of it in longer trainings."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if recipe_file.is_file(value.get("name")):
            value = {**recipe_file.read(value.pop("name"), cls.model_fields), **value}
        name = value.get("name", "paper_search")
        if name not in RECIPES:
            raise ValueError(f"no recipe is named {name!r}; known: {', '.join(RECIPES)}, or a file that ends in .yaml")
        return {**RECIPES[name], **value}


@dataclass(frozen=True)
class Period:
    """The stretch of one cosine, in epochs."""

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
    cosine = 0.5 * (1 + math.cos(math.pi * min((progress - now.start) / now.length, 1.0)))
    warm = min(progress / schedule.warmup_epochs, 1.0) if schedule.warmup_epochs else 1.0
    return (schedule.lr_end + (schedule.lr - schedule.lr_end) * cosine) * warm


# The final training of NAO_pytorch V1 (README and script of NAONet-A, N = 6, F = 36).
_NAO_FINAL: dict[str, Any] = {
    "lr": 0.025,
    "cosine_epochs": None,
    "weight_decay": 3e-4,
    "dropout": 0.4,
    "drop_path_keep": 0.8,
    "cutout": 16,
    "score": "last",
}
# What the final trainings of ENAS share: its L2 term has no factor 1/2, hence twice its 2e-4, and its clipping never
# took effect.
_ENAS_FINAL: dict[str, Any] = {
    "lr": 0.05,
    "cosine_epochs": 10,
    "restart_factor": 2,
    "nesterov": True,
    "weight_decay": 4e-4,
    "clip_norm": None,
    "score": "last",
}
RECIPES: dict[str, dict[str, Any]] = {
    "paper_search": {},
    # Shared weights of NAO_pytorch V1 (one cosine over the 150 epochs) and V2 (one per iteration of 50).
    "paper_shared": {
        "batch": 64,
        "lr": 0.025,
        "lr_end": 0.001,
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 0.9,
        "score": "last",
    },
    # Weights of DARTS' relaxed supernet (train_search.py; Liu, Simonyan, Yang, arXiv 1806.09055).
    "darts_search": {
        "batch": 64,
        "lr": 0.025,
        "lr_end": 0.001,
        "rate_schedule": "epoch",
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "score": "last",
    },
    # Ours, for children of some seconds on a CPU core: a whole cosine within the epochs trained, a higher learning rate
    # (few steps), and none of the regularisers that only pay in longer trainings.
    "short": {
        "batch": 64,
        "lr": 0.1,
        "cosine_epochs": None,
        "warmup_epochs": 1.0,
        "nesterov": True,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "score": "last",
    },
    # The same for handwritten digits, which a mirror turns into none and a crop of four pixels out of eight destroys.
    "short_digits": {
        "batch": 64,
        "lr": 0.1,
        "cosine_epochs": None,
        "warmup_epochs": 1.0,
        "nesterov": True,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "crop_padding": 1,
        "flip": False,
        "score": "last",
    },
    "nao_cifar10": _NAO_FINAL,
    # NAONet-A of F = 128, and NAONet-V2 of F = 36 (NAO_pytorch V1 and V2).
    "nao_cifar10_128": {**_NAO_FINAL, "weight_decay": 5e-4, "drop_path_keep": 0.7},
    "nao_v2_cifar10": {**_NAO_FINAL, "weight_decay": 5e-4},
    # Of the TensorFlow code, whose network and whose standardisation, example by example, are others.
    "nao_cifar100": {**_NAO_FINAL, "lr": 0.024, "weight_decay": 5e-4, "dropout": 0.2, "drop_path_keep": 0.6},
    # The final training of DARTS on CIFAR-10, with `--auxiliary` and `--cutout` as published.
    "darts_cifar10": {
        "batch": 96,
        "lr": 0.025,
        "rate_schedule": "epoch",
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "drop_path_keep": 0.8,
        "drop_path_schedule": "epoch",
        "cutout": 16,
        "score": "last",
    },
    # Also those of the NAO-WS network, in the same code.
    "enas_micro_cifar10": {**_ENAS_FINAL, "batch": 144, "lr_end": 0.0001, "dropout": 0.2, "drop_path_keep": 0.6},
    "enas_macro_cifar10": {
        **_ENAS_FINAL,
        "batch": 100,
        "lr_end": 0.001,
        "dropout": 0.5,
        "drop_path_keep": 1.0,
        "auxiliary_weight": 0.0,
    },
}
"""What each recipe changes of the defaults above."""

_SMALL: dict[str, Any] = {"size": {"cells_per_stage": 1, "layers": 5, "channels": 8}, "epochs": 10, "data": "train"}
FULL_TRAININGS: dict[str, dict[str, Any]] = {
    "nao_cifar10": {"size": {"cells_per_stage": 6, "channels": 36}, "epochs": 600},
    "nao_cifar10_128": {"size": {"cells_per_stage": 6, "channels": 128}, "epochs": 600},
    "nao_v2_cifar10": {"size": {"cells_per_stage": 6, "channels": 36}, "epochs": 600},
    "nao_cifar100": {"size": {"cells_per_stage": 6, "channels": 128}, "epochs": 600},
    "darts_cifar10": {"size": {"layers": 20, "channels": 36}, "epochs": 600},
    "enas_micro_cifar10": {"size": {"cells_per_stage": 5, "channels": 36}, "epochs": 630},
    "enas_macro_cifar10": {"size": {"channels": 96}, "epochs": 310},
    "short": _SMALL,
    "short_digits": _SMALL,
}
"""By the name of their recipe, with sizes for any networks that have one of that name; the published ones train on all
that a search may see (`data: all`). Luo et al., arXiv 1808.07233 and 1909.10815; Liu, Simonyan, Yang, arXiv
1806.09055; Pham, Guan, Zoph, Le, Dean, arXiv 1802.03268."""


def full_training(recipe: str, sizes: Collection[str]) -> dict[str, Any]:
    """Size, epochs and recipe of a full training.

    Args:
        recipe: one of `FULL_TRAININGS`, or a file of settings; that has the size of the one it names, or none.
        sizes: names of those that the networks have; what is said of others is left out.

    Raises:
        ConfigError: there is no such recipe, or file.
    """
    name = recipe_file.read(recipe, Recipe.model_fields).get("name") if recipe_file.is_file(recipe) else recipe
    if name not in FULL_TRAININGS and not recipe_file.is_file(recipe):
        raise ConfigError(
            f"no full training is named {recipe!r}; known: {', '.join(FULL_TRAININGS)}, or a file of settings"
        )
    plan = {"size": {}, **FULL_TRAININGS.get(str(name), {})}
    size = {name: value for name, value in plan.pop("size").items() if name in sizes}
    return {**size, **plan, "recipe": recipe}
