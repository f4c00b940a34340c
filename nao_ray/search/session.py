"""Ask and tell with a pool, for whoever measures by himself: the loop's parts without its executor.

As in the loop the pool is written first: a proposal is recorded before it is given away, a result before the strategy
is told. One driver at a time; any of its threads may tell while another one asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock, RLock

from nao_ray.errors import NaoRayError, RunError
from nao_ray.metric import Metric
from nao_ray.search.budget import Budget
from nao_ray.search.clock import Clock, WallClock
from nao_ray.search.dialogue import Dialogue
from nao_ray.search.executor import Completion, Failure
from nao_ray.search.failure_log import log_text
from nao_ray.search.outbox import Outbox
from nao_ray.search.proposer import Proposer
from nao_ray.search.records import Records
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Past, Tally
from nao_ray.search.writing import Patience, Writer
from nao_ray.trial import Attempt, Fidelity, Interim, Trial


class Session:
    """What one driver asks of a strategy and tells it."""

    def __init__(
        self,
        pool: Records,
        proposer: Proposer,
        budget: Budget,
        *,
        log: Iterable[Trial] | Past = (),
        clock: Clock | None = None,
        patience: Patience | None = None,
    ) -> None:
        """As described above.

        Args:
            pool: where everything is recorded; its lease is held by the caller.
            proposer: the strategy, restored from the pool's log.
            budget: how much may be asked, over all drivers of the pool.
            log: of the pool, in any order, or what was noted of it.
            clock: of the time of day, and of how long the strategy takes.
            patience: how long to bear a pool that cannot be written.
        """
        self._pool, self._clock = pool, clock or WallClock()
        self._writer = Writer(patience or Patience(), self._clock)
        self._tally = Tally(budget, self._clock)
        self._outbox = Outbox(pool, self._writer, self._tally)
        self._dialogue = Dialogue(proposer, self._clock)
        self._open = {trial.trial_id: trial for trial in self._tally.take_up(log)}
        self._heard: dict[int, Interim] = {}
        self._thinks = False
        self._asks, self._lock = Lock(), RLock()  # the second one is never held while the strategy thinks

    def ask(self, n: int) -> list[Trial]:
        """At most `n` new trials, recorded; fewer: the strategy wants to be told more first, or nothing may be asked.

        Raises:
            RunError: the strategy sees no hope, or the pool could not be written for longer than patience lasts.
            FencedError: another driver has taken over the pool.
            Exception: the strategy failed.
        """
        with self._asks:
            with self._lock:
                self._outbox.record()
                left = self._tally.may_ask
                n = n if left is None else min(n, left)
                if n <= 0 or self._dialogue.is_done:
                    return []
                told, self._outbox.untold = self._outbox.untold, []
                heard, self._heard = [self._heard[trial_id] for trial_id in sorted(self._heard)], {}
                self._thinks = True
            self._dialogue.request(n, told, heard)
            while self._dialogue.answer is None:
                self._dialogue.poll(1.0)
            while (trials := self._record_answer()) is None:
                self._clock.sleep(self._writer.seconds_left or 0.0)
            return trials

    def _record_answer(self) -> list[Trial] | None:
        """None: it cannot be written at the moment."""
        with self._lock:
            answer, asked_at = self._dialogue.answer, self._clock.now()
            assert answer is not None
            if answer.diagnostics and not self._writer.write(lambda: self._pool.record_fits(answer.diagnostics)):
                return None
            proposals = answer.proposals
            if proposals and not self._writer.write(lambda: self._pool.record_asked(proposals, asked_at)):
                return None
            trials = [Trial(proposal=proposal, asked_at=asked_at) for proposal in proposals]
            self._open |= {trial.trial_id: trial for trial in trials}
            self._tally.asked += len(trials)
            untold = self._tally.finished - answer.num_told  # a controller rebuilt from the pool knows more
            self._outbox.untold = self._outbox.untold[max(0, len(self._outbox.untold) - untold) :]
            self._dialogue.note_recorded()
            self._thinks = False
            if answer.hopeless is not None:
                raise RunError(answer.hopeless)
            return trials

    def begin(self, trial_id: int, node: str | None = None) -> Trial | None:
        """An open trial is about to be measured by `node`, which is recorded; None: it cannot be at the moment.

        Raises:
            KeyError: no such trial is open.
        """
        with self._lock:
            trial, now = self._open[trial_id], self._clock.now()
            row = Attempt(trial_id, trial.attempt + 1, node, now)
            if not self._writer.write(lambda: self._pool.record_attempts([row])):
                return None
            self._open[trial_id] = replace(trial, attempt=row.number, node=node, started_at=now)
            return self._open[trial_id]

    def hear(self, interim: Interim) -> bool:
        """What an open trial has come to so far, for the proposals that follow; whether it is open."""
        with self._lock:
            if interim.trial_id not in self._open:
                return False
            self._heard[interim.trial_id] = interim
            return True

    def tell(self, completion: Completion, fidelity: Fidelity | None = None) -> Trial | None:
        """How an open trial ended; None: it is not open, for it has ended before.

        Args:
            completion: by its trial's id.
            fidelity: how thoroughly it was trained after all; None: as it was asked.

        Raises:
            RunError: the pool could not be written for longer than patience lasts.
            FencedError: another driver has taken over the pool.
        """
        with self._lock:
            trial = self._open.pop(completion.trial_id, None)
            if trial is None:
                return None
            self._heard.pop(completion.trial_id, None)
            if fidelity is not None:
                trial = replace(trial, proposal=replace(trial.proposal, fidelity=fidelity))
            ended = completion.apply(trial)
            if isinstance(completion.outcome, Failure):
                self._outbox.add_log(ended, log_text(ended, completion))
            self._tally.note_end(ended)
            self._outbox.add(ended)
            self._outbox.record()
            return ended

    def leave(self) -> None:
        """This driver ends in order: what was begun and is open is not to blame for it."""
        with self._lock:
            now = self._clock.now()
            rows = [Attempt(trial.trial_id, trial.attempt, None, now) for trial in self._open.values() if trial.attempt]
            with suppress(NaoRayError):
                self._outbox.record()
                if rows:
                    self._pool.record_left(rows)

    def record(self) -> None:
        """Write what could not be written before.

        Raises:
            RunError: it could not be for longer than patience lasts.
            FencedError: another driver has taken over the pool.
        """
        with self._lock:
            self._outbox.record()

    @property
    def open(self) -> Sequence[Trial]:
        """Asked and not finished, by id."""
        with self._lock:
            return [self._open[trial_id] for trial_id in sorted(self._open)]

    @property
    def may_ask(self) -> int | None:
        """Of the budget; None: no limit."""
        return 0 if self._dialogue.is_done else self._tally.may_ask

    @property
    def is_waiting(self) -> bool:
        """Whether the strategy wants to be told more before it proposes anything further, and there is nothing new."""
        with self._lock:
            knows_all = not self._thinks and not self._outbox and not self._outbox.untold
            return self._dialogue.is_dry and knows_all

    @property
    def is_unwritten(self) -> bool:
        """Whether a result is still to be written."""
        return bool(self._outbox)

    def snapshot(self, running: int, queued: int, metric: Metric) -> Snapshot:
        """How it stands, with so many trials at work and so many ready."""
        with self._lock:
            tally, rate, best = self._tally, self.rate, self._tally.best
            total = tally.budget.total(self._dialogue.planned)
            left = None if total is None else total - tally.finished
            return Snapshot(
                done=tally.done,
                failed=tally.failed,
                running=running,
                queued=queued,
                asked=tally.asked,
                total=total,
                capacity=running,
                proposing=self._thinks,
                ahead=queued,
                ask_seconds=self._dialogue.seconds,
                fit_seconds=self._dialogue.fit_seconds,
                metric=metric,
                best_score=None if best is None else best.score,
                best_trial_id=None if best is None else best.trial_id,
                best_rung=0 if best is None else best.rung,
                seconds=tally.seconds_here,
                device_seconds=tally.device_seconds,
                eta_seconds=None if left is None or not rate else left / rate,
                write_error=self._writer.error,
                trouble=None,
            )

    @property
    def finished(self) -> int:
        """Trials completed or failed, over all drivers of the pool."""
        return self._tally.finished

    @property
    def seconds(self) -> float:
        """That the strategy takes to answer: the longest lately."""
        return self._dialogue.seconds

    @property
    def rate(self) -> float | None:
        """Trials that end in a second; None: none has yet."""
        seconds = self._tally.working_seconds
        return None if seconds is None or not self._tally.finished_here else self._tally.finished_here / seconds
