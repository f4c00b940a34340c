"""Searches with shared weights: train a version of them, score genotypes with it, learn, and so on.

A search is a script: a generator that yields what is to be done next, all of which may be done side by side, and is
sent the finished trials. So the state of a strategy is the place in its script, which a replay of the log finds again.
At the end some finalists are trained alone and ranked anew, and so is a random sample of what was scored last:
Kendall's tau between their shared and their own scores says how far the shared ones can be believed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from nao_ray import rng as streams
from nao_ray.controllers.measures import kendall_taus
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.strategies.parts.random_control import Account
from nao_ray.trial import Diagnostics, Fidelity, Phase, Proposal, Trial, TrialState

Script = Generator[list[Proposal], list[Trial], None]
Sampling = Literal["uniform", "size", "given"]
RandomSampling = Literal["uniform", "size", "fair"]
"""Of random paths; `fair`: in turn, see `fair_genotypes`."""
Kind = Literal["phase", "scored", "alone"]
"""Of trials, which take times of their own."""
Scored = Mapping[str, tuple[Genotype, float]]
"""Genotypes with their scores, by key."""

_RESAMPLES = 1000


class SharedConfig(StrategyConfig):
    """What every search with shared weights has."""

    rounds: int = Field(default=5, ge=1)
    """Trainings of the shared weights, scores after each."""
    epochs: int = Field(default=30, ge=1)
    """Of training per round."""
    epochs_per_version: int | None = Field(default=None, ge=1)
    """A version of the weights is kept after so many: what a lost worker costs; None: one per round."""
    finalists: int = Field(default=5, ge=0)
    """Best of the last round that are trained alone and ranked anew."""
    audited: int = Field(default=8, ge=0)
    """Random ones of the last round that are trained alone as well, to compare the ranks; none below 3."""


C = TypeVar("C", bound=SharedConfig)


class SharedSearch(Strategy[C]):
    """A script that is carried out; a concrete strategy writes `script`."""

    shares_weights: ClassVar[bool] = True

    def __init__(self, space: SearchSpace[Any], config: C, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self._rows: list[Diagnostics] = []
        self._spent: defaultdict[Kind, Account] = defaultdict(Account)
        self._planned = self._expected(0)
        self._version: str | None = None
        self._epochs_done = 0
        self._training_seed: int | None = streams.child_seed(seed, "shared weights")
        self._sizes: dict[str, int] = {}  # by genotype, of phases that draw by it
        self._asked_here = 0
        self._told_here: dict[int, Trial] = {}
        self._ended = False
        self.scores_are_perplexities = False
        """Of what was scored with shared weights: each is minus a perplexity."""
        self._script = self._whole()
        self._agenda: list[Proposal] = []
        self._turn_to(lambda: next(self._script))

    @abstractmethod
    def script(self) -> Generator[list[Proposal], list[Trial], Scored]:
        """What is to be done, up to the scores of the last round, which it returns."""

    @abstractmethod
    def scored_in(self, round_: int) -> int:
        """Genotypes that a round scores, at most; after the last, those scored before the finalists are chosen too."""

    @property
    def planned(self) -> int:
        return self.num_asked if self._ended else self._planned

    @property
    def seconds_to_come(self) -> float | None:
        phases, alone = self._spent["phase"], self._spent["alone"]
        if not phases.measured:
            return None
        # A path of the shared weights and a network of its own take about as long an epoch; a score takes next to none.
        epochs = min(self.config.epochs, self.config.epochs_per_version or self.config.epochs)
        guessed = 0.0 if alone.told else (self.fidelity.epochs or 0) / epochs * phases.seconds / phases.measured
        costs = {
            kind: spent.seconds / spent.measured if spent.measured else guessed * (kind == "alone")
            for kind, spent in ((kind, self._spent[kind]) for kind in self._left)
        }
        return sum(max(0, count) * costs[kind] for kind, count in self._left.items())

    def _expected(self, first: int) -> int:
        """Trials in all, at most, where those from the training of a round on are to come."""
        config, rounds = self.config, range(first, self.config.rounds)
        versions = -(-config.epochs // (config.epochs_per_version or config.epochs))
        self._left: dict[Kind, int] = {
            "phase": versions * len(rounds),
            "scored": sum(map(self.scored_in, rounds)),
            "alone": self.alone_from(first),
        }
        return self.num_asked + sum(self._left.values())

    def alone_from(self, round_: int) -> int:
        """Networks that are trained alone from the training of a round on, at most."""
        return self.config.finalists + self._audited

    @property
    def _audited(self) -> int:
        return self.config.audited if self.config.audited >= _FEWEST else 0

    # -- parts of a script ----------------------------------------------------------------------------------

    def train(
        self, genotypes: Iterable[Genotype], sampling: Sampling = "uniform", *, kind: str = "paths"
    ) -> Generator[list[Proposal], list[Trial], Genotype | None]:
        """A round's training, version by version; the genotype that it came to, where its kind comes to one.

        Raises:
            GenotypeError: what it came to is none of the space's.
        """
        texts = tuple(genotype.key for genotype in genotypes)
        self._planned = self._expected(self._epochs_done // self.config.epochs)
        end = self._epochs_done + self.config.epochs
        derived: Genotype | None = None
        while self._epochs_done < end:
            last = min(end, self._epochs_done + (self.config.epochs_per_version or self.config.epochs))
            phase = Phase(
                version=f"e{last:05d}",
                source=self._version,
                first_epoch=self._epochs_done,
                last_epoch=last,
                genotypes=texts,
                sampling=sampling,
                kind=kind,
                seed=self._training_seed,
            )
            stand_in = Genotype(self.space.name, f"shared weights {phase.version}")
            (trial,) = yield [Proposal(genotype=stand_in, phase=phase)]
            assert trial.state is TrialState.COMPLETED, "a search ends with a phase that fails"
            self._version, self._epochs_done, derived = phase.version, last, trial.derived
        if derived is not None:
            self.space.validate(derived)
        return derived

    def train_random(
        self, paths: int, sampling: RandomSampling, generator: np.random.Generator
    ) -> Generator[list[Proposal], list[Trial], Genotype | None]:
        """A round's training on so many random paths."""
        if sampling == "fair":
            return (yield from self.train(fair_genotypes(self.space, paths, generator), "given"))
        return (yield from self.train(random_genotypes(self.space, paths, generator), sampling))

    def score(
        self,
        genotypes: Iterable[Genotype],
        round_: int,
        drafts: Mapping[str, Proposal] | None = None,
        *,
        on_all: bool = False,
    ) -> Generator[list[Proposal], list[Trial], Scored]:
        """Scores with the newest version of those that could be scored; `drafts` say where some come from."""
        fidelity = Fidelity(weights_version=self._version, valid_share=1.0 if on_all else None)
        distinct = {genotype.key: genotype for genotype in genotypes}
        known = drafts or {}
        trials = yield [
            _with(known.get(key, Proposal(genotype=genotype)), fidelity, round_) for key, genotype in distinct.items()
        ]
        measured = [trial.measurement for trial in trials if trial.measurement is not None]
        self.scores_are_perplexities = any(each.valid_perplexity is not None for each in measured)
        return {trial.genotype.key: (trial.genotype, trial.score) for trial in trials if trial.score is not None}

    def note(self, round_: int, **facts: float | int | str | None) -> None:
        """A row of diagnostics."""
        self._rows.append({"round": round_, "weights_version": self._version, **facts})

    def ranked(self, scored: Scored) -> list[Genotype]:
        """Best first."""
        return [genotype for genotype, _ in sorted(scored.values(), key=lambda pair: (-pair[1], pair[0].key))]

    # -- the whole script -----------------------------------------------------------------------------------

    def _whole(self) -> Script:
        scored = yield from self.script()
        finalists = self.ranked(scored)[: self.config.finalists]
        sample = self.sample(scored)
        both = list({genotype.key: genotype for genotype in [*finalists, *sample]}.values())
        self._planned, self._left = self.num_asked + len(both), {"alone": len(both)}
        trials = yield [Proposal(genotype=genotype, round=self.config.rounds) for genotype in both]
        alone = {trial.genotype.key: trial for trial in trials}
        self.audit(scored, [alone[genotype.key] for genotype in sample])

    def sample(self, scored: Scored) -> list[Genotype]:
        """Random ones of what was scored: those to be audited."""
        keys = sorted(scored)
        chosen = streams.child(self.seed, "audit").permutation(len(keys))[: self._audited]
        return [scored[keys[index]][0] for index in chosen]

    def audit(self, scored: Scored, trials: Iterable[Trial]) -> None:
        """A row on what the scores are worth, by the trials that trained a random sample of them alone."""
        audited = [trial for trial in trials if trial.score is not None]
        shared_scores = np.array([scored[trial.genotype.key][1] for trial in audited])
        alone = np.array([trial.score for trial in audited])
        found = audit(shared_scores, alone, self.seed)
        sizes = [trial.measurement.num_params for trial in audited if trial.measurement is not None]
        if audited and None not in sizes:  # the bar: what costs nothing
            found["audit_tau_params"] = audit(np.array(sizes), alone, self.seed)["audit_tau"]
        self.note(self.config.rounds, **found, audit_trials=" ".join(str(trial.trial_id) for trial in audited))

    # -- the seam -------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self._ended

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self._asked_here == len(self._agenda):
            return None
        draft = self._agenda[self._asked_here]
        return draft if draft.phase is None else replace(draft, phase=self._sized(draft.phase))

    def _sized(self, phase: Phase) -> Phase:
        """With the sizes that it draws by, counted as it is asked for: once a search, as replays have the log."""
        if phase.sampling != "size" or self.num_params is None:
            return phase
        for text in phase.genotypes:
            size = self._sizes.get(text) or self.num_params(Genotype(self.space.name, text))
            if size is None:
                return phase
            self._sizes[text] = size
        return replace(phase, num_params=tuple(self._sizes[text] for text in phase.genotypes))

    def note_asked(self, proposal: Proposal) -> None:
        self._asked_here += 1
        if proposal.phase is not None:  # a pool from before there was a seed of the training goes on as it began
            self._training_seed = proposal.phase.seed
            self._sizes |= zip(proposal.phase.genotypes, proposal.phase.num_params or (), strict=False)

    def observe(self, trial: Trial) -> None:
        kind = _kind(trial.proposal)
        self._spent[kind].add(trial)
        self._left[kind] = self._left.get(kind, 0) - 1
        self._told_here[trial.trial_id] = trial
        if len(self._told_here) == len(self._agenda):
            told = [self._told_here[trial_id] for trial_id in sorted(self._told_here)]
            self._turn_to(lambda: self._script.send(told))

    def _turn_to(self, page: Callable[[], list[Proposal]]) -> None:
        self._asked_here, self._told_here = 0, {}
        try:
            self._agenda = page()
            while not self._agenda:  # nothing to do for this part
                self._agenda = self._script.send([])
        except StopIteration:
            self._agenda, self._ended = [], True

    def diagnostics(self) -> list[Diagnostics]:
        """One row per round, and the audit's after the last."""
        rows, self._rows = self._rows, []
        return rows


def _kind(proposal: Proposal) -> Kind:
    if proposal.phase is not None:
        return "phase"
    return "alone" if proposal.fidelity.weights_version is None else "scored"


_FEWEST = 3  # architectures a rank correlation makes sense for


def audit(shared: np.ndarray[Any, Any], alone: np.ndarray[Any, Any], seed: int) -> dict[str, float | int | None]:
    """Kendall's tau of ``[n]`` shared scores and the same genotypes' own, with its 95 % bootstrap interval."""
    if len(shared) < _FEWEST:
        return {"audited": len(shared), "audit_tau": None, "audit_tau_low": None, "audit_tau_high": None}
    picks = streams.child(seed, "audit bootstrap").integers(0, len(shared), size=(_RESAMPLES, len(shared)))
    taus = kendall_taus(shared, alone, picks)
    low, high = np.nanpercentile(taus, (2.5, 97.5)) if np.isfinite(taus).any() else (np.nan, np.nan)
    (tau,) = kendall_taus(shared, alone, np.arange(len(shared))[None])
    values = {"audit_tau": float(tau), "audit_tau_low": float(low), "audit_tau_high": float(high)}
    return {"audited": len(shared)} | {name: None if np.isnan(value) else value for name, value in values.items()}


def _with(draft: Proposal, fidelity: Fidelity, round_: int) -> Proposal:
    return replace(draft, fidelity=fidelity, round=round_)


def random_genotypes(space: SearchSpace[Any], count: int, generator: np.random.Generator) -> list[Genotype]:
    """Distinct ones; fewer where the space has not so many."""
    found: dict[str, Genotype] = {}
    wanted = min(count, space.num_architectures)
    for _ in range(20 * count):
        if len(found) >= wanted:
            break
        genotype = space.sample(generator)
        found.setdefault(genotype.key, genotype)
    return list(found.values())


def fair_genotypes(space: SearchSpace[Any], count: int, generator: np.random.Generator) -> list[Genotype]:
    """In turn they use every legal token of each place once before any comes again, as far as constraints let them.

    After Chu, Zhang, Xu, "FairNAS", ICCV 2021, arXiv 1907.01845, with a step for each path instead of one for as many
    as an edge has operations.
    """
    legal = [np.flatnonzero(place) for place in space.token_mask]
    columns = [[generator.permutation(tokens) for _ in range(-(-count // len(tokens)))] for tokens in legal]
    rows = np.stack([np.concatenate(column)[:count] for column in columns], axis=1)
    return [genotype for genotype in map(space.decode, rows) if not space.refusal(genotype)]
