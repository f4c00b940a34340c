"""Settings of the NAO strategy, and the published searches as presets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from nao_ray.controllers.fit import FitConfig
from nao_ray.controllers.gp_controller import GpConfig
from nao_ray.controllers.pretraining import PretrainingConfig
from nao_ray.controllers.sizes import SIZES, EpdConfig
from nao_ray.strategies.base import StrategyConfig

_PAPER_SIZE = "tf_nao_cnn"
_ORDER = {"mode": "rounds", "predictor": "mlp", "top_k": 100, "round_size": 300}
_ORDER |= {"select": "order", "unit_steps": False, "neighbours": 0, "spread_weight": 0.0}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        # NAO without weight sharing, convolutional (sections 4.1 and 3.2, first column)
        "paper": {
            **_ORDER,
            "seeds": 600,
            "rounds": 2,
            "step_sizes": (10.0, 20.0, 30.0),
            "epd": _PAPER_SIZE,
        },
        # NAO_pytorch V1's search (5.3): the pool stays at 600, the controller's weights live on
        "nao_ws_v1": {
            **_ORDER,
            "seeds": 600,
            "rounds": 4,
            "step_sizes": 51,
            "pool_size": 600,
            "keep_weights": True,
            "epd": "v1",
            "fit": {"batch": 100, "swap": True},
        },
        # NAO without weight sharing, recurrent (4.2 and 3.2, second column)
        "paper_rnn": {
            **_ORDER,
            "seeds": 600,
            "rounds": 2,
            "step_sizes": (10.0, 20.0, 30.0),
            "epd": "tf_nao_rnn",
        },
        # NAO-WS, recurrent (5.2): the pool stays at 1000
        "nao_ws_rnn": {
            **_ORDER,
            "seeds": 1000,
            "rounds": 4,
            "step_sizes": 30,
            "pool_size": 1000,
            "keep_weights": True,
            "epd": "nao_ws_rnn",
            "fit": {"batch": 100},
        },
        # NAO_pytorch V2's search (5.4): everything ever measured, ten twins each, a tenth held out
        "v2": {
            **_ORDER,
            "seeds": 1000,
            "rounds": 3,
            "step_sizes": 51,
            "keep_weights": True,
            "epd": "v2",
            "fit": {"batch": 100, "swap": True, "weight_decay": 0.0, "repeats": 10, "holdout": 0.1},
        },
    }
)


class NaoConfig(StrategyConfig):
    """Settings of `Nao`; the preset gives what is not set."""

    of_before: ClassVar[Mapping[str, Any]] = {"size_prior": False, "blind": False, "unpaid": False, "early": False}

    preset: Literal["default", "paper", "paper_rnn", "nao_ws_v1", "nao_ws_rnn", "v2"] = "default"
    predictor: Literal["gp", "mlp"] = "gp"
    """`mlp`: as published, fitted with encoder and decoder in every round; `gp`: a Gaussian process, with an encoder
    and a decoder that were pretrained without scores."""
    mode: Literal["rounds", "steady"] = "steady"
    """`rounds` as the paper: the next round when the last is final; `steady`: a new fit every `refit_every` results."""
    seeds: int = Field(default=3, ge=2)
    """Random architectures before the first fit."""
    largest_of: int = Field(default=32, ge=1)
    """When workers want more than `seeds` before the first fit: the one with the most parameters of so many random
    ones. Larger is better more often than not, and it costs no result to know."""
    size_prior: bool = True
    """While eight more trials are asked than are known, ask for large ones unlike those that were asked: in `steady`,
    with a `gp`, without other objectives or `warm_start`. Pools of before did not."""
    seed_genotypes: tuple[str, ...] = ()
    """Texts or published names to start from; random ones fill up to `seeds`."""
    rounds: int | None = Field(default=None, ge=0)
    """Controller rounds; None: until the budget ends."""
    round_size: int = Field(default=18, ge=1)
    """New architectures per fit."""
    refit_every: int | None = Field(default=None, ge=1)
    """Results between two fits when `steady`; None: 1 with a `gp`, `round_size` with an `mlp`."""
    top_k: int = Field(default=10, ge=1)
    """Best trials a round starts from."""
    step_sizes: tuple[float, ...] | int = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """Eta of the gradient steps, in the order tried; an integer n means 1, 2, ..., n."""
    unit_steps: bool = True
    """Eta counts in lengths of the encoder's outputs; false: in raw gradients, as published."""
    select: Literal["predicted", "order"] = "predicted"
    """`order`: the first new ones, as published; `predicted`: the best predicted of all new ones."""
    spread_weight: float = Field(default=2.0, ge=0)
    """Standard deviations added to the predicted score when selecting: an upper confidence bound (`gp` alone)."""
    neighbours: int = Field(default=16, ge=0)
    """Mutants per source that compete with the decoded ones under `predicted`: half one change away, half two."""
    candidates: int = Field(default=200, ge=1)
    """Most genotypes scored for one fit's queue under `predicted`: decoded ones, then neighbours, then random ones."""
    blind: bool = True
    """Ask some without the `gp` where it does not rank what it left out: up to half, neighbours of the best and random
    ones (`parts/nao_shares.py`)."""
    unpaid: bool = True
    """Also where what it promises is not kept: fewer of its last 20 proposals than half reached the predicted score."""
    early: bool = True
    """Go by the scores of trainings under way too, as far as such scores have told the end (`parts/nao_early.py`): with
    a `gp`, in `steady`, without a ladder, whose rungs tell. Pools of before did not."""
    pool_size: int | None = Field(default=None, ge=2)
    """Fit on the newest round and the best of the others, so many in all; None: on everything."""
    keep_weights: bool = False
    """Each fit of an `mlp` continues the last one's weights; a replay then repeats the fits."""
    warm_start: tuple[str, ...] = ()
    """Earlier pools of the same space to learn from (`gp` alone): of another task, seed or fidelity. Each fit uses what
    helps to predict this search's own trials, and nothing where none does."""
    epd: EpdConfig = EpdConfig()
    """Size of the controller: a name of `controllers/sizes.py`, or its fields; the paper's with an `mlp`."""
    fit: FitConfig = FitConfig()
    """Of the `mlp`; the defaults are the paper's."""
    gp: GpConfig = GpConfig()
    """Of the `gp`."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """For the `gp`."""
    device: str = "cpu"
    """Where the controller is fitted, e.g. `cuda`; fits repeat bit for bit on the CPU alone."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping):
            return values
        preset = PRESETS.get(values.get("preset", "default"), {})
        if isinstance(values.get("warm_start"), bool):  # as `keep_weights` was called
            values = {"keep_weights": values["warm_start"], **values, "warm_start": ()}
        elif isinstance(values.get("warm_start"), str):
            values = {**values, "warm_start": (values["warm_start"],)}
        if values.get("predictor") == "mlp":
            preset = {"epd": _PAPER_SIZE, **preset}
        merged: dict[str, Any] = {**preset, **values}
        for name in ("epd", "fit"):
            if isinstance(values.get(name), Mapping):
                merged[name] = {**_as_mapping(preset.get(name, {})), **values[name]}
        return merged

    @field_validator("epd", mode="before")
    @classmethod
    def _size_by_name(cls, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, str):
            return value
        if value not in SIZES:
            raise ValueError(f"no size of this name; known: {', '.join(SIZES)}")
        return SIZES[value]

    @field_validator("step_sizes")
    @classmethod
    def _some_steps(cls, value: tuple[float, ...] | int) -> tuple[float, ...] | int:
        if not value or (isinstance(value, int) and value < 1):
            raise ValueError("expected at least one step size")
        return value

    @model_validator(mode="after")
    def _learns_from_pools(self) -> Self:
        if self.warm_start and self.predictor != "gp":
            raise ValueError(
                "warm_start needs predictor gp: an mlp is fitted to this search's trials alone (what continues its "
                "weights from fit to fit is keep_weights)"
            )
        return self

    @property
    def earlier_pools(self) -> tuple[str, ...]:
        return self.warm_start

    @property
    def hears(self) -> bool:
        return self.early and self.predictor == "gp" and self.mode == "steady"

    @property
    def schedule(self) -> tuple[float, ...]:
        """The step sizes in the order tried."""
        steps = self.step_sizes
        return tuple(float(eta) for eta in range(1, steps + 1)) if isinstance(steps, int) else steps


def _as_mapping(value: Any) -> Mapping[str, Any]:  # noqa: ANN401
    return SIZES[value].model_dump() if isinstance(value, str) else value
