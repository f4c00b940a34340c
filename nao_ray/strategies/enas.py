"""ENAS: an LSTM policy and shared weights, trained in turns.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268.
A round is an epoch of the weights, each step on a genotype that the policy draws, then REINFORCE updates of the policy
on scores of what it draws; at the end the policy draws once more, all are scored, and the best are trained alone.

Differs from the paper: a score is taken on the same validation examples for all, and a genotype drawn twice with one
version of the weights is scored once. Recurrent cells are trained and scored in their canonical form, in which nodes
have other numbers than those drawn, hence other shared weights; what the policy learns about is what it drew.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from nao_ray import rng as streams
from nao_ray.controllers.lstm import make_policy
from nao_ray.controllers.policy import LstmConfig
from nao_ray.controllers.policy_gradient import PolicyGradient
from nao_ray.errors import ConfigError
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens
from nao_ray.strategies.parts.reinforce_config import PRESETS
from nao_ray.strategies.parts.shared_search import Scored, SharedConfig, SharedSearch
from nao_ray.trial import Fidelity, Proposal, Trial

_REDRAWS = 20


class EnasConfig(SharedConfig):
    """Settings of `Enas`; the preset gives what is not set: the published scripts' search."""

    preset: Literal["enas_micro", "enas_macro", "enas_rnn"] = "enas_micro"
    rounds: int = Field(default=150, ge=1)
    epochs: int = Field(default=1, ge=1)
    paths: int = Field(default=1000, ge=1)
    """Genotypes drawn for a round's steps; they come in turn, again from the first where there are more steps."""
    updates: int = Field(default=30, ge=1)
    """Of the policy per round, each from `lstm.num_aggregate` draws."""
    candidates: int = Field(default=100, ge=1)
    """Drawn and scored at the end, on all of the validation split; rewards are taken on the evaluator's batches."""
    reward: float = Field(default=80.0, gt=0)
    """Where a perplexity is measured, the reward is this divided by it; any other score is a reward as it is."""
    lstm: LstmConfig = LstmConfig()
    """Policy and update."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping):
            return values
        name = values.get("preset", "enas_micro")
        rounds = {
            "enas_micro": {"rounds": 150, "updates": 30},
            "enas_macro": {"rounds": 310, "updates": 50},
            "enas_rnn": {"rounds": 600, "updates": 25, "paths": 250},  # a path a step, and PTB has 208
        }
        lstm = PRESETS[name]["lstm"] if name in PRESETS else {}
        given = values.get("lstm", {})
        return {**rounds.get(name, {}), **values, "lstm": {**lstm, **given} if isinstance(given, Mapping) else given}


class Enas(SharedSearch[EnasConfig]):
    """The policy is a fold over the scores, in the order drawn."""

    Config = EnasConfig

    def __init__(self, space: SearchSpace[Any], config: EnasConfig, seed: int, fidelity: Fidelity) -> None:
        self._policy = make_policy(space.name, space.token_mask, config.lstm, streams.torch_generator(seed, "policy"))
        self._gradient = PolicyGradient(self._policy, config.lstm)
        super().__init__(space, config, seed, fidelity)

    def scored_in(self, round_: int) -> int:
        config = self.config
        return config.updates * config.lstm.num_aggregate + (config.candidates if round_ == config.rounds - 1 else 0)

    def script(self) -> Generator[list[Proposal], list[Trial], Scored]:
        config = self.config
        for index in range(config.rounds):
            genotypes, _ = self._draw(config.paths, "paths", index)
            yield from self.train(genotypes, "given")
            scored: dict[str, tuple[Genotype, float]] = {}
            for update in range(config.updates):
                yield from self._update(index, update, scored)
        genotypes, _ = self._draw(config.candidates, "candidates", 0)
        return (yield from self.score(genotypes, config.rounds, on_all=True))

    def _update(
        self, index: int, update: int, scored: dict[str, tuple[Genotype, float]]
    ) -> Generator[list[Proposal], list[Trial], None]:
        drawn, tokens = self._draw(self.config.lstm.num_aggregate, f"round {index}", update)
        new = [genotype for genotype in drawn if genotype.key not in scored]
        scored |= yield from self.score(new, index)
        known = [row for row, genotype in enumerate(drawn) if genotype.key in scored]
        if not known:
            return
        scores = np.array([scored[drawn[row].key][1] for row in known])
        rewards = self.config.reward / -scores if self.scores_are_perplexities else scores
        report = self._gradient.update(tokens[known], rewards)
        if update == self.config.updates - 1:
            self.note(index, **{**report.row(), "mean_score": float(scores.mean())})

    def _draw(self, count: int, purpose: str, index: int) -> tuple[Sequence[Genotype], Any]:
        """So many draws; those outside of limits are drawn anew, up to `_REDRAWS` times, then left out."""
        generator = streams.child(self.seed, purpose, index)
        genotypes: list[Genotype] = []
        kept: list[Tokens] = []
        for _ in range(_REDRAWS):
            tokens = self._policy.sample(count - len(kept), generator).tokens
            drawn = [self.space.canonical(self.space.decode(row)) for row in tokens]
            inside = [row for row, genotype in enumerate(drawn) if not self.space.refusal(genotype)]
            genotypes += [drawn[row] for row in inside]
            kept += [tokens[row] for row in inside]
            if len(kept) == count:
                break
        if not kept:
            raise ConfigError(
                f"constraints: none of {_REDRAWS * count:,} architectures that the policy drew keeps them; loosen them",
                "constraints",
            )
        return genotypes, np.stack(kept)
