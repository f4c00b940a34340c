"""The driver's memory over a long search: the real loop and a real pool, in a process of its own.

As in production the strategy lives in an actor, so what it remembers is not the driver's; workers are simulated, a few
at a time that end together. What is left is the loop, the pool's writing and compaction, and Ray's client.

Between two compactions the parts to be merged are held, so memory goes up and down: beside what it is at a mark stands
the highest since the mark before. With 20 workers 20,000 trials are the first whole cycle.

    python -m nao_ray.bench._scale_memory '{"marks": [1000, 10000], "workers": 20}'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from nao_ray.bench._process import peak_memory
from nao_ray.bench._scale_row import Row
from nao_ray.config import RunConfig, Workers
from nao_ray.errors import ConfigError, RunError
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.overseer import Overseer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.snapshot import Snapshot
from nao_ray.service.fleet.actors import StrategyFactory
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.manifest import make_manifest
from nao_ray.service.hosting.proposer import RayProposer

_MB = 2**20


def measure(
    trials: str | int = "1000,10000,20000,100000", workers: int = 20, strategy: str = "random_search"
) -> list[Row]:
    """Memory of the driver after so many finished trials, and the highest on the way there.

    Args:
        trials: numbers of finished trials to look at, by commas, ascending; the search ends with the last.
        workers: simulated workers, whose trials end together.
        strategy: who proposes, in an actor.

    Raises:
        ConfigError: an argument is not what it should be.
        RunError: the search failed.
    """
    marks = [int(word) if word.strip().isdecimal() else 0 for word in str(trials).split(",")]
    if marks != sorted(set(marks)) or marks[0] < 1 or workers < 1:
        raise ConfigError(f"bench scale: memory.trials must be ascending numbers from 1 on, got {trials!r}")
    work = json.dumps({"marks": marks, "workers": workers, "strategy": strategy})
    command = [sys.executable, "-m", __name__, work]
    environment = {"ARROW_DEFAULT_MEMORY_POOL": "system", **os.environ}  # as `nao-ray` itself
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError("bench scale: the process whose memory is measured failed; its error stands above")
    looks: list[dict[str, float]] = [json.loads(line) for line in done.stdout.splitlines()]
    return rows(looks, f"{strategy} in an actor, {workers} simulated workers, pool on disk")


def rows(looks: list[dict[str, float]], setting: str) -> list[Row]:
    """One per look, with the growth since the first; the highest counts from the look before on."""
    first = looks[0]
    return [
        Row(
            measurement=f"driver's memory at {int(look['trials']):,} trials",
            setting=setting,
            figure=", ".join(
                f"{word}{look[name] / _MB:.0f} MB ({look[name] / first[name] - 1:+.1%})"
                for name, word in (("rss", ""), ("highest", "highest since the last mark "), ("peak", "peak "))
            ),
            data=dict(look),
        )
        for look in looks
    ]


def watch(marks: list[int], workers: int, strategy: str) -> list[dict[str, float]]:
    """Search in this process; what it came to at each mark.

    `trials` finished; bytes: `rss` now, `highest` of those at each turn of the loop since the mark before, `peak` of
    any moment so far, compactions too; `seconds` so far.
    """
    config = RunConfig.model_validate(
        {
            "name": "scale",
            "seed": 0,
            "space": "nao_cnn_small",
            "evaluator": "closed_form",
            "strategy": strategy,
            "budget": {"trials": marks[-1]},
            "workers": {"count": 1},
        }
    )
    evaluator, clock, process = config.make_evaluator(), VirtualClock(), psutil.Process()
    executor = SimulatedExecutor(evaluator, clock, workers, duration=lambda *_: 1.0)
    looks: list[dict[str, float]] = []
    highest, began = 0.0, time.perf_counter()

    def look(snapshot: Snapshot) -> None:
        nonlocal highest
        finished, rss = snapshot.done + snapshot.failed, float(process.memory_info().rss)
        highest = max(highest, rss)
        if len(looks) < len(marks) and finished >= marks[len(looks)]:
            now = {"rss": rss, "highest": highest, "peak": peak_memory()}
            looks.append({"trials": finished, **now, "seconds": time.perf_counter() - began})
            highest = 0.0

    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder, ray_session(Workers(count=1)):
        pool = PoolWriter.create(Path(folder, "pool"), make_manifest(config, evaluator.data_hash(), None))
        with pool.acquire():
            proposer = RayProposer(StrategyFactory(config.to_yaml()), pool.stream_log)
            budget, overseer = Budget(trials=marks[-1]), Overseer(listener=look)
            loop = SearchLoop(pool, proposer, executor, budget, clock=clock, overseer=overseer)
            try:
                loop.run()
            finally:
                proposer.close()
    return looks


def main(work: dict[str, Any]) -> None:
    """What ``python -m`` does: one line of JSON per look."""
    for look in watch(**work):
        sys.stdout.write(json.dumps(look) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
