"""How far a search is, and how fast it goes: counters, never trials."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from nao_ray.search.budget import Budget, Spans
from nao_ray.search.clock import Clock
from nao_ray.standings import Standing, Standings
from nao_ray.trial import Trial, TrialState


class Past:
    """What a pool holds already, noted while its log passes by to the strategy: reading it takes 90 us a trial."""

    def __init__(self) -> None:
        self.done = self.failed = self.retries = self.next_index = self.ids = 0
        self.device_seconds = 0.0
        self.standings = Standings()
        self.spans = Spans()
        self.unfinished: list[Trial] = []

    @classmethod
    def of(cls, log: Iterable[Trial]) -> Past:
        """Of a log that nobody else wants."""
        past = cls()
        deque(past.passing(log), maxlen=0)
        return past

    def first(self, log: Callable[[], Iterable[Trial]]) -> Callable[[], Iterable[Trial]]:
        """The same log, of whose first reading note is taken."""
        readings = iter([self.passing])

        def read() -> Iterable[Trial]:
            return next(readings, iter)(log())

        return read

    def passing(self, log: Iterable[Trial]) -> Iterator[Trial]:
        """The trials of a log, each once and in any order."""
        for trial in log:
            self._note(trial)
            yield trial

    def _note(self, trial: Trial) -> None:
        self.ids = max(self.ids, trial.trial_id + 1)
        self.retries += trial.proposal.retry_of is not None
        self.spans.add(trial)
        if trial.state is TrialState.RUNNING:
            self.unfinished.append(trial)
            return
        self.failed += trial.state is TrialState.FAILED
        self.done += trial.state is TrialState.COMPLETED
        self.device_seconds += _device_seconds(trial) or 0.0
        self.standings.add(trial.standing)
        self.next_index = max(self.next_index, (trial.log_index or 0) + 1)


class Tally:
    """What the loop counts, over all drivers of the pool unless it says otherwise."""

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.budget = budget
        self._clock = clock
        self.asked = self.done = self.failed = 0
        self.retries = 0
        """Trials that failed and were asked for again by the user: none of those `asked`, which the budget counts."""
        self.next_index = 0
        """Of the log; not the number of trials where a pool has lost some."""
        self._standings = Standings()
        self.finished_here = 0
        """Finished trials of this driver."""
        self._started = clock.seconds()
        self._working_since: float | None = None  # when the first of this driver's finished trials was started
        self._spent_before = self._device_seconds_before = 0.0
        self.work = 0.0
        """Device seconds of this driver's finished trials, as far as they are known; where not, worker seconds."""
        self.worker_seconds = 0.0
        """From the start to the end of each of those trials."""
        self._timed = 0

    def take_up(self, log: Iterable[Trial] | Past) -> list[Trial]:
        """Count what a pool holds already; returns what is not finished, by id."""
        past = log if isinstance(log, Past) else Past.of(log)
        self.done, self.failed, self.retries = past.done, past.failed, past.retries
        self.asked, self.next_index = past.ids - past.retries, past.next_index
        self._standings, self._spent_before = past.standings, past.spans.seconds_spent
        self._device_seconds_before = past.device_seconds
        return sorted(past.unfinished, key=lambda trial: trial.trial_id)

    def count(self, trial: Trial) -> None:
        """A trial has its final row."""
        self.finished_here += 1
        self.failed += trial.state is TrialState.FAILED
        self.done += trial.state is TrialState.COMPLETED
        self._standings.add(trial.standing)
        if trial.started_at and trial.finished_at:
            self._timed += 1
            self.worker_seconds += _worked(trial.started_at, trial.finished_at)
            self.work += _device_seconds(trial) or 0.0

    def note_end(self, trial: Trial) -> None:
        """An attempt of this driver has ended: the first one tells since when there is work done."""
        if self._working_since is None and trial.started_at and trial.finished_at:
            self._working_since = self._clock.seconds() - _worked(trial.started_at, trial.finished_at)

    @property
    def best(self) -> Standing | None:
        """The best trial so far."""
        return self._standings.best

    @property
    def finished(self) -> int:
        """Completed or failed."""
        return self.done + self.failed

    @property
    def device_seconds(self) -> float:
        """As `work`, over all drivers of the pool."""
        return self._device_seconds_before + self.work

    @property
    def seconds_here(self) -> float:
        """Wall time of this driver."""
        return self._clock.seconds() - self._started

    @property
    def out_of_time(self) -> bool:
        """Whether the budget's wall time is used up."""
        return self.budget.out_of_time(self._spent_before + self.seconds_here)

    @property
    def time_left(self) -> float | None:
        """Seconds of the budget's wall time; None: no limit."""
        return self.budget.time_left(self._spent_before + self.seconds_here)

    @property
    def may_ask(self) -> int | None:
        """Proposals that may still be asked; None: no limit."""
        return self.budget.trials_left(self.asked, self._spent_before + self.seconds_here)

    @property
    def working_seconds(self) -> float | None:
        """Since the first of this driver's finished trials was started (not while workers were)."""
        if self._working_since is None or self._clock.seconds() <= self._working_since:
            return None
        return self._clock.seconds() - self._working_since

    @property
    def mean_work(self) -> float:
        """Device seconds of a trial that ended here; 0 before one has."""
        return self.work / self._timed if self._timed else 0.0


def _device_seconds(trial: Trial) -> float | None:
    """Of a finished trial, where they are not known those of its worker; None where that did not begin."""
    told = None if trial.measurement is None else trial.measurement.device_seconds
    if told or not (trial.started_at and trial.finished_at):
        return told
    return _worked(trial.started_at, trial.finished_at)


def _worked(started: datetime, finished: datetime) -> float:
    """Seconds; a worker's clock may be set back between the two."""
    return max(0.0, (finished - started).total_seconds())
