"""DARTS: alphas and shared weights trained in turn, from several seeds; their cells trained alone, beside random ones.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055. Each seed is a training
of its own, in phases of an epoch (`parts/alpha_training.py`), so that the cell after each epoch and its alphas are in
the pool. The last cell of each seed is trained alone, and so is what a rule would have returned that gave an alarm
(`parts/alpha_watch.py`). The control are cells of random alphas, trained alone alike, as many as the device's time of
the search pays for (`parts/random_control.py`).

A training that diverges, or fails otherwise, ends there: its last cell is that of the epoch before, and the others go
on.

Differs from the paper: its control is of 24 cells, whatever the search has taken.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from nao_ray import rng as streams
from nao_ray.errors import ConfigError
from nao_ray.spaces.base import SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.strategies.parts.alpha_training import AlphaTraining
from nao_ray.strategies.parts.alpha_watch import Alarm, Rules, has_skips
from nao_ray.strategies.parts.random_control import RandomControl
from nao_ray.trial import Diagnostics, FailureKind, Fidelity, Phase, Proposal, Trial

_log = logging.getLogger(__name__)

_SHOWN = 300  # characters of a failure's message
_CURES = {
    FailureKind.NAN: "lower evaluator.recipe.lr, evaluator.recipe.clip_norm or evaluator.alphas.lr",
    FailureKind.OUT_OF_MEMORY: "give a smaller evaluator.recipe.batch or a smaller supernet, or fewer workers a device",
}
_CURE = "repair what the message names"


class DartsConfig(StrategyConfig):
    """Settings of `Darts`; the defaults are the published ones."""

    of_before: ClassVar[Mapping[str, Any]] = {"alarm_at_skips": 2, "alarm_at_none": None}

    order: Literal["first", "second", "exact"] = "second"
    """Of the alphas' gradient; `second` by a finite difference, `exact` the same without its error."""
    seeds: int = Field(default=4, ge=1)
    """Trainings, side by side where there are workers."""
    epochs: int = Field(default=50, ge=1)
    """Of each; the evaluator's `period`."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Of these the first, in which the weights alone are trained, and alphas stay as they began: no rule looks at them,
    and no cell of them is returned (PC-DARTS: 15)."""
    eigenvalue: bool = False
    """Measure the largest eigenvalue of the validation Hessian in the alphas after each epoch, about as much work as
    forty steps."""
    alarm_at_skips: int | None = Field(default=None, ge=0)
    """An alarm is given when a normal cell has more skip connections; null: as the space says, 2 of 8 edges (DARTS+), 3
    of the 6 of `nas_bench_201`; recurrent cells have none."""
    alarm_at_none: float | None = Field(default=0.5, gt=0, lt=1)
    """An alarm is given when `none` has more of the mean edge of a cell; null: never."""
    stop_at_skips: int | None = Field(default=None, ge=0)
    """A training ends when a normal cell has more skip connections, and returns the cell before (DARTS+: 2); null: it
    goes on."""
    stop_at_none: float | None = Field(default=None, gt=0, lt=1)
    """A training ends when `none` has more of a cell's mean edge, and returns the cell before; null: it goes on."""
    stop_at_eigenvalue: float | None = Field(default=None, gt=0, lt=1)
    """A training ends when the eigenvalue's mean over 5 epochs before is less than this share of the mean now, and
    returns the cell of 5 epochs before (R-DARTS: 0.75); null: it goes on, and an alarm is given at 0.75, where
    eigenvalues are measured."""
    control: int | None = Field(default=None, ge=0)
    """Most random cells; null: as many as the device's time of the search pays for."""

    @model_validator(mode="after")
    def _alphas_move(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: alphas never move; give fewer than the {self.epochs} epochs")
        return self

    @property
    def training_epochs(self) -> int:
        return self.epochs


class Darts(Strategy[DartsConfig]):
    """A fold over what ended: whose next epoch is due, which cells are to be trained, what the time has paid for."""

    Config: ClassVar[type[StrategyConfig]] = DartsConfig
    shares_weights: ClassVar[bool] = True
    trains: ClassVar[str] = "alphas"
    bears_failed_phases: ClassVar[bool] = True
    keeps_limits: ClassVar[bool] = False  # a cell is what its alphas come to

    def __init__(self, space: SearchSpace[Any], config: DartsConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        asked = [name for name in ("alarm_at_skips", "stop_at_skips") if getattr(config, name) is not None]
        if asked and not has_skips(space):
            raise ConfigError(f"strategy.{asked[0]}: cells of {space.name} have no skip connections; leave it out")
        rules = Rules(
            skips=_first(config.stop_at_skips, config.alarm_at_skips, space.many_skips),
            eigenvalue=_first(config.stop_at_eigenvalue, Rules.eigenvalue),
            none=config.alarm_at_none if config.stop_at_none is None else config.stop_at_none,
        )
        given = {name: getattr(config, f"stop_at_{name}") for name in ("skips", "eigenvalue", "none")}
        self._stops = {name for name, value in given.items() if value is not None}
        measures = config.eigenvalue or config.stop_at_eigenvalue is not None
        self._kind = f"alphas/{config.order}" + ("/eigenvalue" if measures else "")
        self._trainings = [
            AlphaTraining(
                space, rules, index, streams.child_seed(seed, "shared weights", index), self._kind, config.warmup_epochs
            )
            for index in range(config.seeds)
        ]
        self._queue = deque(training.next_phase() for training in self._trainings)
        self._found: set[str] = set()  # keys of the cells that are trained alone, but for the control's
        self._control = RandomControl(config.control)
        self._rows: list[Diagnostics] = []
        self._summed_up = False
        self._replays = False  # what was said then is not said again

    # -- what is asked --------------------------------------------------------------------------------------

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self._queue:
            return self._queue[0]
        return self._random_cell() if self._control.is_due and not self._has_nothing else None

    def seed_of(self, draft: Proposal, k: int) -> int:
        """A cell's own: which training ends first is chance, and no score is to depend on it."""
        if draft.phase is not None:
            return super().seed_of(draft, k)  # the draws of a phase are named by its training
        if _is_control(draft):
            return streams.child_seed(self.seed, "control alone", self._control.asked)
        return streams.child_seed(self.seed, f"alone {draft.genotype.key}")

    def note_asked(self, proposal: Proposal) -> None:
        if _is_control(proposal):
            self._control.asked += 1
        elif (asked := next((each for each in self._queue if _is_same(each, proposal)), None)) is not None:
            self._queue.remove(asked)

    def _random_cell(self) -> Proposal:
        """What alphas of N(0, 1) come to."""
        generator = streams.child(self.seed, "control", self._control.asked)
        width = len(self.space.primitives)
        alphas = [generator.normal(size=(edges, width)) for edges in self.space.alpha_edges.values()]
        return Proposal(genotype=self.space.derive(alphas), origin="control")

    @property
    def _all_over(self) -> bool:
        return all(training.is_over for training in self._trainings)

    @property
    def _has_nothing(self) -> bool:
        """Every training has ended before it came to a cell."""
        return self._all_over and not self._found

    @property
    def hopeless(self) -> str | None:
        """Every training has failed before an epoch of its alphas had ended, and all that was asked has ended."""
        if not self._has_nothing or self.num_told < self.num_asked:
            return None
        what = "; ".join(dict.fromkeys(f"{failure}; {cure}" for failure, cure in map(_failure, self._trainings)))
        first = "in their first" if not self.config.warmup_epochs else f"in the first {self.config.warmup_epochs + 1}"
        return (
            f"no training of alphas has ended an epoch of theirs, all {len(self._trainings)} failed {first}: {what}; "
            "begin another pool"
        )

    @property
    def done(self) -> bool:
        over = self._all_over and not self._queue and not self._has_nothing
        return over and self.num_told == self.num_asked and not self._control.is_due

    @property
    def planned(self) -> int | None:
        if self.done:
            return self.num_asked
        phases = sum(
            training.epoch + (training.failed is not None) if training.is_over else self.config.epochs
            for training in self._trainings
        )
        ended = sum(training.epoch for training in self._trainings)
        controls = self._control.expected(phases, ended, self.config.seeds)
        return max(self.num_asked, phases + self._num_cells + controls)

    @property
    def seconds_to_come(self) -> float | None:
        epochs = sum(self.config.epochs - training.epoch for training in self._trainings if not training.is_over)
        return self._control.seconds_to_come(epochs, self._num_cells - self._control.derived.told)

    @property
    def _num_cells(self) -> int:
        """That are trained alone in the end, but for the control's, as far as can be told."""
        return len(self._found) if self._all_over else max(self.config.seeds, len(self._found))

    @property
    def phases(self) -> int:
        return self.config.seeds * self.config.epochs

    def restore(self, log: Sequence[Trial]) -> None:
        self._replays = True
        super().restore(log)
        self._replays = False

    # -- what is learnt -------------------------------------------------------------------------------------

    def observe(self, trial: Trial) -> None:
        phase = trial.proposal.phase
        if phase is not None:
            self._control.search.add(trial)
            self._observe_epoch(self._training_of(phase), trial)
        else:
            account = self._control.random if _is_control(trial.proposal) else self._control.derived
            account.add(trial)
        if self.done and not self._summed_up:
            self._summed_up = True
            self._rows.append({"round": self.config.epochs + 1, **self._control.summary()})

    def _training_of(self, phase: Phase) -> AlphaTraining:
        return next(training for training in self._trainings if training.seed == phase.seed)

    def _observe_epoch(self, training: AlphaTraining, trial: Trial) -> None:
        fired = training.observe(trial)
        self._rows.append(training.row(fired))
        for alarm in fired:
            if alarm.rule not in training.alarms:
                training.alarms[alarm.rule] = alarm
                self._say(training, _alarm_text(training, alarm))
        if training.failed is not None:
            self._say_end(training)
        stop = next((alarm for alarm in fired if alarm.rule in self._stops), None)
        training.is_over = training.is_over or stop is not None or training.epoch == self.config.epochs
        if training.is_over:
            self._train_cells(training, training.epoch - 1 if stop is None else stop.index)
        else:
            self._queue.append(training.next_phase())

    def _train_cells(self, training: AlphaTraining, last: int) -> None:
        """What a training returns and what its alarms would have returned, unless another was the same."""
        for index in dict.fromkeys([last, *(alarm.index for alarm in training.alarms.values())]):
            if index < training.warmup:  # it has failed before an epoch of its alphas had ended
                continue
            proposal = training.cell(index)
            if proposal.genotype.key not in self._found:
                self._found.add(proposal.genotype.key)
                self._queue.append(proposal)

    # -- what is told ---------------------------------------------------------------------------------------

    def _say(self, training: AlphaTraining, text: str) -> None:
        if not self._replays:
            _log.warning("seed %d, %s", training.index, text)

    def _say_end(self, training: AlphaTraining) -> None:
        """That it has failed, and whether all have."""
        failure, cure = _failure(training)
        has_cell = training.epoch > training.warmup
        returned = f"it returns the cell of epoch {training.epoch}" if has_cell else "it returns no cell"
        others = "" if self._all_over else ", the others go on"
        self._say(
            training,
            f"epoch {training.epoch + 1}: this training ends, {failure}; {returned}{others}; to avoid it {cure}",
        )
        if all(each.failed is not None for each in self._trainings) and not self._replays:
            _log.warning("all %d trainings have ended before their last epoch", len(self._trainings))

    def diagnostics(self) -> list[Diagnostics]:
        """One row per epoch and training; after the last trial one that compares their cells with the control."""
        rows, self._rows = self._rows, []
        return rows


def _first(*given: Any) -> Any:  # noqa: ANN401
    """The first that is not None."""
    return next(value for value in given if value is not None)


def _is_same(draft: Proposal, asked: Proposal) -> bool:
    return (draft.genotype, draft.phase) == (asked.genotype, asked.phase)


def _is_control(proposal: Proposal) -> bool:
    """A random cell has no source; a derived one has the phase it comes from."""
    return proposal.phase is None and proposal.source_trial_id is None


def _alarm_text(training: AlphaTraining, alarm: Alarm) -> str:
    return (
        f"epoch {training.epoch}: the rule of {alarm.rule} fires; it would have returned the cell of epoch "
        f"{alarm.index + 1}, {training.course[alarm.index].genotype.key}"
    )


def _failure(training: AlphaTraining) -> tuple[str, str]:
    """What a training ended with, and what to do about it."""
    trial = training.failed
    assert trial is not None
    what = "diverged" if trial.failure_kind is FailureKind.NAN else str(trial.failure_kind)
    kind = trial.failure_kind or FailureKind.ERROR
    return f"{what}: {(trial.failure_message or '')[:_SHOWN]}", _CURES.get(kind, _CURE)
