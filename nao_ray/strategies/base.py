"""The upper seam: a strategy proposes genotypes and learns from finished trials.

A strategy's state is a fold over the log: what was asked, and which trials finished, in order. Proposal k is a
function of the config, the seed and the log it was asked after (`Proposal.asked_after`), so a strategy is
rebuilt by replaying the pool, in any process.

A trial that failed may be asked for again by the user. Such a retry has a trial id like any other, and is told in its
turn, but no strategy has proposed it: it counts neither as asked nor as told. So do the further rungs of a ladder
(`parts/ladder.py`), which name the trial that they go on from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from nao_ray import rng
from nao_ray.errors import ConfigError
from nao_ray.pareto import Aim
from nao_ray.settings import Settings
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.trial import Diagnostics, Fidelity, Interim, Proposal, Trial, TrialState


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier pool has come to: of the same space, but not of the same search."""

    pool: str
    """Its address."""
    genotypes: tuple[str, ...]
    """Their keys, each once; canonical."""
    scores: tuple[float, ...]
    """One each, more is better; they compare with each other, and with nothing of this search."""


class StrategyConfig(Settings):
    """Base of every strategy's config."""

    of_before: ClassVar[Mapping[str, Any]] = {}
    """What held in pools that were made before a setting existed, where that is not its default."""

    @property
    def training_epochs(self) -> int | None:
        """Of a whole training of shared weights; None: not known at the start."""
        return None

    @property
    def hears(self) -> bool:
        """Whether the strategy goes by what trainings under way have come to; others know finished ones alone."""
        return False

    @property
    def earlier_pools(self) -> Sequence[str]:
        """Addresses of pools to learn from, which `Strategy.learn_from` is given."""
        return ()

    @property
    def own_settings(self) -> Sequence[Mapping[str, Any]]:
        """Settings of the recipe that proposals ask for instead of the evaluator's; checked before anything starts."""
        return ()


C = TypeVar("C", bound=StrategyConfig)


class Strategy(ABC, Generic[C]):
    """Ask, tell, restore. A concrete strategy writes `propose` and `observe`, and a nested `Config`."""

    Config: ClassVar[type[StrategyConfig]] = StrategyConfig
    shares_weights: ClassVar[bool] = False
    """It trains shared weights and asks for scores with them."""
    trains: ClassVar[str] = "paths"
    """Of one that trains shared weights: the kind of its phases."""
    bears_failed_phases: ClassVar[bool] = False
    """Its trainings of shared weights stand each by itself: it is told of a phase that failed as of any trial, and the
    others go on. False: nothing goes on without it, and the search ends."""
    ranks_several: ClassVar[bool] = False
    """It goes by `objectives`, where there are any; others know the score alone."""
    ranks_rungs: ClassVar[bool] = False
    """On a ladder of fidelities `observe` is given the trials of all rungs, those that went on with their
    `parent_trial_id` and the epochs of their rung; False: those of the first rung alone."""
    foresees: ClassVar[bool] = False
    """It chooses by the `figures` of what it might ask for."""
    objectives: tuple[Aim, ...] = ()
    """What is aimed at besides the score; (): that is all. Whoever makes the strategy gives them."""
    figures: Callable[[Genotype], Mapping[str, float]] | None = None
    """Tells the `objectives` of a genotype before it is measured, as far as they are known then."""
    keeps_limits: ClassVar[bool] = True
    """It asks for nothing that `SearchSpace.refusal` refuses, where the space has limits."""
    num_params: Callable[[Genotype], int | None] | None = None
    """Of one that trains shared weights, how large its evaluator says that a genotype is: a phase that draws by size
    says it for all who train. Whoever makes the strategy gives it."""

    def __init__(self, space: SearchSpace[Any], config: C, seed: int, fidelity: Fidelity) -> None:
        self.space = space
        self.config = config
        self.seed = seed
        self.fidelity = fidelity
        self.num_asked = 0
        """Its own proposals."""
        self.num_told = 0
        """Those of them that have finished, as far as it was told."""
        self.log_position = 0
        """Finished trials it was told, retries too: those with a lower `log_index`."""
        self.heard: dict[int, dict[int, float]] = {}
        """Scores by epochs done, by trial: of trainings while they were under way, ended ones too."""
        self.times_heard = 0
        """Changes whenever `heard` does."""
        self._unrecorded: dict[int, Interim] = {}  # heard since the last proposal, by trial
        self._others: list[int] = []  # ids of trials that are none of its proposals, ascending
        self.visited: set[str] = set()
        """Canonical keys of everything ever asked."""

    # -- the seam -----------------------------------------------------------------------------------------

    def ask(self, n: int) -> list[Proposal]:
        """At most `n` new proposals; [] means: tell me more first (or `done`)."""
        proposals: list[Proposal] = []
        while len(proposals) < n:
            k = self.num_asked
            draft = self.propose(k, rng.child(self.seed, "proposal", k))
            if draft is None:
                break
            proposal = replace(
                draft if draft.phase is not None else self._of_architecture(draft),
                trial_id=self.next_id,
                seed=self.seed_of(draft, k),
                asked_after=self.log_position,
                heard=tuple(interim for _, interim in sorted(self._unrecorded.items())),
            )
            self._note_asked(proposal)
            proposals.append(proposal)
        return proposals

    def _of_architecture(self, draft: Proposal) -> Proposal:
        genotype = self.space.canonical(draft.genotype)
        if reason := self.space.refusal(genotype):
            raise ConfigError(f"constraints: {genotype.key} was to be asked for, and {reason}", "constraints")
        fidelity = self.fidelity if draft.fidelity == Fidelity() else draft.fidelity
        return replace(draft, genotype=genotype, tokens=tuple(self.space.encode(genotype).tolist()), fidelity=fidelity)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Finished trials, in the order of their `log_index`; failed ones too."""
        for trial in trials:
            assert trial.state is not TrialState.RUNNING, trial
            self.log_position += 1
            self._forget_unrecorded(trial.trial_id)
            goes_on = trial.proposal.parent_trial_id is not None
            if goes_on and not self.ranks_rungs:
                continue
            if trial.proposal.retry_of is None:
                self.num_told += not goes_on
                self.observe(trial)
            elif trial.score is not None:
                self.observe_retry(trial)

    def hear(self, interims: Sequence[Interim]) -> None:
        """What trainings under way, not told yet, have come to: of each the latest. The next proposal keeps it."""
        for trial_id, epochs, score in interims if self.config.hears else ():
            if math.isfinite(score) and self.heard.get(trial_id, {}).get(epochs) != score:
                self._forget_unrecorded(trial_id)
                self._unrecorded[trial_id] = Interim(trial_id, epochs, score)
                self.times_heard += 1
                self.heard.setdefault(trial_id, {})[epochs] = score

    def _forget_unrecorded(self, trial_id: int) -> None:
        """What no proposal has known is not in the log: a strategy that is rebuilt would not know it either."""
        if (interim := self._unrecorded.pop(trial_id, None)) is not None:
            self.heard[trial_id].pop(interim.epochs)

    def restore(self, log: Sequence[Trial]) -> None:
        """Once, before the first ask: every trial of the pool, running ones too, in any order."""
        assert self.num_asked == 0, "restore comes before the first ask"
        asked = sorted(log, key=lambda trial: trial.trial_id)
        finished = sorted(
            (trial for trial in log if trial.log_index is not None), key=lambda trial: trial.log_index or 0
        )
        for trial in asked:
            self.tell(finished[self.log_position : trial.proposal.asked_after])
            self._note_asked(trial.proposal)
        self.tell(finished[self.log_position :])

    @property
    def done(self) -> bool:
        """Nothing further will come, whatever is told."""
        return False

    @property
    def hopeless(self) -> str | None:
        """Why nothing can come of it any more, though it is not done: a line for the user, with which the search ends.

        Looked at after each `ask`; None: it goes on.
        """
        return None

    @property
    def planned(self) -> int | None:
        """Trials it will have asked when it is done, as far as it can tell; None: as many as it is let."""
        return None

    @property
    def seconds_to_come(self) -> float | None:
        """Device seconds of the trials it plans and has not been told; None: as many as their number says.

        Override where trials of several kinds take times of several kinds: by the times of those it was told, and with
        those that run.
        """
        return None

    @property
    def phases(self) -> int:
        """Of the trials planned at the start, those that come before anything is scored; 0: none do."""
        return 0

    @property
    def unguided(self) -> int:
        """Proposals, from the first, that follow from no result; 0 where that is the whole strategy, or none."""
        return 0

    def diagnostics(self) -> list[Diagnostics]:
        """Rows about the strategy's own state since the last call, e.g. one per controller fit; keyed by `round`."""
        return []

    def _note_asked(self, proposal: Proposal) -> None:
        self.hear(proposal.heard)
        self._unrecorded.clear()
        if proposal.retry_of is not None or proposal.parent_trial_id is not None:
            self._others.append(proposal.trial_id)
            return
        self.num_asked = self.number_of(proposal.trial_id) + 1
        if proposal.phase is None:
            self.visited.add(proposal.genotype.key)
        self.note_asked(proposal)

    def number_of(self, trial_id: int) -> int:
        """Which of its proposals a trial is, from 0: its id, where no retry and no further rung was asked before it."""
        return trial_id - bisect_left(self._others, trial_id)

    @property
    def next_id(self) -> int:
        """Of the trial that is asked for next: as many as were asked, retries and further rungs too."""
        return self.num_asked + len(self._others)

    _TRIES = 1000  # samples before a space counts as used up

    def unasked(self, rng: np.random.Generator) -> Genotype | None:
        """A random architecture that was never asked; None where `_TRIES` samples found none."""
        for _ in range(self._TRIES):
            genotype = self.space.sample(rng)
            if genotype.key not in self.visited:
                return genotype
        return None

    def values_of(self, trial: Trial) -> tuple[float, ...] | None:
        """The score and the `objectives` of a completed trial, of each more is better; None without a score."""
        score, measured = trial.score, trial.measurement
        if score is None or measured is None:
            return None
        found = (getattr(measured, aim.column) for aim in self.objectives)
        values = (math.nan if value is None else value for value in found)
        return score, *(float(aim.signed(value)) for aim, value in zip(self.objectives, values, strict=True))

    def foretell(self, trials: Sequence[Trial]) -> list[float] | None:
        """Scores that trials of one rung of a ladder, each with a score, may be expected to have at the top rung.

        Override to choose by it who goes on; a function of the config, the seed and what was told. None: a rung is
        ranked by its own scores.
        """
        return None

    def prefers(self, paused: Sequence[Trial], running: Sequence[Trial]) -> Trial | None:
        """Which of the paused trials of one rung of a ladder, each with a score, goes on before anything new begins.

        Override to send on more than the ladder's share, and sooner; a function of the config, the seed, what was told
        and asked, and `running`: those of the rung that went on and have not ended there. None: something new.
        """
        return None

    def learn_from(self, earlier: Sequence[Earlier]) -> None:
        """Once, before `restore` and the first ask: what the pools of `warm_start` have come to.

        Proposals may follow from it as they do from the config; it never becomes one of this search's results.

        Raises:
            ConfigError: it cannot.
        """
        if earlier:
            raise ConfigError(f"the strategy {type(self).__name__} learns from no earlier pool")

    # -- what a strategy writes ---------------------------------------------------------------------------

    @abstractmethod
    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        """Proposal k (its genotype and provenance), or None: tell me more first."""

    def seed_of(self, draft: Proposal, k: int) -> int:
        """Names the draws of the training that proposal k asks for, in [0, 2**31).

        Override where the same is asked for whatever ended before, and only its number depends on that.
        """
        return rng.child_seed(self.seed, "trial", k)

    @abstractmethod
    def observe(self, trial: Trial) -> None:
        """Learn from a finished trial."""

    def observe_retry(self, trial: Trial) -> None:
        """A trial that had failed, `retry_of`, was observed so, and has a score now; its trial id is another one.

        Override to learn from it; here it is left to the pool, which ranks it like any other. A retry that fails again
        tells nothing, and is not observed.
        """

    def note_asked(self, proposal: Proposal) -> None:
        """A proposal went out, now or, on replay, then. Override to keep track of it."""


def refuse_outside(space: SearchSpace[Any], key: str, given: Sequence[Genotype]) -> None:
    """Raise ConfigError where one of the genotypes that a setting names is outside of the search's constraints."""
    for genotype in given:
        if reason := space.refusal(genotype):
            raise ConfigError(f"{key}: {genotype.key} is outside of the constraints: {reason}; remove it", key)
