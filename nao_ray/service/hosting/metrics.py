"""Metrics of a running search, on the Prometheus port of the node that its driver runs on.

Ray serves them as `ray_nao_...`, labelled with the search's name, its pool and its user, on the port of
`ray start --metrics-export-port`. A gauge that is not set again is dropped by Ray after about 20 seconds: so is what a
dead driver said.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import MappingProxyType

from ray.util.metrics import Gauge

from nao_ray.search.snapshot import Snapshot

METRICS = MappingProxyType(
    {
        "nao_trials": "Trials by state: completed, failed, running, queued.",
        "nao_best_score": "Best so far: the metric's value, negative if less is better.",
        "nao_workers": "Workers.",
        "nao_devices_aside": "Devices and nodes that broke trials and are given nothing for a while.",
        "nao_trials_per_gpu": "Trials that a GPU has at a time, by the kind that has most; 0: that is not measured.",
        "nao_busy_share": "Share of the workers' time that went into trials in the last minute, in [0, 1].",
        "nao_device_hours": "Hours of a device that its trials have taken, over all drivers of the pool.",
        "nao_fit_seconds": "CPU seconds of the controller's last fit.",
        "nao_queue_length": "Proposals that wait for a worker.",
        "nao_asked_ahead": "Proposals asked for before a worker wants them.",
        "nao_ask_seconds": "Seconds that the strategy takes to answer: the longest lately.",
    }
)
"""Name, without Ray's prefix `ray_`, and what it says."""

_EVERY = 5.0
"""Seconds; Ray collects every 10."""
_MINUTE = 60.0


class RayMetrics:
    """A listener of a search. To be made after `ray.init`, closed before `ray.shutdown`."""

    def __init__(self, search: str, pool: str, user: str, clock: Callable[[], float] = time.monotonic) -> None:
        """As described above.

        Args:
            search: name of the search, the label `search`.
            pool: its pool, the label `pool`: one config may be searched several times.
            user: whose search it is, the label `user`.
            clock: seconds, monotonic.
        """
        self._gauges = {name: Gauge(name, text, tag_keys=_tags(name)) for name, text in METRICS.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags({"search": search, "pool": pool, "user": user})
        self._clock = clock
        self._busy = BusyShare()
        self._last: Snapshot | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nao-ray-metrics", daemon=True)
        self._thread.start()

    def __call__(self, snapshot: Snapshot) -> None:
        """Take in how the search stands; it is exported within seconds."""
        with self._lock:
            self._last = snapshot
            self._busy.add(self._clock(), snapshot.running, snapshot.capacity)

    def _keep(self) -> None:
        while not self._stop.wait(_EVERY):
            self.export()

    def export(self) -> None:
        """Set every gauge that has a value."""
        with self._lock:
            last, share = self._last, self._busy.share(self._clock())
        if last is None:
            return
        states = {"completed": last.done, "failed": last.failed, "running": last.running, "queued": last.queued}
        for state, count in states.items():
            self._gauges["nao_trials"].set(count, tags={"state": state})
        values = {
            "nao_best_score": last.best_score,
            "nao_workers": last.capacity,
            "nao_devices_aside": len(last.aside),
            "nao_trials_per_gpu": max((shared.children for shared in last.sharing), default=0),
            "nao_busy_share": share,
            "nao_device_hours": last.device_seconds / 3600,
            "nao_fit_seconds": last.fit_seconds,
            "nao_queue_length": last.queued,
            "nao_asked_ahead": last.ahead,
            "nao_ask_seconds": last.ask_seconds,
        }
        for name, value in values.items():
            if value is not None:
                self._gauges[name].set(value)

    def close(self) -> None:
        """Export once more, and no further."""
        self._stop.set()
        self._thread.join(timeout=10)
        self.export()


class BusyShare:
    """Which share of the workers' time went into trials, over the last minute."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque()  # since when, share of the workers at work

    def add(self, now: float, running: int, workers: int) -> None:
        """From `now` on, seconds, so many of so many workers are at work."""
        share = min(1.0, running / max(1, workers))
        if not self._steps or self._steps[-1][1] != share:
            self._steps.append((now, share))
        while len(self._steps) > 1 and self._steps[1][0] <= now - _MINUTE:
            self._steps.popleft()

    def share(self, now: float) -> float | None:
        """The mean over the minute before `now`, or since the first `add`; None before."""
        if not self._steps:
            return None
        begins = [max(since, now - _MINUTE) for since, _ in self._steps]
        lengths = [max(0.0, end - begin) for begin, end in zip(begins, [*begins[1:], now], strict=True)]
        whole = sum(lengths)
        if whole <= 0:
            return self._steps[-1][1]
        return sum(length * share for length, (_, share) in zip(lengths, self._steps, strict=True)) / whole


def _tags(name: str) -> tuple[str, ...]:
    return ("search", "pool", "user", *(("state",) if name == "nao_trials" else ()))
