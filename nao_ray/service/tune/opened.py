"""A pool that Ray Tune fills: opened under a lease, its strategy asked ahead, and whose each open trial is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from nao_ray.addresses import absolute
from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader
from nao_ray.search.ahead import Ahead
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Completion
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Past
from nao_ray.service.hosting.checks import Checked
from nao_ray.service.hosting.manifest import metric_of
from nao_ray.service.told import open_told
from nao_ray.trial import Fidelity, Interim, Trial

_BY = "tune:"
"""Begins the node of an attempt that Tune makes; behind it stands Tune's id of the trial."""

_log = logging.getLogger(__name__)


class OpenPool:
    """What one driver of a pool asks and tells, by the ids that Tune gives its trials."""

    _open: dict[str, OpenPool] = {}  # noqa: RUF012 - one of a process: no two drivers of a pool
    _opening = threading.Lock()

    def __init__(
        self,
        url: str,
        search: Checked,
        *,
        budget: Callable[[Budget, Past], Budget],
        width: int,
        knows: Callable[[str], bool] | None,
    ) -> None:
        """Open the pool, or make it; another driver of it in this process, whose Tuner has ended, gives way.

        Args:
            url: of the pool.
            search: that it is of; its budget is that of a new pool.
            budget: what holds from now on, of what held and what the pool has.
            width: trials that run at a time, as far as is known.
            knows: of a Tuner that was restored: whether it knows one of its ids still; None: the Tuner is a new one.

        Raises:
            InputError: the pool is of another search, or has another driver; of a restored Tuner, or it is gone.
        """
        self.url = absolute(url)
        with self._opening:
            if (other := self._open.pop(self.url, None)) is not None:
                other.close()
            if knows is not None and not PoolReader.exists(url):
                raise PoolError(f"{url} is gone, the pool of the Tuner that is restored: begin a new Tuner instead")
            self._stack = ExitStack()
            try:
                self._begin(search, budget, width, knows)
            except BaseException:
                self._stack.close()
                raise
            self._open[self.url] = self

    def _begin(
        self,
        search: Checked,
        budget: Callable[[Budget, Past], Budget],
        width: int,
        knows: Callable[[str], bool] | None,
    ) -> None:
        session, left = open_told(self.url, search, budget, self._stack)
        self._ids: dict[str, int] = {}  # of our trials, by Tune's
        self._trials: dict[int, Trial] = {}
        waiting = []
        for trial in left:
            tune_id = (trial.node or "").removeprefix(_BY)
            if knows is not None and (trial.node or "").startswith(_BY) and knows(tune_id):
                self._ids[tune_id], self._trials[trial.trial_id] = trial.trial_id, trial
            else:
                waiting.append(trial)
        self._ahead = Ahead(session, width, waiting, self._trials)
        self._stack.callback(self._ahead.close)
        self._metric = metric_of(search.config)

    def take(self, tune_id: str, wait: float) -> Trial | None:
        """The next trial, Tune's from now on; None: none is ready, see `is_exhausted`."""
        trial = self._ahead.take(f"{_BY}{tune_id}", wait)
        if trial is not None:
            self._ids[tune_id], self._trials[trial.trial_id] = trial.trial_id, trial
        elif self._ahead.is_over:
            self.close()
        return trial

    def trial(self, tune_id: str) -> Trial | None:
        """Ours, which is open; None: Tune's is not known here, or has ended before."""
        return self._trials.get(self._ids.get(tune_id, -1))

    def hear(self, tune_id: str, epochs: int, score: float) -> None:
        """What an open trial has come to so far."""
        self._ahead.hear(Interim(self._ids[tune_id], epochs, score))

    def tell(self, tune_id: str, completion: Completion, fidelity: Fidelity) -> None:
        """How a trial ended; when it was the last one the pool is given free."""
        self._ahead.tell(completion, fidelity)
        self._trials.pop(self._ids.pop(tune_id), None)
        if self._ahead.is_over:
            self.close()

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing will come."""
        return self._ahead.is_exhausted

    def snapshot(self) -> Snapshot:
        """How it stands."""
        return self._ahead.snapshot(self._metric)

    def close(self) -> None:
        """Give the pool free; what is open stays so. Harmless a second time."""
        self._stack.close()
        if self._open.get(self.url) is self:
            del self._open[self.url]
