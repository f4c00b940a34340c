"""Where a worker keeps how far its trial is: in the pool, if it sees the same one as the driver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nao_ray.errors import NaoRayError
from nao_ray.service.hosting.manifest import storage_id
from nao_ray.trial import Proposal

if TYPE_CHECKING:
    from nao_ray.pool import Checkpoints

_log = logging.getLogger(__name__)


class PoolKeeper:
    """Keeps a state every so often; a pool that cannot be reached or written holds up no trial."""

    def __init__(self, checkpoints: Checkpoints, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """As described above.

        Args:
            checkpoints: of the pool.
            seconds: between two states, and to the first one.
            clock: seconds, monotonic.
        """
        self._checkpoints, self._seconds, self._clock = checkpoints, seconds, clock
        self._last = clock()

    def kept(self, proposal: Proposal) -> bytes | None:
        self._last = self._clock()
        try:
            return self._checkpoints.read(proposal.trial_id)
        except (OSError, NaoRayError) as error:
            _log.warning("trial %d begins anew: its checkpoint cannot be read: %s", proposal.trial_id, error)
            return None

    def is_due(self) -> bool:
        return self._clock() - self._last >= self._seconds

    def keep(self, proposal: Proposal, state: bytes) -> None:
        try:
            self._checkpoints.write(proposal.trial_id, state)
        except (OSError, NaoRayError) as error:
            _log.warning("trial %d goes on without a checkpoint: %s", proposal.trial_id, error)
        self._last = self._clock()


def keeper_of(url: str, pool_id: str, seconds: float) -> PoolKeeper | None:
    """The keeper of a pool by its address; None: another one, or none, is there on this machine."""
    from nao_ray.pool import PoolReader  # with pandas, which a worker without a pool does not need

    try:
        pool = PoolReader.open(url)
    except NaoRayError as error:
        _log.warning("long trials keep no checkpoints, for this machine does not see the pool: %s", error)
        return None
    if storage_id(pool.manifest) != pool_id:
        _log.warning("long trials keep no checkpoints, for another pool is at %s on this machine", url)
        return None
    return PoolKeeper(pool.checkpoints, seconds)
