"""One training of alphas as a strategy follows it: the cell after each epoch, the alarms, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.alpha_watch import Alarm, Rules, Seen, alarms, figures, split
from nao_ray.trial import Diagnostics, Phase, Proposal, Trial, TrialState

_WARMS_UP = "alphas/none"


@dataclass
class AlphaTraining:
    """Of one seed, epoch by epoch, each a phase of its own."""

    space: SearchSpace[Any]
    rules: Rules
    index: int
    seed: int
    kind: str
    """Of its phases, once alphas move."""
    warmup: int = 0
    """Epochs before they do."""
    course: list[Seen] = field(default_factory=list)
    """What its epochs came to."""
    phases: list[int] = field(default_factory=list)
    """Ids of their trials."""
    alarms: dict[str, Alarm] = field(default_factory=dict)
    """The first of each rule."""
    told: set[str] = field(default_factory=set)
    """Rules that a row has named."""
    failed: Trial | None = None
    """The phase that it ended with, which came to nothing: the loss was not finite, or something went wrong."""
    is_over: bool = False

    @property
    def epoch(self) -> int:
        """The last one that came to something, from 1; 0: none has."""
        return len(self.course)

    def next_phase(self) -> Proposal:
        """The epoch that is due."""
        done = self.epoch
        phase = Phase(
            version=self._version(done + 1),
            source=self._version(done) if done else None,
            first_epoch=done,
            last_epoch=done + 1,
            genotypes=(),
            kind=_WARMS_UP if done < self.warmup else self.kind,
            seed=self.seed,
        )
        return Proposal(genotype=Genotype(self.space.name, f"shared weights {phase.version}"), phase=phase)

    def _version(self, epoch: int) -> str:
        """Of the weights after an epoch, counted from 1."""
        return f"s{self.index}-e{epoch:05d}"

    def observe(self, trial: Trial) -> list[Alarm]:
        """Take in the phase that was due; the rules that fire now. One that failed ends the training.

        Raises:
            GenotypeError: it tells neither an architecture nor alphas.
        """
        if trial.state is not TrialState.COMPLETED:
            self.failed, self.is_over = trial, True
            return []
        measured, derived = trial.measurement, trial.derived
        if measured is None or derived is None or measured.alphas is None:
            raise GenotypeError(f"trial {trial.trial_id}: the phase came to no architecture, or told no alphas")
        self.space.validate(derived)
        seen = Seen(
            derived,
            split(self.space, measured.alphas),
            measured.alpha_eigenvalue,
            measured.supernet_score,
            measured.derived_score,
            measured.derived_rank,
        )
        self.course.append(seen)
        self.phases.append(trial.trial_id)
        return alarms(self.space, self.course, self.rules, self.warmup)

    def cell(self, index: int) -> Proposal:
        """The architecture of an epoch, its index in the course, with weights of its own."""
        genotype = self.space.canonical(self.course[index].genotype)
        return Proposal(genotype=genotype, source_trial_id=self.phases[index], round=index + 1)

    def row(self, fired: list[Alarm]) -> Diagnostics:
        """What is told of the epoch that has just ended, with a rule that fires at it: one not told before, if any."""
        if self.failed is not None:
            return {**self._key(self.epoch + 1), "ended": str(self.failed.failure_kind)}
        alarm = min(fired, key=lambda alarm: alarm.rule in self.told, default=None)
        if alarm is not None:
            self.told.add(alarm.rule)
        return {
            **self._key(self.epoch),
            **figures(self.space, self.course[-1]),
            "alarm": alarm.rule if alarm else "",
            "alarm_genotype": self.course[alarm.index].genotype.key if alarm else "",
        }

    def _key(self, epoch: int) -> dict[str, float | int | str | None]:
        return {"round": epoch, "seed_index": self.index, "weights_version": self._version(epoch)}
