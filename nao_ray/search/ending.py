"""What keeps a search from beginning trials, for a while or for good: its time, an error, trouble, a request."""

from __future__ import annotations

import math

from nao_ray.errors import RunError
from nao_ray.search.clock import Clock
from nao_ray.search.executor import Completion
from nao_ray.search.tally import Tally
from nao_ray.search.trouble import Failures, Limits, Trouble
from nao_ray.trial import FailureKind, Measurement, Trial, TrialState


class Ending:
    """Whether anything further may begin, and whether the search is to end before it is done."""

    def __init__(self, limits: Limits, tally: Tally, clock: Clock) -> None:
        self._tally, self._clock, self._bears_failed_phases = tally, clock, limits.bears_failed_phases
        self.trouble = Trouble(limits, clock)
        self._failures = Failures(limits)
        self.error: RunError | None = None
        """To be raised, once what has ended is recorded."""
        self._waits = False  # the error is of a training: what runs beside it may end
        self._drained_at: float | None = None  # when those that run have had their time

    # -- what happens -------------------------------------------------------------------------------------

    def note_outcome(self, completion: Completion, ended: Trial) -> None:
        """An attempt has ended, which may be tried again."""
        if isinstance(completion.outcome, Measurement):
            self.trouble.note_success()
        elif completion.outcome.kind is FailureKind.ENVIRONMENT:
            try:
                self.trouble.note_error(ended, completion.node)
            except RunError as error:
                self.error = self.error or error

    def note_end(self, trial: Trial) -> bool:
        """A trial has ended for good. False: it is to stay open, for without it nothing goes on."""
        phase = trial.proposal.phase
        if phase is None or trial.state is not TrialState.FAILED or self._bears_failed_phases:
            self._failures.note_end(trial)
            return True
        self._waits = self._waits or self.error is None
        self.error = self.error or RunError(
            f"the training of shared weights {phase.version} failed ({trial.failure_kind}): {trial.failure_message}; "
            "nao-ray resume tries it again"
        )
        return False

    def note_verdict(self, hopeless: str | None) -> None:
        """What the strategy says, once that is recorded: why nothing can come of the search any more, or None."""
        if hopeless is not None:
            self.error = self.error or RunError(hopeless)

    def drain(self, seconds: float | None, running: int) -> str:
        """Begin nothing further, and end when those that run have, or had their time; what that means."""
        self._drained_at = self._clock.seconds() + (math.inf if seconds is None else seconds)
        text = f"no further trial begins, {running} are running; the search then ends, resumable"
        return text if seconds is None else f"{text}, in {seconds:.0f} s at the latest"

    # -- what follows -------------------------------------------------------------------------------------

    @property
    def is_near(self) -> bool:
        """Nothing is to begin any more."""
        return self._tally.out_of_time or self.error is not None or self._drained_at is not None

    def room(self, free: int, running: int) -> int:
        """Of `free` places beside `running` trials, those that may be used now."""
        if self.is_near or self._failures.are_too_many(self._tally.done):
            return 0
        return self.trouble.room(max(0, free), running)

    @property
    def seconds_left(self) -> float | None:
        """What those that run may still take after a request to end; None: they are not hurried."""
        at = self._drained_at
        return None if at is None or at == math.inf else max(0.0, at - self._clock.seconds())

    def is_drained(self, running: int) -> bool:
        """It was asked to end, and what ran has ended or had its time."""
        return self._drained_at is not None and (not running or self.seconds_left == 0)

    def check(self, running: int) -> None:
        """Once all that has ended is recorded: whether to go on.

        Raises:
            RunError: no; where a training of shared weights failed, once what runs beside it has ended.
        """
        if self.error is not None and not (self._waits and running):
            raise self.error
        if self._failures.are_too_many(self._tally.done) and not running:
            raise self._failures.error()
