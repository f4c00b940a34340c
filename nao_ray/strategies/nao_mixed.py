"""NAO on two fidelities: many shared scores, cheap and biased, and a few networks trained alone, dear and true.

A round trains the shared weights, scores random architectures with them, and trains some alone, which `nao` chooses.
To `nao` the shared scores of a version are what an earlier pool is: a `controllers.transfer.Source`, whose ranks are
the prior mean of its process. How much they weigh, and whether they are used at all, is settled anew in every fit by
how well the networks trained alone are predicted without themselves; so scores that rank nothing are left alone.

The first ones trained alone are a random sample of the scored: the audit of other searches with shared weights, at no
further cost.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from pydantic import Field, model_validator

from nao_ray import rng as streams
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.base import Earlier
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.shared_search import (
    RandomSampling,
    Scored,
    Script,
    SharedConfig,
    SharedSearch,
    random_genotypes,
)
from nao_ray.trial import Proposal, Trial


class NaoMixedConfig(SharedConfig):
    """Settings of `NaoMixed`."""

    rounds: int = Field(default=1, ge=1)
    """Trainings of the shared weights, with scores and networks trained alone after each."""
    paths: int = Field(default=1000, ge=1)
    """Random genotypes whose paths a round trains, anew in each round."""
    sampling: RandomSampling = "uniform"
    """As of `shared_random_search`."""
    scored: int = Field(default=500, ge=2)
    """Random genotypes scored with each version; of those trained alone by then it scores all, too."""
    audited: int = Field(default=5, ge=2)
    """Random ones of the first scored, which are trained alone before any is chosen."""
    alone: int = Field(default=15, ge=0)
    """Trained alone after each round, chosen by the predictor of both."""
    at_once: int = Field(default=4, ge=1)
    """Of these are asked for together; the predictor is fitted anew after so many."""
    finalists: int = Field(default=0, ge=0)
    nao: NaoConfig = NaoConfig()
    """Of the predictor, and of how it chooses; its seeds, budgets and `warm_start` have no meaning."""

    @model_validator(mode="after")
    def _one_predictor(self) -> Self:
        if self.finalists:
            raise ValueError("finalists: what is trained alone is chosen by the predictor; give alone")
        if self.nao.predictor != "gp" or self.nao.mode != "steady":
            raise ValueError("nao: shared scores are a prior of the steady gp; leave predictor and mode out")
        if self.nao.warm_start or self.nao.seed_genotypes:
            raise ValueError("nao: warm_start and seed_genotypes are what the search fills in; leave them out")
        return self


class NaoMixed(SharedSearch[NaoMixedConfig]):
    """`nao`, whose earlier pools are the versions of the shared weights."""

    Config = NaoMixedConfig

    def scored_in(self, round_: int) -> int:
        return self.config.scored + (self.config.audited + round_ * self.config.alone if round_ else 0)

    def alone_from(self, round_: int) -> int:
        config = self.config
        return (0 if round_ else config.audited) + (config.rounds - round_) * config.alone

    def _whole(self) -> Script:
        yield from self.script()

    def script(self) -> Generator[list[Proposal], list[Trial], Scored]:
        config, scored = self.config, dict[str, tuple[Genotype, float]]()
        nao: _Told | None = None
        versions: list[Earlier] = []
        for index in range(config.rounds):
            generator = streams.child(self.seed, "random round", index)
            yield from self.train_random(config.paths, config.sampling, generator)
            drawn = random_genotypes(self.space, config.scored, generator)
            tried = [] if nao is None else nao.genotypes
            scored = dict((yield from self.score([*drawn, *tried], index)))
            if len(scored) < 2:
                break
            keys = tuple(scored)
            scores = tuple(score for _, score in scored.values())
            versions.append(Earlier(f"shared weights of round {index}", keys, scores))
            sample = [] if nao else self.sample(scored)
            nao = nao or _Told(self._nao(sample))
            nao.strategy.learn_from(versions)
            audited = yield from self._alone(nao, len(sample), len(sample), index)
            if sample:
                self.audit(scored, audited)
            yield from self._alone(nao, config.alone, config.at_once, index)
            for row in nao.strategy.diagnostics():
                self.note(index, **{name: value for name, value in row.items() if name != "round"})
        return scored

    def _nao(self, sample: Sequence[Genotype]) -> Nao:
        """That begins with a sample."""
        given = {"seeds": max(2, len(sample)), "seed_genotypes": tuple(genotype.key for genotype in sample)}
        return Nao(self.space, self.config.nao.model_copy(update=given), self.seed, self.fidelity)

    def _alone(
        self, nao: _Told, count: int, at_once: int, round_: int
    ) -> Generator[list[Proposal], list[Trial], list[Trial]]:
        """So many of what `nao` asks for, trained alone and told to it."""
        found: list[Trial] = []
        while len(found) < count:
            drafts = nao.strategy.ask(min(at_once, count - len(found)))
            if not drafts:
                break  # the space is used up
            trials = yield [nao.known_here(draft, round_) for draft in drafts]
            nao.tell(drafts, trials)
            found += trials
        return found


@dataclass(slots=True)
class _Told:
    """A strategy within this one: its trials have numbers of their own."""

    strategy: Nao
    here: dict[int, int] = field(default_factory=dict)
    """By its trial id, the one of the search."""
    genotypes: list[Genotype] = field(default_factory=list)
    """Of all it asked for."""

    def known_here(self, draft: Proposal, round_: int) -> Proposal:
        """As the search asks for it."""
        source = None if draft.source_trial_id is None else self.here[draft.source_trial_id]
        return replace(draft, source_trial_id=source, round=round_)

    def tell(self, drafts: Sequence[Proposal], trials: Sequence[Trial]) -> None:
        """What became of the drafts, in their order."""
        for draft, trial in zip(drafts, trials, strict=True):
            self.here[draft.trial_id] = trial.trial_id
            self.genotypes.append(draft.genotype)
            self.strategy.tell([replace(trial, proposal=draft)])
