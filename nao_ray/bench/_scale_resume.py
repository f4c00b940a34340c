"""The memory of a driver that takes a large pool up again and reports on it, in a process of its own.

As in production the strategy lives in an actor, to which the log is sent. The pool is made up, with rows as full as
those of a long search: embeddings of 64 numbers, tokens, curves.

    python -m nao_ray.bench._scale_resume POOL TRIALS
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from nao_ray import registry
from nao_ray.bench._process import peak_memory
from nao_ray.bench._scale_pool import make_pool
from nao_ray.bench._scale_row import Row
from nao_ray.config import RunConfig, Workers
from nao_ray.errors import ConfigError, RunError
from nao_ray.page.bundle import write_report
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.tally import Past
from nao_ray.service.fleet.actors import StrategyFactory
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.proposer import RayProposer

_MB = 2**20
_MORE = 40  # trials after the resume
_WORKERS = 20


def measure(trials: str = "1000,100000", seed: int = 0) -> list[Row]:
    """Peak memory of a driver that resumes a pool of so many trials, searches a little, and writes the report.

    Args:
        trials: of the pools, by commas; growth is told against the first.
        seed: of what the rows hold.

    Raises:
        ConfigError: an argument is not what it should be.
        RunError: a process failed.
    """
    sizes = [int(word) if word.strip().isdecimal() else 0 for word in str(trials).split(",")]
    if min(sizes) < 1:
        raise ConfigError(f"bench scale: resume.trials must be numbers from 1 on, got {trials!r}")
    with tempfile.TemporaryDirectory(prefix="nao-scale-") as folder:
        peaks = []
        for size in sizes:
            url = Path(folder, str(size))
            make_pool(url, size, seed)
            peaks.append(_ask(url, size))
    return rows(sizes, peaks)


def rows(sizes: list[int], peaks: list[dict[str, float]]) -> list[Row]:
    """One per size, with the growth since the first."""
    first = peaks[0]
    return [
        Row(
            measurement=f"driver's peak memory, taking up {size:,} trials",
            setting=f"random_search in an actor, {_WORKERS} simulated workers, {_MORE} more trials, then the report",
            figure=", ".join(
                f"{words} {peak[name] / _MB:.0f} MB ({peak[name] / first[name] - 1:+.1%})"
                for name, words in (("resumed", "resumed"), ("reported", "and reported"))
            ),
            data={"trials": size, **peak},
        )
        for size, peak in zip(sizes, peaks, strict=True)
    ]


def _ask(url: Path, trials: int) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, str(url), str(trials)]
    environment = {"ARROW_DEFAULT_MEMORY_POOL": "system", **os.environ}  # as `nao-ray` itself
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RunError("bench scale: the process whose memory is measured failed; its error stands above")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def resume(url: Path, trials: int) -> dict[str, float]:
    """Resume in this process; bytes at most so far, after the search and after the report."""
    config = RunConfig.model_validate(
        {
            "name": "scale",
            "space": "nao_cnn",
            "evaluator": "closed_form",
            "strategy": "random_search",
            "budget": {"trials": trials + _MORE},
        }
    )
    clock = VirtualClock()
    executor = SimulatedExecutor(config.make_evaluator(), clock, _WORKERS, duration=lambda *_: 1.0)
    pool = PoolWriter.open(url)
    with ray_session(Workers(count=1)), pool.acquire():
        past = Past()
        proposer = RayProposer(StrategyFactory(config.to_yaml()), past.first(pool.stream_log))
        try:
            loop = SearchLoop(pool, proposer, executor, Budget(trials=trials + _MORE), clock=clock)
            done = loop.run(past)
        finally:
            proposer.close()
    if done.done + done.failed != trials + _MORE:
        raise RunError(f"bench scale: {done.done + done.failed} trials are finished, expected {trials + _MORE}")
    resumed = peak_memory()
    write_report(pool, registry.load("space", "nao_cnn")())
    return {"resumed": resumed, "reported": peak_memory()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(resume(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
