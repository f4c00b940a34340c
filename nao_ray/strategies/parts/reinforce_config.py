"""Settings of the REINFORCE strategy, and ENAS's searches as presets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from nao_ray.controllers.policy import LstmConfig
from nao_ray.strategies.base import StrategyConfig
from nao_ray.trial import Trial

_ENAS = {"epsilon": 1e-3, "entropy_weight": 1e-4, "baseline_decay": 0.99, "baseline_start": "zero"}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        # melodyguan/enas, scripts/cifar10_macro_search.sh: 50 updates per epoch of the shared weights, 310 epochs
        "enas_macro": {
            "policy": "lstm",
            "lstm": {
                **_ENAS,
                "learning_rate": 0.001,
                "tanh_constant": 1.5,
                "num_aggregate": 20,
                "skip_target": 0.4,
                "skip_weight": 0.8,
            },
        },
        # scripts/cifar10_micro_search.sh: 30 updates per epoch, 150 epochs
        "enas_micro": {
            "policy": "lstm",
            "lstm": {
                **_ENAS,
                "learning_rate": 0.0035,
                "tanh_constant": 1.10,
                "op_tanh_reduce": 2.5,
                "num_aggregate": 10,
            },
        },
        # google-research's enas_lm: 25 updates per epoch, 600 epochs
        "enas_rnn": {
            "policy": "lstm",
            "lstm": {
                "init_range": 0.01,
                "learning_rate": 5e-5,
                "betas": (0.9, 0.999),
                "tanh_constant": 2.25,
                "temperature": 5.0,
                "entropy_weight": 1e-5,
                "baseline_decay": 0.999,
                "baseline_start": "zero",
                "num_aggregate": 10,
            },
        },
    }
)


class ReinforceConfig(StrategyConfig):
    """Settings of `Reinforce`; the preset gives what is not set."""

    preset: Literal["default", "enas_macro", "enas_micro", "enas_rnn"] = "default"
    """ENAS's: the values of the published scripts, meant for thousands of cheap evaluations with shared weights;
    entropy and skip penalty are exact, macro's own are `lstm: {entropy: sampled, skip_penalty: sigmoid}`."""
    policy: Literal["independent", "lstm"] = "independent"
    """`independent`: one softmax per token position; `lstm`: each choice depends on those before it, as in ENAS."""
    learning_rate: float = Field(default=0.2, gt=0)
    """Of Adam, for `independent`. Of the paper's grid, 0.01 to 0.5, the one that needs fewest queries on NAS-Bench-201
    CIFAR-10: 128 of at most 200, with 0.01, 0.05, 0.1 and 0.5: 195, 196, 167 and 156 (means over 40 seeds)."""
    baseline_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the moving average of the scores, for `independent`."""
    redraws: int = Field(default=100, ge=0)
    """Draws from the policy for one new architecture, after the first one."""
    lstm: LstmConfig = LstmConfig()
    """Network and update of the `lstm`."""
    reward: float | None = Field(default=80.0, gt=0)
    """Where a perplexity is measured, the reward is this divided by it, as in ENAS; null: minus the perplexity. Any
    other score is a reward as it is."""
    of_before: ClassVar[Mapping[str, Any]] = {"reward": None}

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping):
            return values
        preset = PRESETS.get(values.get("preset", "default"), {})
        merged: dict[str, Any] = {**preset, **values}
        if isinstance(values.get("lstm"), Mapping):
            merged["lstm"] = {**preset.get("lstm", {}), **values["lstm"]}
        return merged

    def reward_of(self, trial: Trial) -> float | None:
        """What the policy is to make more of; None: the trial failed."""
        measured = trial.measurement
        if trial.score is None or self.reward is None or measured is None or measured.valid_perplexity is None:
            return trial.score
        return self.reward / measured.valid_perplexity
