"""How many workers are asked for: as many as there is work, on the nodes there are and on those that may come.

A worker that no node has room for is a pending actor, and pending actors are what Ray's autoscaler goes by: it adds
them to those of every other job, and they end with their driver. ``ray.autoscaler.sdk.request_resources`` would do
neither: it holds for the whole cluster, overwrites what another job requested, and stays when the driver dies.

Ray does not say how far an autoscaler can go. So where there is one, a good step more is asked for than the nodes hold;
once that has brought nothing for a while, one worker more, which finds a node that becomes available again. Where there
is none, nothing is asked for that no node holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError, RpcError
from ray.experimental.internal_kv import _internal_kv_get

_STEP = 32
"""Workers asked for beyond what the nodes hold, at least; the autoscaler has limits and a pace of its own."""
_PATIENCE_SECONDS = 600.0
"""Longer than machines take to start."""
_LOOKS = 20
"""Between two times of asking whether there is an autoscaler."""
_A_NODE_ALONE = re.compile(r"node_[0-9a-f]{56}")
"""The node type of a node that no autoscaler has made."""


def can_grow() -> bool:
    """Whether the cluster has an autoscaler. Every head runs one, which without a config does nothing but watch.

    Ray has no public way to ask. A second-generation one that only watches passes for one that acts.
    """
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    status = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = json.loads(status).get("autoscaler_report") if status else None
    types = (report or {}).get("node_type_mapping") or {}
    return any(not _A_NODE_ALONE.fullmatch(name) for name in types.values())


class Demand:
    """Counts workers.

    Args:
        count: at most this many, asked for whatever the cluster is; None: as the module says.
        grows: as `can_grow`; asked until it is true.
    """

    def __init__(self, count: int | None, grows: Callable[[], bool] = can_grow) -> None:
        self._count, self._ask_whether_it_grows = count, grows
        self._grows = False
        self._holds = self._in_all = self._ahead = self._looks = 0
        self._is_short = False
        self.cap: int | None = None
        """Workers that this search may have beside others; None: as many as it likes."""
        self.aside = 0
        """Workers that are there and are given no job."""
        self._since: float | None = None  # when the nodes last changed, or sufficed

    def look(self, holds: int, now: float, in_all: int | None = None) -> None:
        """Take in how many workers the nodes hold beside what others use, and how many in all."""
        in_all = holds if in_all is None else in_all
        if self._since is None or in_all != self._in_all or not self._is_short:
            self._since = now
        self._holds, self._in_all = holds, in_all
        if self._count is None and not self._grows and self._looks % _LOOKS == 0:
            self._grows = self._is_said_to_grow()
        self._looks += 1
        self._ahead = 0
        if self._grows:
            self._ahead = max(_STEP, in_all) if now - self._since <= _PATIENCE_SECONDS else 1

    def _is_said_to_grow(self) -> bool:
        try:
            return self._ask_whether_it_grows()
        except (RayError, RpcError, RuntimeError, OSError):  # the head is away: another time
            return False

    @property
    def present(self) -> int:
        """Workers that are there or soon will be and are not aside, at least 1: more proposals than that would wait."""
        usable = self._holds - self.aside
        usable = usable if self._count is None else min(usable, self._count)
        return max(1, usable if self.cap is None else min(usable, self.cap))

    @property
    def holds(self) -> int:
        """Workers that the nodes hold beside what others use."""
        return self._holds

    @property
    def may_give_back(self) -> bool:
        """Nobody said how many workers, and no machine can be added for others who want some."""
        return self._count is None and not self._grows

    def give_back(self) -> None:
        """One worker is given back to others."""
        self._holds -= 1

    @property
    def most(self) -> int:
        """Workers that may be asked for besides those aside, at least 1 with them, but for a cap."""
        return self._most if self.cap is None else min(self._most, self.cap)

    @property
    def _most(self) -> int:
        if self._count is None:
            return max(1 if not self.aside else 0, self._holds + self._ahead - self.aside)
        return max(0, self._count - self.aside, min(self._count, self._holds - self.aside))

    def wanted(self, work: float) -> int:
        """Workers to ask for, where so many would find something to do."""
        wanted = int(min(self.most, work))
        self._is_short = wanted > self._holds - self.aside
        return wanted
