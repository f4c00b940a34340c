"""NAO with shared weights: rounds of training a supernet, scoring a pool with it, and proposing new genotypes.

Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233, in the settings of the authors' PyTorch code: `nao_ws` (V1)
trains and scores a pool of 600, of which each round replaces the worst by new ones; `nao_v2` (Luo, Qin, Chen, arXiv
1909.10815) trains only what is new, drawn in proportion to its parameters, and scores everything again with every
version. `nao_ws_rnn` is the search for recurrent cells of the authors' code of texts. The controller of a round learns
from the scores of one version alone; where those are perplexities, from their logarithms.

Differs from the published code: all are scored on the same validation examples; a genotype and its twins are one,
trained and scored in canonical form; what was ever scored is not proposed again, and where too few new ones are
decoded, mutants of the best fill up.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nao_ray import rng as streams
from nao_ray.controllers.base import Controller, one_thread
from nao_ray.controllers.fit import Draws, FitReport, fit
from nao_ray.controllers.gp_controller import fit_process
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.pretraining import Pretrained, pretrain
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_round import Observation, Round
from nao_ray.strategies.parts.shared_search import Scored, SharedConfig, SharedSearch, random_genotypes
from nao_ray.trial import Fidelity, Proposal, Trial

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "nao_ws": {"rounds": 5, "epochs": 30, "pool": 600, "controller": {"preset": "nao_ws_v1"}},
        "nao_ws_rnn": {"rounds": 5, "epochs": 200, "pool": 1000, "random": 50, "controller": {"preset": "nao_ws_rnn"}},
        "nao_v2": {
            "rounds": 4,
            "epochs": 50,
            "pool": 1000,
            "trained": "new",
            "sampling": "size",
            "controller": {"preset": "v2"},
        },
    }
)


class NaoSharedConfig(SharedConfig):
    """Settings of `NaoShared`; the preset gives what is not set."""

    preset: Literal["nao_ws", "nao_ws_rnn", "nao_v2"] = "nao_ws"
    pool: int = Field(default=600, ge=2)
    """Random genotypes of the first round; with `trained: pool` the size of the pool ever after."""
    random: int = Field(default=0, ge=0)
    """Random genotypes that come into the pool with each round's new ones; so many fewer of the best stay."""
    trained: Literal["pool", "new"] = "pool"
    """`pool`: the best of the last round and the new ones are trained and scored; `new`: only new ones are trained,
    everything ever proposed is scored again."""
    sampling: Literal["uniform", "size"] = "uniform"
    """How a step draws its genotype; `size`: in proportion to the parameters."""
    controller: NaoConfig = NaoConfig(preset="nao_ws_v1")
    """As of the strategy `nao`: fit, steps and how many are proposed; its modes, seeds and budgets have no meaning."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping):
            return values
        preset = PRESETS.get(values.get("preset", "nao_ws"), {})
        merged = {**preset, **values}
        if isinstance(values.get("controller"), Mapping):
            merged["controller"] = {**preset.get("controller", {}), **values["controller"]}
        return merged

    @model_validator(mode="after")
    def _learns_from_no_pool(self) -> Self:
        if self.controller.warm_start:
            raise ValueError(
                "controller.warm_start: scores with shared weights compare with no earlier pool's; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _new_ones_fit(self) -> Self:
        new = self.random + self.controller.round_size
        if self.trained == "pool" and new > self.pool:
            raise ValueError(
                f"pool: {self.pool} hold none of the best beside the {new} that a round brings (random "
                f"{self.random}, controller.round_size {self.controller.round_size}); give a larger pool"
            )
        return self


class NaoShared(SharedSearch[NaoSharedConfig]):
    """The pool is what the next training and the next scores are about."""

    Config = NaoSharedConfig

    def __init__(self, space: SearchSpace[Any], config: NaoSharedConfig, seed: int, fidelity: Fidelity) -> None:
        self._fitted: MlpController | None = None
        self._pretrained: Pretrained | None = None
        super().__init__(space, config, seed, fidelity)

    def scored_in(self, round_: int) -> int:
        config = self.config
        added = config.controller.round_size + config.random
        return config.pool + round_ * added if config.trained == "new" else max(config.pool, added if round_ else 0)

    def script(self) -> Generator[list[Proposal], list[Trial], Scored]:
        config = self.config
        pool = random_genotypes(self.space, config.pool, streams.child(self.seed, "first pool"))
        trained, drafts, scored = pool, dict[str, Proposal](), dict[str, tuple[Genotype, float]]()
        for index in range(config.rounds):
            yield from self.train(trained, config.sampling)
            scored = dict((yield from self.score(pool, index, drafts)))
            if index == config.rounds - 1 or len(scored) < 2:
                break
            queue = self._propose(index, scored)
            new = [draft.genotype for draft in queue]
            new += random_genotypes(self.space, config.random, streams.child(self.seed, "random of the pool", index))
            drafts |= {draft.genotype.key: draft for draft in queue}
            if config.trained == "new":
                pool, trained = [*pool, *new], new or pool
            else:
                pool = trained = [*self.ranked(scored)[: max(0, config.pool - len(new))], *new]
        return scored

    def _propose(self, index: int, scored: Scored) -> list[Proposal]:
        ranked = self.ranked(scored)
        tokens = np.stack([self.space.encode(genotype) for genotype in ranked])
        scores = np.array([scored[genotype.key][1] for genotype in ranked])
        with one_thread():
            controller, report = self._fit(index, tokens, self._targets(scores))
            generation = Round(
                space=self.space,
                controller=controller,
                config=self.config.controller,
                index=index + 1,
                sources=[
                    Observation(
                        trial_id=-1,
                        genotype=genotype,
                        score=scored[genotype.key][1],
                        round=index,
                        predicted_score=None,
                        source_score=None,
                    )
                    for genotype in ranked[: self.config.controller.top_k]
                ],
                pending=[],
                taken=set(self.visited),
                generator=streams.child(self.seed, "round", index + 1),
            )
            queue = [self._draft(proposal) for proposal in generation.queue()]
        self.note(
            index,
            num_scored=len(scores),
            mean_score=float(scores.mean()),
            best_score=float(scores.max()),
            **report.row(),
            **generation.counts.row(),
        )
        return queue

    def _fit(self, index: int, tokens: Any, scores: Any) -> tuple[Controller, FitReport]:  # noqa: ANN401
        config = self.config.controller
        if config.predictor == "gp":
            if self._pretrained is None:
                self._pretrained = pretrain(
                    self.space.whole, config.epd, config.pretraining, self.seed, config.gp.views
                )
            return fit_process(self.space, self._pretrained, tokens, scores, config.spread_weight, config.gp)
        self._fitted, report = fit(
            self.space,
            tokens,
            scores,
            epd=config.epd,
            config=config.fit,
            draws=Draws(self.seed, index),
            start=self._fitted if config.keep_weights else None,
            device=config.device,
        )
        return self._fitted, report

    def _targets(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the controller learns from: of perplexities the losses, for a few bad ones would squeeze all others."""
        return -np.log(-scores) if self.scores_are_perplexities else scores

    def _draft(self, proposal: Proposal) -> Proposal:
        """Of a round's proposal: predictions in the unit of scores, and no source.

        That was scored in many trials, with one version each; none of them is the one it came from.
        """
        mean, spread = proposal.predicted_score, proposal.predicted_spread
        if self.scores_are_perplexities and mean is not None:
            mean = -math.exp(-mean)
            spread = None if spread is None else -mean * spread
        return replace(proposal, source_trial_id=None, predicted_score=mean, predicted_spread=spread)
