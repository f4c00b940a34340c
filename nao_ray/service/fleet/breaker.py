"""Devices that break trials are set aside, for growing times; a trial that breaks several of them is to blame itself.

An error of a device (`training.failures`) says nothing of the architecture: the trial is tried on another one. A device
on which several trials in a row have ended so is given nothing for a minute, then for twice as long each time; a node
on which several devices have, likewise. One trial completed, and all is forgiven. Where no device of the fleet is known
to work, it is nobody's fault but the environment's.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from nao_ray.search.executor import Failure
from nao_ray.trial import FailureKind

_log = logging.getLogger(__name__)

SEVERAL = 3
"""Trials in a row on a device, devices in a row on a node, devices that a trial has broken."""
_FIRST_SECONDS, _LONGEST_SECONDS = 60.0, 3600.0


class Device(NamedTuple):
    """A device of the cluster."""

    node_id: str
    name: str
    """As Ray numbers it, e.g. `gpu:0`; `cpu`: none was given."""


@dataclass(slots=True)
class _Record:
    """Of a device or a node, since it last did what it should."""

    broken: set[object] = field(default_factory=set)
    """Trials of a device, devices of a node."""
    times: int = 0
    until: float = 0.0
    message: str = ""


class Breaker:
    """Knows which devices and nodes are set aside."""

    def __init__(self, host: Callable[[str], str | None] = lambda node_id: node_id) -> None:
        """As described above; `host` names a node for people."""
        self._host = host
        self._records: defaultdict[str | Device, _Record] = defaultdict(_Record)  # by node and by device
        self._broke: dict[int, set[Device]] = {}  # by trial that is not finished
        self._has_worked = False

    # -- what happens -------------------------------------------------------------------------------------

    def worked(self, device: Device, trial_id: int) -> None:
        """A trial was completed there."""
        self._has_worked = True
        self._broke.pop(trial_id, None)
        self._records.pop(device, None)
        self._records.pop(device.node_id, None)

    def judge(
        self,
        device: Device,
        trial_id: int,
        failure: Failure,
        now: float,
        others: Iterable[Device] = (),
        *,
        several: int = SEVERAL,
    ) -> Failure:
        """A trial ended with an error of the device; what that is to count as.

        Args:
            device: where.
            trial_id: of the trial.
            failure: what was said.
            now: seconds.
            others: devices of the workers that are there.
            several: trials in a row after which the device is set aside.
        """
        broke = self._broke.setdefault(trial_id, set())
        broke.add(device)
        if len(broke) >= SEVERAL and self._has_worked:
            del self._broke[trial_id]
            for each in broke:
                self._forgive(each, trial_id)
            names = ", ".join(sorted(map(self.name, broke)))
            message = f"{failure.message} (the same on {len(broke)} devices: {names})"
            return Failure(FailureKind.ERROR, message, log=failure.log)
        self.failed(device, trial_id, failure.message, now, several)
        is_alone = not any(other != device and not self._is_failing(other) for other in others)
        in_a_row = len(self._records[device].broken)
        if is_alone and (in_a_row > 1 or not self._has_worked):
            return Failure(FailureKind.ENVIRONMENT, failure.message, log=failure.log)
        return Failure(FailureKind.LOST, failure.message, log=failure.log)

    def failed(self, device: Device, what: object, message: str, now: float, several: int = SEVERAL) -> None:
        """An error of the device, with a trial or as something else was tried on it."""
        self._note(device, what, message, now, several)
        self._note(device.node_id, device, message, now, SEVERAL)

    def _note(self, place: str | Device, what: object, message: str, now: float, several: int) -> None:
        record = self._records[place]
        if now < record.until:
            return
        record.broken.add(what)
        if len(record.broken) >= several or record.times:
            seconds = min(_FIRST_SECONDS * 2**record.times, _LONGEST_SECONDS)
            record.until, record.times, record.message = now + seconds, record.times + 1, message
            _log.warning("%s is set aside for %.0f s: %s", self.name(place), seconds, message)

    def _forgive(self, device: Device, trial_id: int) -> None:
        record = self._records[device]
        record.broken.discard(trial_id)
        if len(record.broken) < SEVERAL - 1:  # it was this trial
            self._records.pop(device)
            self._records[device.node_id].broken.discard(device)

    def forget(self, trial_id: int) -> None:
        """The trial is finished, or given up."""
        self._broke.pop(trial_id, None)

    # -- what follows -------------------------------------------------------------------------------------

    def broke(self, trial_id: int) -> frozenset[Device]:
        """Devices that the trial is not to be tried on again."""
        return frozenset(self._broke.get(trial_id, ()))

    def is_aside(self, device: Device, now: float) -> bool:
        """Whether nothing is to be given to the device."""
        return any(place in self._records and now < self._records[place].until for place in (device, device.node_id))

    def _is_failing(self, device: Device) -> bool:
        return device in self._records and bool(self._records[device].broken)

    def aside(self, now: float) -> list[str]:
        """What is set aside, for people."""
        return [
            f"{self.name(place)} for {record.until - now:.0f} s more: {record.message}"
            for place, record in self._records.items()
            if now < record.until
        ]

    def name(self, place: str | Device) -> str:
        """A node or a device, for people."""
        if isinstance(place, Device):
            return f"{place.name} of {self._host(place.node_id)}"
        return f"node {self._host(place)}"
