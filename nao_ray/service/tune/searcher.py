"""A searcher of Ray Tune over one of our pools: what it suggests was asked ahead, what ends is recorded at once.

Tune calls it on its one thread of events, which is never kept waiting for a strategy. What Tune keeps of it is the
pool's address: trials, and whose they are, are in the pool.
"""

from __future__ import annotations

import json
import logging
import math
import traceback
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, SupportsFloat

import ray
from ray.tune.search import Searcher

from nao_ray.errors import ConfigError, NaoRayError
from nao_ray.metric import Metric
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Completion, Failure
from nao_ray.search.tally import Past
from nao_ray.service.hosting.checks import Checked
from nao_ray.service.tune.opened import OpenPool
from nao_ray.trial import FailureKind, Fidelity, Measurement, Trial

_WAIT_SECONDS = 5.0  # for a proposal while nothing runs that would be held up; Tune itself would only sleep
_ENDLESS = 2**31  # samples that are no limit: of -1 Tune makes the largest integer
_MOST_AT_ONCE = 64  # trials that are asked for at the start, however large the cluster

_log = logging.getLogger(__name__)


class PoolSearcher(Searcher):  # type: ignore[misc]  # Tune has no types here
    """Base of those that suggest from a pool."""

    def __init__(self, pool: str, *, metric: str | None = None, mode: str | None = None, time_attr: str) -> None:
        """As described above.

        Args:
            pool: folder or URL.
            metric: key of the trainable's results; None: as in `tune.TuneConfig`.
            mode: `max` or `min`; None: likewise.
            time_attr: key of the results that says how many epochs a trial has had.
        """
        super().__init__(metric=metric, mode=mode)
        self._metric: str = metric or ""
        self._mode: str = mode or ""
        self._pool, self._time_attr = pool, time_attr
        self._samples: int | None = None
        self._at_once: int | None = None
        self._seen: dict[str, dict[str, Any]] = {}  # the last result of each running trial, by Tune's id
        self._curves: dict[str, list[float]] = {}
        self._is_restored = False  # by a Tuner
        self._known: str | None = None  # what that one knows, as it was written; None: that was not found
        self._desk: OpenPool | None = None
        self._broken: NaoRayError | None = None

    # -- what each has of its own -------------------------------------------------------------------------

    @abstractmethod
    def search(self, samples: int | None) -> Checked:
        """The search that the pool is of, as a new one with so many trials is; None: without limit."""

    def budget(self, held: Budget, past: Past) -> Budget:
        """What a new Tuner may ask: as many trials as it has samples, besides those that have ended.

        Args:
            held: what held so far; of a new pool that of its search.
            past: what the pool has.
        """
        limit = None if self._samples is None else max(past.ids, past.done + past.failed + self._samples)
        return Budget(trials=limit, seconds=held.seconds)

    @abstractmethod
    def given(self, trial: Trial) -> dict[str, Any]:
        """What the trainable is given of a trial."""

    @abstractmethod
    def measured(self, result: Mapping[str, Any], curve: tuple[float, ...]) -> Measurement | Failure | None:
        """A trial's last result as its measurement; `curve`: the metric of all results that were seen.

        None: it is left open, for another driver.
        """

    # -- Tune's side --------------------------------------------------------------------------------------

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:  # noqa: ANN401
        """Take over metric, mode and number of samples; False: a space of Tune's own is not searched."""
        self._hear(metric, mode, spec.get("num_samples"))
        return not config

    def _hear(self, metric: str | None, mode: str | None, samples: int | None) -> None:
        self._metric, self._mode = self._metric or metric or "", self._mode or mode or ""
        if samples is not None:
            self._samples = samples if 0 <= samples < _ENDLESS else None
        if not self._metric or not isinstance(self._metric, str) or self._mode not in ("min", "max"):
            raise ConfigError(
                f"{type(self).__name__} ranks trials by one value: give it, or tune.TuneConfig, a metric, which is a "
                "key of the trainable's results, and as mode min or max"
            )

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take note; the limit itself is Tune's `ConcurrencyLimiter`'s to keep."""
        self._at_once = max_concurrent
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next proposal, if one is there."""
        desk = self._opened()
        trial = desk.take(trial_id, _WAIT_SECONDS)
        if trial is not None:
            return self.given(trial)
        return Searcher.FINISHED if desk.is_exhausted else None

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Remember it: of a trial that is stopped the last result is its score, and others may go by it before."""
        desk = self._opened()
        if desk.trial(trial_id) is None:
            return
        self._note(trial_id, result)
        epochs, value = result.get(self._time_attr), _number(result.get(self._metric))
        if epochs is not None:
            desk.hear(trial_id, int(epochs), value if self._mode == "max" else -value)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Record how it ended; one that the pool has the end of already is not recorded twice."""
        desk = self._opened()
        trial = desk.trial(trial_id)
        if trial is None:
            _log.info("trial %s of Tune has ended before, or is none of %s", trial_id, self._pool)
            return
        if result is not None and not error:
            self._note(trial_id, result)
        last = self._seen.pop(trial_id, {})
        outcome = self._outcome(trial_id, last, error=error)
        if outcome is None:
            return
        completion = Completion(
            trial_id=trial.trial_id,
            attempt=trial.attempt,
            outcome=outcome,
            node=last.get("hostname"),
            started_at=trial.started_at,
            finished_at=datetime.now(UTC),
        )
        try:
            desk.tell(trial_id, completion, self._fidelity(trial, last))
        except NaoRayError as broken:  # where Tune asks for the end of a trial it would only log that
            self._broken = broken
            raise

    def _note(self, trial_id: str, result: Mapping[str, Any]) -> None:
        before = self._seen.get(trial_id, {}).get("training_iteration")
        if before is None or result.get("training_iteration") != before:  # Tune tells the last one twice
            self._curves.setdefault(trial_id, []).append(_number(result.get(self._metric)))
        self._seen[trial_id] = dict(result)

    def _outcome(self, trial_id: str, last: Mapping[str, Any], *, error: bool) -> Measurement | Failure | None:
        curve = tuple(self._curves.pop(trial_id, ()))
        if error:
            return self.failed(trial_id, last)
        if not last:
            return Failure(FailureKind.CANCELLED, f"Tune ended {trial_id} before it had reported anything")
        return self.measured(last, curve)

    def failed(self, trial_id: str, last: Mapping[str, Any]) -> Failure:
        """Why a trainable gave nothing, as far as Tune tells a searcher; `last`: what it had reported."""
        score = f", after it had reported {self._metric} {last[self._metric]}" if self._metric in last else ""
        message = f"the trainable failed{score}; Tune keeps its traceback as error.txt in the folder of {trial_id}"
        return Failure(FailureKind.ERROR, message)

    def _fidelity(self, trial: Trial, last: Mapping[str, Any]) -> Fidelity:
        """As it was asked, with the epochs that it has had."""
        asked, epochs = trial.proposal.fidelity, last.get(self._time_attr)
        return asked if epochs is None else replace(asked, epochs=int(epochs))

    # -- what is kept -------------------------------------------------------------------------------------

    def save(self, checkpoint_path: str) -> None:
        """The pool's address, as JSON."""
        Path(checkpoint_path).write_text(json.dumps({"pool": self._pool}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on with the pool that `save` wrote down."""
        self.close()
        self._pool = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))["pool"]

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """As `restore`, from a Tuner's folder, which says too what the Tuner knows of its trials."""
        states = sorted(Path(checkpoint_dir).glob("experiment_state-*.json"), key=lambda path: path.stat().st_mtime)
        self._known = states[-1].read_text(encoding="utf-8") if states else None
        self._is_restored = True
        super().restore_from_dir(checkpoint_dir)

    def close(self) -> None:
        """Give the pool free, which else the end of the last trial, or of the process, does."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    def __getstate__(self) -> dict[str, Any]:
        """What a Tuner keeps of its searcher, before it begins: no thread, no lease, no result."""
        fresh: dict[str, Any] = {
            "_broken": None,
            "_desk": None,
            "_is_restored": False,
            "_known": None,
            "_seen": {},
            "_curves": {},
        }
        return {**self.__dict__, **fresh}

    def _opened(self) -> OpenPool:
        if self._broken is not None:
            raise self._broken
        if self._desk is None:
            self._hear(*_said_to_tune())
            known = self._known
            self._desk = OpenPool(
                self._pool,
                self.search(self._samples),
                budget=(lambda held, _: held) if self._is_restored else self.budget,
                width=self._at_once or _width(),
                knows=(lambda trial_id: known is None or trial_id in known) if self._is_restored else None,
            )
            weakref.finalize(self, self._desk.close)
        return self._desk


def value_of(result: Mapping[str, Any], key: str, metric: Metric) -> dict[str, Any] | Failure:
    """The fields of a measurement that hold a result's value of a metric."""
    value = result.get(key)
    if not isinstance(value, SupportsFloat):
        there = ", ".join(sorted(name for name, item in result.items() if isinstance(item, float))) or "none"
        return Failure(FailureKind.ERROR, f"the result has no number {key}; those it has are {there}")
    number = float(value)
    if math.isfinite(number) and metric.possible(number) != number:
        return Failure(
            FailureKind.ERROR, f"{key} is {number:g}, expected a share in [0, 1]: report that, or call it another name"
        )
    return metric.measured(number)


def _said_to_tune() -> tuple[str | None, str | None, int | None]:
    """Metric, mode and number of samples as Tune was given them, which it tells a searcher only beside a `param_space`.

    They are found where Tune has them while it asks: in `tune.run`, which has called the caller.
    """
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == "ray.tune.tune":
            metric, mode, samples = (frame.f_locals.get(name) for name in ("metric", "mode", "num_samples"))
            return metric, mode, samples
    return None, None, None


def _number(value: object) -> float:
    return float(value) if isinstance(value, SupportsFloat) else math.nan


def _width() -> int:
    """Trials that a cluster runs at a time where each takes a CPU."""
    cpus = ray.cluster_resources().get("CPU", 1) if ray.is_initialized() else 1
    return max(1, min(_MOST_AT_ONCE, int(cpus)))
