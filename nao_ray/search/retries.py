"""Failed trials that the user asks for again.

A trial ends once. What is tried again after it has FAILED is a trial of its own: the same architecture at the same
fidelity, with a seed of its own (what diverged need not do so again), that names the failed one (`Proposal.retry_of`).
It is recorded as asked before the search goes on, so that a driver that dies over it has lost nothing. A trial is asked
for again once; if that fails, it is the retry that may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nao_ray import rng
from nao_ray.trial import FailureKind, Proposal, Trial, TrialState

ALL = "all"
"""Any kind of failure, but for what the user has cancelled: that comes back when it is asked for by its kind."""
_UNKNOWN = "unknown"

KINDS = frozenset({ALL, _UNKNOWN, *(kind.value for kind in FailureKind)})
"""What may be asked for."""


class FailedTrials:
    """Those of a log that may be asked for again."""

    def __init__(self) -> None:
        self._failed: dict[int, Trial] = {}
        self._retried: set[int] = set()
        self._num_finished = self._num_asked = 0

    def passing(self, log: Iterable[Trial]) -> Iterator[Trial]:
        """Take in the trials of a log as they pass by, each once, in any order."""
        for trial in log:
            self._num_asked = max(self._num_asked, trial.trial_id + 1)
            self._num_finished += trial.state is not TrialState.RUNNING
            if trial.proposal.retry_of is not None:
                self._retried.add(trial.proposal.retry_of)
            if trial.state is TrialState.FAILED:
                self._failed[trial.trial_id] = trial
            yield trial

    def of_kind(self, kind: str | None = None) -> list[Trial]:
        """Those that nobody has asked for again, by id; None: whatever their kind."""
        return [
            self._failed[trial_id]
            for trial_id in sorted(self._failed.keys() - self._retried)
            if _is_of(kind_of(self._failed[trial_id]), kind)
        ]

    def again(self, trials: Sequence[Trial], seed: int) -> list[Proposal]:
        """Proposals that ask for these once more, after all that was asked; `seed` is the search's."""
        return [
            replace(
                trial.proposal,
                trial_id=trial_id,
                retry_of=trial.trial_id,
                seed=rng.child_seed(seed, "retry", trial_id),
                asked_after=self._num_finished,
            )
            for trial_id, trial in enumerate(trials, start=self._num_asked)
        ]


_MEANT = (FailureKind.CANCELLED, FailureKind.LIMIT)
"""Kinds that the user has asked for; they are tried again by their name alone."""


def _is_of(kind: str, wanted: str | None) -> bool:
    return wanted in (None, kind) or (wanted == ALL and kind not in _MEANT)


def kind_of(trial: Trial) -> str:
    """A failed trial's kind of failure, as pools list them."""
    return _UNKNOWN if trial.failure_kind is None else trial.failure_kind.value


def is_bound(trial: Trial) -> bool:
    """It was to train shared weights, or to be scored with them: the search has gone on from there without it."""
    return trial.proposal.phase is not None or trial.proposal.fidelity.weights_version is not None


def kinds(trials: Iterable[Trial]) -> str:
    """How often each kind occurs, the commonest first: ``timeout (3), nan (2)``."""
    return ", ".join(f"{kind} ({count})" for kind, count in Counter(map(kind_of, trials)).most_common())
