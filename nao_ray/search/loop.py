"""The search itself: ask, record, submit, wait for any, record, tell.

The pool is written before anything acts on what is written: a proposal is recorded before it is submitted, an end
before the strategy is told. So the pool never knows less than anyone else, and a driver, a controller or a worker
that dies loses nothing that finished. The loop keeps no finished trials.

With one worker a proposal is asked when everything before it was told. With more, as many are asked ahead as trials
end while the strategy thinks, measured as it goes: workers go on while a controller fits, and a proposal knows all it
can. In virtual time thinking takes none, so nothing is asked ahead.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from nao_ray.errors import Drained, NaoRayError, RunError, StuckSearchError
from nao_ray.search.budget import Budget
from nao_ray.search.clock import Clock, WallClock
from nao_ray.search.dialogue import Dialogue
from nao_ray.search.ending import Ending
from nao_ray.search.executor import Completion, Executor, Failure, Job
from nao_ray.search.failure_log import log_text
from nao_ray.search.outbox import Outbox
from nao_ray.search.overseer import Overseer
from nao_ray.search.progress import Progress
from nao_ray.search.proposer import Proposer
from nao_ray.search.records import Records
from nao_ray.search.requests import Request
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Past, Tally
from nao_ray.search.tolerance import Tolerance
from nao_ray.search.tries import Entry, choose, summary, take_up
from nao_ray.search.writing import Writer
from nao_ray.trial import Attempt, FailureKind, Trial

_log = logging.getLogger(__name__)


class SearchLoop:
    """One driver's part of a search; `run` returns when the budget is spent or the strategy done."""

    def __init__(
        self,
        pool: Records,
        proposer: Proposer,
        executor: Executor,
        budget: Budget,
        *,
        tolerance: Tolerance | None = None,
        clock: Clock | None = None,
        overseer: Overseer | None = None,
    ) -> None:
        """As described above.

        Args:
            pool: where everything is recorded; its lease is held by the caller.
            proposer: the strategy, restored from the pool's log.
            executor: who evaluates.
            budget: when to stop.
            tolerance: what is borne before something is given up.
            clock: the executor's idea of time.
            overseer: who looks on, and has a say.
        """
        bears, beside = tolerance or Tolerance(), overseer or Overseer()
        self._pool, self._executor = pool, executor
        self._clock, self._listener, self._stop = clock or WallClock(), beside.listener, beside.stop
        self._retry, self._writer = bears.retry, Writer(bears.patience, self._clock)
        self._queue: deque[Entry] = deque()  # asked, recorded, to be submitted in this order
        self._running: dict[int, Entry] = {}
        self._has_suspects = False
        self._requests = beside.requests
        self._dialogue = Dialogue(proposer, self._clock)
        self._tally = Tally(budget, self._clock)
        self._outbox = Outbox(pool, self._writer, self._tally)
        self._ending = Ending(bears.limits, self._tally, self._clock)
        self._progress = Progress(
            self._tally, self._dialogue, self._ending, self._writer, executor, clock=self._clock, metric=beside.metric
        )

    # -- the course of a search ---------------------------------------------------------------------------

    def run(self, log: Iterable[Trial] | Past = ()) -> Snapshot:
        """Search on from a pool's `log`, in any order, or what was noted of it, until nothing is left to do.

        Raises:
            StuckSearchError: the strategy proposes nothing although it was told everything and is not done.
            PoolWriteError: the pool could not be written for longer than patience lasts.
            FencedError: another driver has taken over the pool.
            RunError: trials fail one after the other, or cannot be evaluated for longer than the limits allow, or a
                phase of shared weights failed for good, without which nothing goes on (`Limits`); its trial stays open.
            KeyboardInterrupt: the overseer's `stop` said so, or a request (`Drained`); the pool is resumable.
        """
        entries, over = take_up(self._tally.take_up(log), self._retry.max_attempts)
        self._queue.extend(entries)
        self._has_suspects = any(entry.is_suspect for entry in entries)
        for trial in over:
            self._take_in(trial.fail(FailureKind.LOST, summary(trial.ends), finished_at=self._clock.now()))
        del entries, over
        try:
            self._search()
        finally:
            self._leave()
        self._last_words()
        snapshot = self.snapshot()
        self._listener(snapshot)
        return snapshot

    def _search(self) -> None:
        while not self._finished():
            stops = self._stop()
            if stops or (not self._outbox and self._ending.is_drained(len(self._running))):
                self._collect(timeout=0)
                self._outbox.record()
                raise KeyboardInterrupt if stops else Drained
            self._step()

    def _leave(self) -> None:
        """This driver ends in order: what it leaves unfinished is not to blame for it."""
        now = self._clock.now()
        entries = [entry for entry in (*self._running.values(), *self._queue) if entry.has_attempt]
        rows = [Attempt(entry.trial.trial_id, entry.last_attempt, None, now, entry.before) for entry in entries]
        with suppress(NaoRayError):
            if rows:
                self._pool.record_left(rows)

    def _step(self) -> None:
        self._writer.turn()
        self._outbox.record()
        self._heed_requests()
        if not self._outbox:
            self._check_end()
        self._request()
        self._dialogue.poll(0)
        self._record_answer()
        self._submit()
        self._withdraw()
        self._executor.expect(self._to_come())
        self._listener(self.snapshot())
        if self._running:
            pauses = (self._writer.seconds_left, self._ending.trouble.seconds_left, self._ending.seconds_left)
            timeout = min((pause for pause in pauses if pause is not None), default=None)
            self._collect(timeout, wake=self._dialogue.pending)
        elif (pause := self._writer.seconds_left) is not None:
            self._clock.sleep(pause)
        elif self._dialogue.asking:
            self._dialogue.poll(1.0)
        elif (pause := self._ending.trouble.seconds_left) is not None:
            self._clock.sleep(min(pause, 1.0))
        else:
            self._check_progress()

    def _check_end(self) -> None:
        try:
            self._ending.check(len(self._running))
        except RunError:
            self._last_words()
            raise

    def _finished(self) -> bool:
        if self._running or self._outbox or self._dialogue.answer is not None or self._ending.error is not None:
            return False
        if self._tally.out_of_time:
            return True
        nothing_comes = self._dialogue.is_done or self._tally.may_ask == 0
        return not self._queue and not self._dialogue.asking and nothing_comes

    def _check_progress(self) -> None:
        if self._queue or self._outbox or self._outbox.untold or self._ending.is_near or self._finished():
            return
        raise StuckSearchError(
            f"the strategy proposes nothing after {self._tally.finished} finished trials, nothing is running and "
            "it is not done: give its space, its rounds or its population more room, or lower budget.trials"
        )

    def _last_words(self) -> None:
        """Tell the last results, for the strategy's diagnostics."""
        is_over = self._dialogue.asking == 0
        if not is_over or not self._outbox.untold:
            return
        self._ask(0)
        while self._dialogue.asking and not self._stop():
            self._dialogue.poll(1.0)
            self._record_answer()
            if (pause := self._writer.seconds_left) is not None:
                self._clock.sleep(pause)

    # -- asking -------------------------------------------------------------------------------------------

    def _to_come(self) -> int | None:
        """Jobs that may still be submitted; while the strategy wants to be told more first, those it has given."""
        if self._ending.is_near:
            return 0
        dialogue = self._dialogue
        left = 0 if dialogue.is_done or dialogue.is_dry else self._tally.may_ask
        if left is not None and dialogue.planned is not None:
            left = min(left, max(0, dialogue.planned - self._tally.asked))
        return None if left is None else left + len(self._queue)

    def _wanted(self) -> int:
        """How many proposals to ask for now."""
        capacity, in_hand = self._executor.capacity, len(self._running) + len(self._queue) - self._held_back()
        left = self._tally.may_ask
        wanted = capacity + self._ahead() - in_hand
        return max(0, wanted if left is None else min(wanted, left))

    def _held_back(self) -> int:
        """Suspects that wait for one another, and leave room to others."""
        if not self._has_suspects:
            return 0
        waiting = sum(entry.is_suspect for entry in self._queue)
        return waiting if self._runs_suspect else max(0, waiting - 1)

    def _ahead(self) -> int:
        """Twice the trials that end during an ask: those, and those that end before the next answer is there."""
        capacity, seconds = self._executor.capacity, self._tally.working_seconds
        if capacity == 1 or seconds is None:
            return 0
        return min(capacity, math.ceil(2 * self._tally.finished_here / seconds * self._dialogue.seconds))

    def _request(self) -> None:
        wanted = self._wanted()
        told_all = not self._outbox and self._writer.seconds_left is None
        if self._dialogue.asking or self._dialogue.is_done or wanted == 0 or not told_all or self._ending.is_near:
            return
        if self._outbox.untold or not self._dialogue.is_dry:
            self._ask(wanted)

    def _ask(self, n: int) -> None:
        told, self._outbox.untold = self._outbox.untold, []
        heard = [interim for interim in self._executor.overheard() if interim.trial_id in self._running]
        self._dialogue.request(n, told, heard)

    def _record_answer(self) -> None:
        answer = self._dialogue.answer
        if answer is None:
            return
        if answer.diagnostics and not self._writer.write(lambda: self._pool.record_fits(answer.diagnostics)):
            return
        asked_at = self._clock.now()
        entries = [Entry(Trial(proposal=proposal, asked_at=asked_at)) for proposal in answer.proposals]
        begun = [entry for entry in self._next(chain(self._queue, entries)) if not entry.is_begun]
        attempts = self._attempts(begun)  # those that are submitted now, in the same write
        if entries and not self._writer.write(lambda: self._pool.record_asked(answer.proposals, asked_at, attempts)):
            return
        for entry in begun if entries else []:
            entry.is_begun = True
        self._queue.extend(entries)
        self._tally.asked += len(answer.proposals)
        left = self._tally.finished - answer.num_told  # a controller rebuilt from the pool knows more
        self._outbox.untold = self._outbox.untold[len(self._outbox.untold) - left :]
        self._dialogue.note_recorded()
        self._ending.note_verdict(answer.hopeless)

    # -- what is asked of it ------------------------------------------------------------------------------

    def _heed_requests(self) -> None:
        for request in self._requests.look():
            text = self._change_budget(request) if request.what == "budget" else None
            if request.what == "drain":
                waiting = min(self._executor.waiting, len(self._running))
                text = self._ending.drain(request.seconds, len(self._running) - waiting)
            elif request.what == "cancel":
                text = self._cancel(request.trial_id)
            if text is not None:
                self._requests.answer(request, text)

    def _cancel(self, trial_id: int | None) -> str:
        entries = [entry for entry in (*self._running.values(), *self._queue) if entry.trial.trial_id == trial_id]
        if not entries:
            return f"refused: trial {trial_id} is not open"
        trial = entries[0].trial
        if trial.proposal.phase is not None:
            return f"refused: trial {trial_id} trains shared weights, without which nothing goes on"
        if self._running.pop(trial.trial_id, None) is None:
            self._queue.remove(entries[0])
        self._executor.cancel(trial.trial_id)
        self._take_in(trial.fail(FailureKind.CANCELLED, "cancelled by the user", finished_at=self._clock.now()))
        return f"trial {trial_id} is cancelled"

    def _change_budget(self, request: Request) -> str | None:
        """None: it cannot be written down at the moment."""
        tally, planned = self._tally, self._dialogue.planned
        if request.trials is not None and request.trials < tally.asked:
            return f"refused: {tally.asked} trials are asked already, more than {request.trials}"
        budget = tally.budget.changed(request.trials, request.seconds)
        if not self._writer.write(lambda: self._pool.record_budget(tally.budget.limits, budget.limits)):
            return None
        tally.budget = budget
        note = f"; the strategy plans {planned}" if planned is not None and planned < (budget.trials or 0) else ""
        return f"the budget is now {budget}{note}"

    # -- running ------------------------------------------------------------------------------------------

    def _next(self, queue: Iterable[Entry]) -> Sequence[Entry]:
        """Those of a queue that can be submitted now; it is looked at as far as they stand, for it may be long."""
        room = self._ending.room(self._executor.capacity - len(self._running), len(self._running))
        return choose(queue, room, beside_suspect=self._runs_suspect)

    @property
    def _runs_suspect(self) -> bool:
        return self._has_suspects and any(entry.is_suspect for entry in self._running.values())

    def _attempts(self, entries: Sequence[Entry]) -> list[Attempt]:
        now = self._clock.now()
        return [Attempt(entry.trial.trial_id, entry.trial.attempt + 1, None, now, entry.before) for entry in entries]

    def _submit(self) -> None:
        entries = self._next(self._queue)
        rows = self._attempts([entry for entry in entries if not entry.is_begun])
        if rows and not self._writer.write(lambda: self._pool.record_attempts(rows)):
            return
        for entry in entries:
            if entry is self._queue[0]:
                self._queue.popleft()
            else:  # a suspect before it waits
                self._queue.remove(entry)
            entry.trial = replace(entry.trial, attempt=entry.trial.attempt + 1)
            entry.tries, entry.is_begun, entry.before = entry.tries + 1, False, ""
            entry.since = self._clock.seconds()
            self._running[entry.trial.trial_id] = entry
            self._executor.submit(Job(proposal=entry.trial.proposal, attempt=entry.trial.attempt))

    def _withdraw(self) -> None:
        """When nothing is to begin any more, what has not begun stays open, for a resume."""
        if not self._ending.is_near:
            return
        begun = [self._running.pop(job.proposal.trial_id, None) for job in self._executor.withdraw()]
        self._queue.extendleft(entry for entry in reversed(begun) if entry is not None)

    def _collect(self, timeout: float | None, wake: Sequence[object] = ()) -> None:
        retried = []
        for completion in self._executor.wait(timeout, wake):
            entry = self._running.get(completion.trial_id)
            if entry is None or entry.trial.attempt != completion.attempt:
                _log.info("late result of trial %d, attempt %d", completion.trial_id, completion.attempt)
                continue
            del self._running[completion.trial_id]
            ended = completion.apply(entry.trial)
            if isinstance(completion.outcome, Failure):
                self._outbox.add_log(ended, log_text(ended, completion))
            self._tally.note_end(ended)
            if self._is_tried_again(ended, entry, completion):
                retried.append(entry)
            else:
                self._take_in(entry.final(ended), completion.weights)
        self._queue.extendleft(reversed(retried))

    def _take_in(self, ended: Trial, weights: bytes | None = None) -> None:
        if self._ending.note_end(ended):
            self._outbox.add(ended, weights)

    def _is_tried_again(self, ended: Trial, entry: Entry, completion: Completion) -> bool:
        self._ending.note_outcome(completion, ended)
        if ended.failure_kind is FailureKind.ENVIRONMENT:
            entry.note_end(ended.failure_kind, ended.failure_message or "")
            return True
        if ended.failure_kind not in self._retry.kinds or entry.tries >= self._retry.max_attempts:
            return False
        where = completion.node or "unknown node"
        _log.warning("trial %d, attempt %d: %s on %s", ended.trial_id, ended.attempt, ended.failure_kind, where)
        entry.note_end(ended.failure_kind, ended.failure_message or "")
        return True

    def snapshot(self) -> Snapshot:
        """How the search stands."""
        return self._progress.snapshot(self._running.values(), len(self._queue), self._ahead())
