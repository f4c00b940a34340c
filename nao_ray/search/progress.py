"""How a search stands, and how far it has to go: the trials it comes to, and the time they still take.

The time left is work to come by work done a second. Work is counted in device seconds: what is to come says the
strategy where it can, for trials of several kinds take times of several kinds, else it is the trials to come at the
mean of those that have ended; what is done is those that ended, and what those that run have had so far.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nao_ray.metric import Metric
from nao_ray.search.clock import Clock
from nao_ray.search.dialogue import Dialogue
from nao_ray.search.ending import Ending
from nao_ray.search.executor import Executor
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Tally
from nao_ray.search.tries import Entry
from nao_ray.search.writing import Writer


@dataclass(frozen=True, slots=True)
class _Estimate:
    """The time left, as it was when what it hangs on last changed."""

    of: object = None
    """What it hangs on: trials that ended here, answers of the strategy, trials that it comes to."""
    at: float = 0.0
    seconds: float | None = None


class Progress:
    """What the loop's parts know, put together for who looks at a search."""

    def __init__(
        self,
        tally: Tally,
        dialogue: Dialogue,
        ending: Ending,
        writer: Writer,
        executor: Executor,
        *,
        clock: Clock,
        metric: Metric,
    ) -> None:
        self._tally, self._dialogue, self._ending, self._writer = tally, dialogue, ending, writer
        self._executor, self._clock, self._metric = executor, clock, metric
        self._estimate = _Estimate()

    def snapshot(self, running: Collection[Entry], queued: int, ahead: int) -> Snapshot:
        """How the search stands.

        Args:
            running: trials that were submitted and have not ended.
            queued: trials that were not submitted.
            ahead: how many proposals are asked for before a worker wants them.
        """
        tally, best, dialogue, executor = self._tally, self._tally.best, self._dialogue, self._executor
        waiting = min(executor.waiting, len(running))
        at_work = len(running) - waiting
        return Snapshot(
            done=tally.done,
            failed=tally.failed,
            running=at_work,
            queued=queued + waiting,
            asked=tally.asked + tally.retries,
            total=self._total,
            capacity=executor.capacity,
            proposing=dialogue.asking > 0,
            ahead=ahead,
            ask_seconds=dialogue.seconds,
            fit_seconds=dialogue.fit_seconds,
            metric=self._metric,
            best_score=None if best is None else best.score,
            best_trial_id=None if best is None else best.trial_id,
            best_rung=0 if best is None else best.rung,
            seconds=tally.seconds_here,
            device_seconds=tally.device_seconds,
            eta_seconds=self._seconds_left(running, at_work),
            write_error=self._writer.error,
            trouble=self._ending.trouble.message,
            aside=tuple(executor.aside),
            sharing=tuple(executor.sharing),
        )

    @property
    def _total(self) -> int | None:
        tally, dialogue = self._tally, self._dialogue
        total = tally.asked if dialogue.is_done else tally.budget.total(dialogue.planned)
        return None if total is None else total + tally.retries

    def _seconds_left(self, running: Collection[Entry], at_work: int) -> float | None:
        """None before a trial has ended here, and where nothing says what is to come.

        Taken when a trial ends or the strategy has answered, and from then on counting down: it does not climb while a
        trial is waited for.
        """
        if not self._tally.finished_here:
            return None
        now, total = self._clock.seconds(), self._total
        of = (self._tally.finished_here, self._dialogue.answers, total)
        if of != self._estimate.of:
            self._estimate = _Estimate(of, now, self._estimated(running, at_work, total))
        by_work = self._estimate.seconds
        by_work = None if by_work is None else max(0.0, by_work - (now - self._estimate.at))
        return min((limit for limit in (by_work, self._tally.time_left) if limit is not None), default=None)

    def _estimated(self, running: Collection[Entry], at_work: int, total: int | None) -> float | None:
        tally, seconds = self._tally, self._tally.working_seconds
        to_come = self._to_come(total)
        if seconds is None or to_come is None or tally.work <= 0 or tally.worker_seconds <= 0:
            return None
        now = self._clock.seconds()
        had = min(sum(now - entry.since for entry in running), at_work * seconds)  # some may wait for a worker
        under_way = had * tally.work / tally.worker_seconds
        return max(0.0, to_come - under_way) * seconds / (tally.work + under_way)

    def _to_come(self, total: int | None) -> float | None:
        """Device seconds of all that has not ended, those that run as wholes; None: not known."""
        tally, dialogue = self._tally, self._dialogue
        if dialogue.to_come is not None and not dialogue.is_done and not self._ends_early:
            untold = tally.finished - dialogue.num_told
            return max(0.0, dialogue.to_come - untold * tally.mean_work)
        if total is None:
            return None
        return max(0, max(total, tally.asked + tally.retries) - tally.finished) * tally.mean_work

    @property
    def _ends_early(self) -> bool:
        """The budget ends the search before the strategy would."""
        trials, planned = self._tally.budget.trials, self._dialogue.planned
        return trials is not None and (planned is None or trials < planned)
