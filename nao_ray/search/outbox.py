"""What has ended: first written to the pool, then counted, then told to the strategy."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from functools import partial

from nao_ray.errors import PoolWriteError
from nao_ray.search.records import Records
from nao_ray.search.tally import Tally
from nao_ray.search.writing import Writer
from nao_ray.trial import Trial, TrialState

_log = logging.getLogger(__name__)


class Outbox:
    """Results on their way to the pool, and recorded ones on their way to the strategy."""

    def __init__(self, pool: Records, writer: Writer, tally: Tally) -> None:
        self._pool, self._writer, self._tally = pool, writer, tally
        self._ended: list[Trial] = []
        self._logs: list[tuple[Trial, str]] = []  # of failed attempts, to be written before
        self._trained: deque[tuple[str, bytes, int | None]] = deque()  # versions of shared weights, likewise
        self.untold: list[Trial] = []
        """Recorded, to be told."""

    def __bool__(self) -> bool:
        """Whether a result is still to be written."""
        return bool(self._ended)

    def add(self, trial: Trial, weights: bytes | None = None) -> None:
        """A trial has ended, and perhaps trained a version of shared weights; one that diverged is none."""
        self._ended.append(trial)
        phase = trial.proposal.phase
        if phase is not None and weights is not None and trial.state is TrialState.COMPLETED:
            self._trained.append((phase.version, weights, phase.seed))

    def add_log(self, trial: Trial, text: str) -> None:
        """What a failed attempt at a trial can be understood by."""
        self._logs.append((trial, text))

    def record(self) -> None:
        """Write what there is; what cannot be written at the moment stays."""
        self._keep_logs()
        while self._trained:
            if not self._writer.write(partial(self._pool.write_weights, *self._trained[0])):
                return
            self._trained.popleft()
        ended = [replace(trial, log_index=i) for i, trial in enumerate(self._ended, start=self._tally.next_index)]
        if not ended or not self._writer.write(lambda: self._pool.record_finished(ended)):
            return
        for trial in ended:
            self._tally.count(trial)
        self._tally.next_index += len(ended)
        self.untold.extend(ended)
        self._ended = []

    def _keep_logs(self) -> None:
        """A help to people: a search does without those that cannot be written."""
        logs, self._logs = self._logs, []
        for trial, text in logs:
            try:
                self._pool.record_log(trial.trial_id, trial.attempt, text)
            except PoolWriteError as error:
                _log.warning("the log of trial %d, attempt %d, is not kept: %s", trial.trial_id, trial.attempt, error)
