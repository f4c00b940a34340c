"""The real executor over thousands of workers that are no processes: what a driver adds to Ray's own calls.

Everything of the executor is real, from its queue to its liveness checks; the actors and the cluster are stand-ins in
this process, whose share is in the figures. What Ray itself takes for a call is measured beside it, on one real actor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import ray

from nao_ray.bench._scale_row import Row
from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.config import Workers
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Evaluator
from nao_ray.search.executor import Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.trial import Proposal

_PER_NODE = 8
_GENOTYPE = Genotype("nao_cnn_small", NaoCnnSmall.published["NAONet-B"])


def measure(workers: str | int = "1000,4000", turns: int = 200, ended: int = 4, calls: int = 4000) -> list[Row]:
    """Hand out a round, then turns in which some trials end and as many are given out.

    Args:
        workers: stand-ins, by commas.
        turns: of each.
        ended: trials that end in a turn.
        calls: to one real actor, for what Ray takes; 0: none.

    Raises:
        ConfigError: `workers` is no list of numbers, or one of them is not a multiple of 8, workers of a node.
    """
    words = [word.strip() for word in str(workers).split(",")]
    if not all(word.isdecimal() and int(word) and int(word) % _PER_NODE == 0 for word in words):
        raise ConfigError(f"bench scale: workers must be multiples of {_PER_NODE} by commas, got {workers!r}")
    rows = [row for word in words for row in _drive(int(word), turns, ended)]
    return rows + (_calls(calls) if calls else [])


def _drive(workers: int, turns: int, ended: int) -> list[Row]:
    cluster = StubCluster({f"n{number}": {"CPU": _PER_NODE} for number in range(workers // _PER_NODE)})
    numbers = iter(range(10**9))
    with closing(RayExecutor(_no_evaluator, WorkerPlan(), remote=cluster)) as executor:
        _submit(executor, numbers, workers)
        created = _timed(lambda: _until(executor, lambda: len(cluster.begun) == workers))
        cluster.finish()
        assert len(executor.wait(0)) == workers

        def hand_out() -> None:
            _submit(executor, numbers, workers)
            executor.wait(0)

        given = _timed(hand_out)
        assert len(cluster.begun) == workers

        def turn() -> None:
            cluster.finish(ended)
            executor.wait(0)
            _submit(executor, numbers, ended)

        seconds = [_timed(turn) for _ in range(turns)]
    setting = f"{workers:,} stand-ins for workers"
    median, longest = statistics.median(seconds), max(seconds)
    turn_setting = f"{setting}, {ended} trials end and begin, n = {turns}"
    return [
        Row(measurement="fleet: workers made and given a trial each", setting=setting, figure=f"{created:.2f} s"),
        Row(measurement="fleet: a round handed out", setting=setting, figure=f"{given:.2f} s"),
        Row(
            measurement="fleet: a turn",
            setting=turn_setting,
            figure=f"{1000 * median:.2f} ms (longest {1000 * longest:.1f})",
            data={"created": created, "handed_out": given, "turns": seconds},
        ),
    ]


def _no_evaluator() -> Evaluator[Any]:
    raise NotImplementedError


def _submit(executor: RayExecutor, numbers: Iterator[int], count: int) -> None:
    for _ in range(count):
        executor.submit(Job(proposal=Proposal(genotype=_GENOTYPE, trial_id=next(numbers)), attempt=1))


def _until(executor: RayExecutor, is_done: Callable[[], bool]) -> None:
    while not is_done():
        executor.wait(0)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- what Ray takes -----------------------------------------------------------------------------------------


class _Idle:
    """An actor."""

    def hold(self, seconds: float) -> None:
        """Keep the calls after this one waiting."""
        time.sleep(seconds)

    def answer(self, number: int) -> int:
        """Nothing but an answer."""
        return number


def _calls(count: int) -> list[Row]:
    with ray_session(Workers(cpus=1)):
        actor = ray.remote(num_cpus=0)(_Idle).remote()
        ray.get(actor.answer.remote(0))
        actor.hold.remote(10.0)
        refs: list[object] = []
        made = _timed(lambda: refs.extend(actor.answer.remote(number) for number in range(count)))
        waited = statistics.median(_timed(lambda: ray.wait(refs, num_returns=count, timeout=0)) for _ in range(5))
        futures: list[object] = []
        told = _timed(lambda: futures.extend(ref.future() for ref in refs))  # type: ignore[attr-defined]
    setting = f"{count:,} calls of one actor under way"
    return [
        Row(measurement="fleet: Ray's calls made", setting=setting, figure=f"{1000 * made / count:.2f} ms each"),
        Row(measurement="fleet: to be told when one ends", setting=setting, figure=f"{1e6 * told / count:.0f} us each"),
        Row(measurement="fleet: ray.wait over all, not used", setting=setting, figure=f"{1000 * waited:.1f} ms a look"),
    ]
