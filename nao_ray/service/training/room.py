"""What workers of a full training have, and whether Ray holds as many."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import ray

from nao_ray.config import TrainConfig
from nao_ray.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Each:
    """What each worker has."""

    cpus: float = 1.0
    """Also torch's threads."""
    gpus: float = 0.0
    """0, 1, or a share."""


A_CPU = Each()


def check_room(config: TrainConfig, each: Each, *, is_local: bool) -> None:
    """All workers have to fit at once; a cluster may grow, a machine does not.

    Raises:
        ConfigError: this machine is too small.
    """
    missing = lack(config, each)
    if missing is not None and is_local:
        wanted = f"{missing.wanted:g} {missing.name}"
        raise ConfigError(f"--workers {config.workers} with {wanted} each: this machine has {missing.room} of them")
    if not each.gpus and (gpus := sum(node.get("GPU", 0.0) for node in _alive())):
        _log.warning("--gpus is 0, so all is computed on CPUs, and the GPUs (%g) idle", gpus)


@dataclass(frozen=True, slots=True)
class Lack:
    """Workers that a cluster holds by one resource, and the fewest that are needed."""

    room: int
    least: int
    name: str
    wanted: float
    """By each."""

    def __str__(self) -> str:
        held = f"the cluster holds {self.room} workers with {self.name} {self.wanted:g} now, of {self.least}"
        return f"{held}: waiting for it to grow"


def lack(config: TrainConfig, each: Each) -> Lack | None:
    """What keeps the fewest workers from fitting at once; None: they do."""
    least, nodes = config.crew.least, _alive()
    for name, key, wanted in (("cpus", "CPU", each.cpus), ("gpus", "GPU", each.gpus)):
        room = sum(int(node.get(key, 0.0) / wanted + 1e-6) for node in nodes) if wanted else least
        if room < least:
            return Lack(room, least, name, wanted)
    return None


def _alive() -> list[dict[str, float]]:
    """Resources of each node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
