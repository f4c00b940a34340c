"""One controller round: from the fitted controller and the best trials to an ordered queue of new proposals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nao_ray.controllers.base import Controller
from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.nao_objectives import Objectives
from nao_ray.trial import Proposal

_ETAS_AT_ONCE = 8  # step sizes decoded in one batch: a round that is full early decodes few in vain
_TRIES = 200  # per proposal of a refill: mutants first, then random ones; then the space counts as used up


@dataclass(frozen=True, slots=True)
class Observation:
    """What the strategy keeps of a finished trial."""

    trial_id: int
    genotype: Genotype
    score: float | None
    round: int
    predicted_score: float | None
    source_score: float | None
    """Score of the trial it was derived from, after as many epochs."""
    values: tuple[float, ...] = ()
    """The score and the other objectives (`Strategy.values_of`)."""
    epochs: int | None = None
    """Of its training: its rung, on a ladder."""
    course: tuple[tuple[int, float], ...] = ()
    """Scores after some numbers of epochs, ascending, as far as there is a curve."""


@dataclass(slots=True)
class Counts:
    """Rows decoded, and what became of them."""

    decoded: int = 0
    legal: int = 0
    unique: int = 0
    new: int = 0
    refilled: int = 0

    def row(self) -> dict[str, float | int | None]:
        """Shares of the rows decoded: legal genotypes, distinct architectures, and new ones."""
        of = self.decoded
        shares = {"legal": self.legal, "unique": self.unique, "new": self.new}
        return {f"share_{name}": count / of if of else None for name, count in shares.items()} | {
            "num_decoded": of,
            "num_refilled": self.refilled,
        }


@dataclass(slots=True)
class Round:
    """Candidates of one round, collected in order."""

    space: SearchSpace[Any]
    controller: Controller
    config: NaoConfig
    index: int
    sources: Sequence[Observation]
    """Best first."""
    pending: Sequence[Genotype]
    """Asked, and not yet measured."""
    taken: set[str]
    """Keys that are not proposed again; grows."""
    generator: np.random.Generator
    counts: Counts = field(default_factory=Counts)
    objectives: Objectives | None = None
    """Others than the score; None: it is all."""
    scored: set[str] = field(default_factory=set)
    """Keys of the genotypes the predictor was asked about."""

    def queue(self) -> list[Proposal]:
        """`round_size` new proposals, best predicted first or in the order found; fewer in a space used up."""
        config = self.config
        wanted = config.round_size
        drafts = self._candidates(wanted)
        if config.select == "predicted":
            drafts = self._chosen(drafts, wanted)
        drafts = self._scored(drafts[:wanted])
        self.taken.update(draft.genotype.key for draft in drafts)
        origins = [draft.genotype for draft in drafts[: config.top_k]] or [s.genotype for s in self.sources]
        refill: list[Proposal] = []
        for _ in range(wanted - len(drafts)):
            genotype = fresh(self.space, origins, self.taken, self.generator)
            if genotype is None:
                break
            self.counts.refilled += 1
            self.taken.add(genotype.key)
            refill.append(Proposal(genotype=genotype, round=self.index))
        return drafts + self._scored(refill)

    def _chosen(self, drafts: list[Proposal], count: int) -> list[Proposal]:
        """The best predicted of those that keep the limits: of what is chosen the others are left out, then again."""
        while drafts:
            found = [drafts[row] for row in self._choose(drafts, count)]
            outside = {draft.genotype.key for draft in found if self.space.refusal(draft.genotype)}
            if not outside:
                return found
            drafts = [draft for draft in drafts if draft.genotype.key not in outside]
        return []

    def _choose(self, drafts: Sequence[Proposal], count: int) -> list[int]:
        tokens = _tokens(self.space, [draft.genotype for draft in drafts])
        self.scored.update(draft.genotype.key for draft in drafts)
        if self.objectives is not None:
            genotypes = [*self.pending, *(draft.genotype for draft in drafts)]
            mean, spread = self.controller.predict(_tokens(self.space, genotypes))
            bounds = mean + self.config.spread_weight * spread
            return self.objectives.choose(bounds, genotypes, count, len(self.pending))
        pending = _tokens(self.space, self.pending) if self.pending else tokens[:0]
        return self.controller.choose(tokens, count, pending, self.config.spread_weight)

    def _candidates(self, wanted: int) -> list[Proposal]:
        """New genotypes, each once: decoded ones, then, to choose from, neighbours of the sources and random ones."""
        config, found = self.config, dict[str, Proposal]()
        for draft in self._decoded():
            found.setdefault(draft.genotype.key, draft)
            if len(found) >= (wanted if config.select == "order" else config.candidates):
                return list(found.values())
        if config.select == "predicted":
            for draft in self._undecoded():
                if draft.genotype.key not in self.taken:
                    found.setdefault(draft.genotype.key, draft)
                if len(found) >= config.candidates:
                    break
        return list(found.values())

    def _undecoded(self) -> Iterator[Proposal]:
        whole = self.space.whole  # limits are looked at where something is chosen: to count a network takes time
        for number in range(self.config.neighbours):
            for source in self.sources:
                genotype = whole.mutate(source.genotype, self.generator)
                if number % 2:
                    genotype = whole.mutate(genotype, self.generator)
                yield Proposal(genotype=genotype, round=self.index, source_trial_id=source.trial_id)
        for _ in range(self.config.neighbours):
            yield Proposal(genotype=whole.sample(self.generator), round=self.index)

    def _decoded(self) -> Iterator[Proposal]:
        """New architectures at the end of gradient steps, each once, in the order step size, source."""
        config, etas = self.config, self.config.schedule
        tokens = _tokens(self.space, [source.genotype for source in self.sources])
        seen: set[str] = set()
        for at in range(0, len(etas), _ETAS_AT_ONCE):
            steps = self.controller.step(tokens, etas[at : at + _ETAS_AT_ONCE], config.unit_steps)
            for row, decoded in enumerate(steps.tokens):
                self.counts.decoded += 1
                try:
                    genotype = self.space.canonical(self.space.decode(decoded))
                except GenotypeError:
                    continue  # the masks forbid it; counted as not legal if a space's mask is too wide
                self.counts.legal += 1
                if genotype.key in seen:
                    continue
                seen.add(genotype.key)
                self.counts.unique += 1
                if genotype.key in self.taken or (config.select == "order" and self.space.refusal(genotype)):
                    continue
                self.counts.new += 1
                yield Proposal(
                    genotype=genotype,
                    embedding=tuple(steps.points[row].tolist()),
                    round=self.index,
                    source_trial_id=self.sources[steps.sources[row]].trial_id,
                    source_step_size=float(steps.step_sizes[row]),
                )

    def _scored(self, drafts: list[Proposal]) -> list[Proposal]:
        if not drafts:
            return []
        tokens = _tokens(self.space, [draft.genotype for draft in drafts])
        self.scored.update(draft.genotype.key for draft in drafts)
        mean, spread = self.controller.predict(tokens)
        points = self.controller.embed(tokens)  # what was not decoded from a point is proposed at its own
        return [
            replace(
                draft,
                embedding=draft.embedding or tuple(point.tolist()),
                predicted_score=float(m),
                predicted_spread=float(s),
            )
            for draft, point, m, s in zip(drafts, points, mean, spread, strict=True)
        ]


def fresh(
    space: SearchSpace[Any], origins: Sequence[Genotype], taken: set[str], generator: np.random.Generator
) -> Genotype | None:
    """An architecture that is not taken: a neighbour of an origin, else a random one, else None; always ends."""
    for _ in range(_TRIES if origins else 0):
        genotype = space.mutate(origins[int(generator.integers(len(origins)))], generator)
        if genotype.key not in taken:
            return genotype
    for _ in range(_TRIES):
        genotype = space.sample(generator)
        if genotype.key not in taken:
            return genotype
    return None


def _tokens(space: SearchSpace[Any], genotypes: Sequence[Genotype]) -> Tokens:
    return np.stack([space.encode(genotype) for genotype in genotypes])
