"""DARTS: alphas and shared weights trained in turn, from several seeds; their cells trained alone, beside random ones.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055. Each seed is a training
of its own, in phases of an epoch, so that the cell after each epoch and its alphas are in the pool. The last cell of
each seed is trained alone, and so is what a rule would have returned that gave an alarm (`parts/alpha_watch.py`). The
control are cells of random alphas, trained alone alike, as many as the device's time of the search pays for.

Differs from the paper: its control is of 24 cells, whatever the search has taken.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from nao_ray import rng as streams
from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.strategies.parts.alpha_watch import Alarm, Rules, Seen, alarms, figures, split
from nao_ray.trial import Diagnostics, Fidelity, Phase, Proposal, Trial, TrialState

_log = logging.getLogger(__name__)


class DartsConfig(StrategyConfig):
    """Settings of `Darts`; the defaults are the published ones."""

    order: Literal["first", "second", "exact"] = "second"
    """Of the alphas' gradient; `second` by a finite difference, `exact` the same without its error."""
    seeds: int = Field(default=4, ge=1)
    """Trainings, side by side where there are workers."""
    epochs: int = Field(default=50, ge=1)
    """Of each; the evaluator's `period`."""
    eigenvalue: bool = False
    """Measure the largest eigenvalue of the validation Hessian in the alphas after each epoch, about as much work as
    forty steps."""
    stop_at_skips: int | None = Field(default=None, ge=0)
    """A training ends when a normal cell has more skip connections, and returns the cell before (DARTS+: 2); null: it
    goes on, and an alarm is given at 2."""
    stop_at_eigenvalue: float | None = Field(default=None, gt=0, lt=1)
    """A training ends when the eigenvalue's mean over 5 epochs before is less than this share of the mean now, and
    returns the cell of 5 epochs before (R-DARTS: 0.75); null: it goes on, and an alarm is given at 0.75, where
    eigenvalues are measured."""
    control: int | None = Field(default=None, ge=0)
    """Most random cells; null: as many as the device's time of the search pays for."""

    @property
    def training_epochs(self) -> int:
        return self.epochs


@dataclass
class _Training:
    """One seed's."""

    index: int
    seed: int
    course: list[Seen] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    """Ids of the phases that ended."""
    rows: list[Diagnostics] = field(default_factory=list)
    """One per epoch."""
    alarms: dict[str, Alarm] = field(default_factory=dict)
    """The first of each rule."""
    ended: bool = False

    def version(self, epoch: int) -> str:
        """Of the weights after an epoch, counted from 1."""
        return f"s{self.index}-e{epoch:05d}"


@dataclass
class _Account:
    """Device seconds of what was told of a kind of trial."""

    count: int = 0
    measured: int = 0
    seconds: float = 0.0
    best: float | None = None

    def add(self, trial: Trial) -> None:
        self.count += 1
        seconds = _seconds(trial)
        if seconds is not None:
            self.measured += 1
            self.seconds += seconds
        if trial.score is not None and (self.best is None or trial.score > self.best):
            self.best = trial.score


class Darts(Strategy[DartsConfig]):
    """A fold over what ended: whose next epoch is due, which cells are to be trained, what the time has paid for."""

    Config: ClassVar[type[StrategyConfig]] = DartsConfig
    shares_weights: ClassVar[bool] = True
    trains: ClassVar[str] = "alphas"

    def __init__(self, space: SearchSpace[Any], config: DartsConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self._rules = Rules(
            skips=Rules.skips if config.stop_at_skips is None else config.stop_at_skips,
            eigenvalue=Rules.eigenvalue if config.stop_at_eigenvalue is None else config.stop_at_eigenvalue,
        )
        self._trainings = [
            _Training(index, streams.child_seed(seed, "shared weights", index)) for index in range(config.seeds)
        ]
        self._queue = deque(self._phase(training) for training in self._trainings)
        self._derived: set[str] = set()
        self._search, self._alone, self._control = _Account(), _Account(), _Account()
        self._controls_asked = 0
        self._rows: list[Diagnostics] = []
        self._shown = 0  # epochs whose rows were given
        self._summed_up = False
        self._replays = False

    # -- what is asked --------------------------------------------------------------------------------------

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self._queue:
            return self._queue[0]
        return self._random_cell() if self._control_is_due else None

    def note_asked(self, proposal: Proposal) -> None:
        if _is_control(proposal):
            self._controls_asked += 1
        else:
            self._queue.popleft()

    def _phase(self, training: _Training) -> Proposal:
        """The next epoch of a training."""
        done = len(training.course)
        phase = Phase(
            version=training.version(done + 1),
            source=training.version(done) if done else None,
            first_epoch=done,
            last_epoch=done + 1,
            genotypes=(),
            kind=f"alphas/{self.config.order}" + ("/eigenvalue" if self._measures_eigenvalues else ""),
            seed=training.seed,
        )
        return Proposal(genotype=Genotype(self.space.name, f"shared weights {phase.version}"), phase=phase)

    @property
    def _measures_eigenvalues(self) -> bool:
        return self.config.eigenvalue or self.config.stop_at_eigenvalue is not None

    def _random_cell(self) -> Proposal:
        """What alphas of N(0, 1) come to."""
        generator = streams.child(self.seed, "control", self._controls_asked)
        width = len(self.space.primitives)
        alphas = [generator.normal(size=(edges, width)) for edges in self.space.alpha_edges.values()]
        return Proposal(genotype=self.space.derive(alphas))

    @property
    def _control_is_due(self) -> bool:
        most, cost = self.config.control, self._cost
        if not self._search.count or (most is not None and self._controls_asked >= most):
            return False
        if cost is None or not self._controls_asked:
            return not self._controls_asked
        running = self._controls_asked - self._control.measured  # or failed, which took as long, for all that is known
        paid = self._control.seconds + (running + 1) * cost
        return paid <= self._search.seconds + self._alone.seconds

    @property
    def _cost(self) -> float | None:
        """Mean device seconds of an architecture trained alone; None: not known."""
        known = self._control.measured + self._alone.measured
        return (self._control.seconds + self._alone.seconds) / known if known else None

    @property
    def done(self) -> bool:
        over = all(training.ended for training in self._trainings) and not self._queue
        return over and self.num_told == self.num_asked and not self._control_is_due

    @property
    def planned(self) -> int | None:
        if self.done:
            return self.num_asked
        config, epochs = self.config, sum(len(training.course) for training in self._trainings)
        planned = sum(len(training.course) if training.ended else config.epochs for training in self._trainings)
        if self._cost:
            paid = self._search.seconds * planned / max(1, epochs) + config.seeds * self._cost
            controls = int(paid / self._cost)
        else:  # as if a cell took as long as an epoch: their number is a guess, and the time left is right
            controls = planned + config.seeds
        controls = controls if config.control is None else min(controls, config.control)
        return max(self.num_asked, planned + max(config.seeds, len(self._derived)) + controls)

    def restore(self, log: Sequence[Trial]) -> None:
        self._replays = True
        super().restore(log)
        self._replays = False

    # -- what is learnt -------------------------------------------------------------------------------------

    def observe(self, trial: Trial) -> None:
        if trial.proposal.phase is not None:
            self._search.add(trial)
            self._observe_epoch(self._training_of(trial.proposal.phase), trial)
        elif _is_control(trial.proposal):
            self._control.add(trial)
        else:
            self._alone.add(trial)
        self._note_end()

    def _training_of(self, phase: Phase) -> _Training:
        return next(training for training in self._trainings if training.seed == phase.seed)

    def _observe_epoch(self, training: _Training, trial: Trial) -> None:
        assert trial.state is TrialState.COMPLETED, "a search ends with a phase that fails"
        measured, derived = trial.measurement, trial.derived
        if measured is None or derived is None or measured.alphas is None:
            raise GenotypeError(f"trial {trial.trial_id}: the phase came to no architecture, or told no alphas")
        self.space.validate(derived)
        alphas = split(self.space, measured.alphas)
        training.course.append(Seen(derived, alphas, measured.alpha_eigenvalue))
        training.trials.append(trial.trial_id)
        fired = {alarm.rule: alarm for alarm in alarms(self.space, training.course, self._rules)}
        for rule, alarm in fired.items():
            if rule not in training.alarms:
                training.alarms[rule] = alarm
                if not self._replays:  # it was said then
                    self._warn(training, alarm)
        self._note_epoch(training, list(fired.values()))
        stops = {"skips": self.config.stop_at_skips, "eigenvalue": self.config.stop_at_eigenvalue}
        stop = next((alarm for rule, alarm in fired.items() if stops[rule] is not None), None)
        if stop is None and len(training.course) < self.config.epochs:
            self._queue.append(self._phase(training))
            return
        training.ended = True
        last = len(training.course) - 1 if stop is None else stop.index
        for index in dict.fromkeys([last, *(alarm.index for alarm in training.alarms.values())]):
            self._train_alone(training, index)

    def _train_alone(self, training: _Training, index: int) -> None:
        """The cell of an epoch, unless another was the same."""
        genotype = self.space.canonical(training.course[index].genotype)
        if genotype.key not in self._derived:
            self._derived.add(genotype.key)
            self._queue.append(Proposal(genotype=genotype, source_trial_id=training.trials[index], round=index + 1))

    # -- what is told ---------------------------------------------------------------------------------------

    def _warn(self, training: _Training, alarm: Alarm) -> None:
        _log.warning(
            "seed %d, epoch %d: the rule of %s fires; it would have returned the cell of epoch %d, %s",
            training.index,
            len(training.course),
            alarm.rule,
            alarm.index + 1,
            training.course[alarm.index].genotype.key,
        )

    def _note_epoch(self, training: _Training, fired: list[Alarm]) -> None:
        """Rows of an epoch are told when all trainings are through with it: they are one round."""
        row: dict[str, float | int | str | None] = {
            "round": len(training.course),
            "seed_index": training.index,
            "weights_version": training.version(len(training.course)),
            **figures(self.space, training.course[-1]),
            "alarm": fired[0].rule if fired else "",
            "alarm_genotype": training.course[fired[0].index].genotype.key if fired else "",
        }
        training.rows.append(row)

    def _note_end(self) -> None:
        while self._shown < self.config.epochs and all(
            training.ended or len(training.course) > self._shown for training in self._trainings
        ):
            self._rows += [each.rows[self._shown] for each in self._trainings if len(each.rows) > self._shown]
            self._shown += 1
        if self.done and not self._summed_up:
            self._summed_up = True
            row = {
                "round": self.config.epochs + 1,
                "best_derived": self._alone.best,
                "best_control": self._control.best,
                "num_derived": self._alone.count,
                "num_control": self._control.count,
                "search_seconds": self._search.seconds,
                "derived_seconds": self._alone.seconds,
                "control_seconds": self._control.seconds,
            }
            self._rows.append(row)

    def diagnostics(self) -> list[Diagnostics]:
        """One row per epoch and training; after the last trial one that compares their cells with the control."""
        rows, self._rows = self._rows, []
        return rows


def _is_control(proposal: Proposal) -> bool:
    """A random cell has no source; a derived one has the phase it comes from."""
    return proposal.phase is None and proposal.source_trial_id is None


def _seconds(trial: Trial) -> float | None:
    measured = trial.measurement
    if measured is None:
        return None
    return measured.wall_seconds if measured.device_seconds is None else measured.device_seconds
