"""From a config to a finished pool, and on from a pool that is not finished."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nao_ray.addresses import absolute
from nao_ray.config import RunConfig
from nao_ray.config_workers import login
from nao_ray.evaluators.base import SharedEvaluator
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Executor, SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.overseer import Overseer
from nao_ray.search.proposer import LocalProposer, Proposer
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Past
from nao_ray.search.tolerance import Tolerance
from nao_ray.search.tries import Retry
from nao_ray.search.trouble import Limits
from nao_ray.service.fleet.keeping import PoolKeeper
from nao_ray.service.hosting.checks import (
    check_search,
    refuse_device_without_gpu,
    search_of,
    take_pool,
    warn_of_ignored,
)
from nao_ray.service.hosting.earlier import earlier_of
from nao_ray.service.hosting.follower import Follower
from nao_ray.service.hosting.manifest import config_of, metric_of, storage_id
from nao_ray.service.hosting.requests import PoolRequests, heed_signals
from nao_ray.service.hosting.retries import plan, record_retries
from nao_ray.service.hosting.sharing import SharingRecorder
from nao_ray.trial import FailureKind

if TYPE_CHECKING:
    import pandas as pd

Listener = Callable[[Snapshot], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a search has come to."""

    pool_url: str
    done: int
    """Trials COMPLETED, over all drivers of the pool."""
    failed: int
    seconds: float
    """Wall time of this driver."""
    best: pd.DataFrame
    """The best trials, best first, as `PoolReader.best`."""


class Takeover(NamedTuple):
    """How a search comes to a pool that another process, or another machine, may have made."""

    wait: float = 0.0
    """Seconds to wait for another driver of the pool to end or to fall silent."""
    made_as: str | None = None
    """The `storage_id` of the pool that another machine has made; None: none has."""


def run(
    config: RunConfig,
    pool_url: str,
    listener: Listener | None = None,
    *,
    in_process: bool = False,
    takeover: Takeover | None = None,
    stop: Callable[[], bool] = lambda: False,
    gives_budget: bool = True,
    retry_failed: str | None = None,
) -> RunSummary:
    """Search; on a pool that exists already, go on with it.

    Args:
        config: what to search.
        pool_url: folder or URL of the pool.
        listener: is given a snapshot whenever something has happened.
        in_process: evaluate and propose in this process, one trial at a time, without Ray; nothing then ends a
            trial that takes longer than ``workers.timeout_seconds``.
        takeover: how a pool is taken that somebody else has made.
        stop: asked at every turn of the search; once true, it ends as if interrupted.
        gives_budget: the config's budget is somebody's wish, not what the pool's manifest says.
        retry_failed: first ask for failed trials of this kind again, or for `retries.ALL`.

    Raises:
        InputError: the config, the data or the pool is not what it should be; nothing was started.
        RunError: the run failed; the pool is resumable.
        KeyboardInterrupt: SIGINT, SIGTERM or `stop`; the pool is resumable.
    """
    search, taken = check_search(config, pool_url), takeover or Takeover()
    config = search.config
    with ExitStack() as stack:  # the cluster first: until it is there, nothing is made and nobody kept waiting
        if in_process:
            warn_of_ignored(config.workers)
        else:
            refuse_device_without_gpu(config)
            _connect(config, stack)
        pool = take_pool(pool_url, search, taken.made_as)
        stack.enter_context(pool.acquire(wait=taken.wait, ops=config.make_space().ops_by_cell))
        if search.facts is not None:
            _log.log(logging.WARNING if search.facts.odd else logging.INFO, "%s", search.facts.line)
        budget = _budget_of(config, pool, is_given=gives_budget)
        if retry_failed is not None:
            record_retries(pool, budget, retry_failed, config.seed)
        return _search(config, pool, budget, listener or (lambda _: None), in_process, stop)


def resume(
    pool_url: str,
    overrides: tuple[str, ...] = (),
    listener: Listener | None = None,
    *,
    in_process: bool = False,
    retry_failed: str | None = None,
) -> RunSummary | None:
    """Go on with the search of a pool.

    Args:
        pool_url: folder or URL of the pool.
        overrides: may set ``budget``, ``workers`` and ``loggers`` anew, and where the data are.
        listener: as `run`.
        in_process: as `run`.
        retry_failed: first ask for failed trials of this kind again, or for `retries.ALL`.

    Returns:
        None: no trial was there to be asked for again, and nothing else to do; no search was begun.

    Raises:
        InputError: there is no such pool, an override is refused, or what failed cannot be asked for again; nothing was
            started.
        RunError: the run failed; the pool is resumable.
        KeyboardInterrupt: SIGINT or SIGTERM; the pool is resumable.
    """
    pool = PoolReader.open(pool_url)
    config = config_of(pool.manifest, pool_url, overrides)
    gives_budget = any(override.strip().startswith("budget") for override in overrides)
    if retry_failed is not None:  # before a cluster is started for it; what counts is found once the pool is ours
        found = plan(pool, _budget_of(config, pool, is_given=gives_budget), retry_failed, config.seed)
        if found.is_over and not found.proposals:
            _log.warning("%s, and the budget is used up", found.line)
            return None
    return run(config, pool_url, listener, in_process=in_process, gives_budget=gives_budget, retry_failed=retry_failed)


def _budget_of(config: RunConfig, pool: PoolReader, *, is_given: bool) -> Budget:
    """The config's, unless it was changed while the search ran; a given one that was not replaced then is newer."""
    hours, changed = config.budget.hours, pool.changed_budget()
    own = Budget(trials=config.budget.trials, seconds=None if hours is None else hours * 3600)
    if changed is None or (is_given and own.limits not in changed.replaced):
        return own
    return Budget(trials=changed.now.trials, seconds=changed.now.seconds)


def _search(
    config: RunConfig,
    pool: PoolWriter,
    budget: Budget,
    listener: Listener,
    in_process: bool,
    stop: Callable[[], bool],
) -> RunSummary:
    with ExitStack() as stack:
        for logger in config.make_loggers(search_of(config, pool.manifest, pool.url)):
            stack.enter_context(Follower(pool.url, logger))
        past = Past()
        proposer, executor = (_in_process if in_process else _on_ray)(config, pool, past, stack)
        listeners = [listener, lambda snapshot: pool.say(snapshot.note, snapshot.total, snapshot.eta_seconds)]
        if not in_process:
            listeners += [_metrics(config, pool.url, stack), SharingRecorder(pool)]
        signals = stack.enter_context(heed_signals(config.workers.notice_seconds, at_once=in_process))
        loop = SearchLoop(
            pool,
            proposer,
            executor,
            budget,
            tolerance=_tolerance(config),
            overseer=Overseer(
                listener=_to_all(listeners),
                metric=metric_of(config),
                requests=PoolRequests(pool, signals.take),
                stop=lambda: signals.stopped() or stop(),
            ),
        )
        snapshot = loop.run(past)
        pool.end()
    return RunSummary(
        pool_url=pool.url, done=snapshot.done, failed=snapshot.failed, seconds=snapshot.seconds, best=pool.best(10)
    )


def _tolerance(config: RunConfig) -> Tolerance:
    workers, budget = config.workers, config.budget
    return Tolerance(
        retry=Retry(
            max_attempts=workers.max_attempts, kinds=frozenset({FailureKind.LOST, *map(FailureKind, workers.retry)})
        ),
        limits=Limits(
            trouble_seconds=workers.patience_seconds,
            failures=budget.failures,
            bears_failed_phases=config.bears_failed_phases,
        ),
    )


def _metrics(config: RunConfig, pool_url: str, stack: ExitStack) -> Listener:
    from nao_ray.service.hosting.metrics import RayMetrics

    return stack.enter_context(closing(RayMetrics(config.name, pool_url, config.workers.user or login())))


def _to_all(listeners: Sequence[Listener]) -> Listener:
    def tell(snapshot: Snapshot) -> None:
        for listener in listeners:
            listener(snapshot)

    return tell


def _in_process(config: RunConfig, pool: PoolWriter, past: Past, stack: ExitStack) -> tuple[Proposer, Executor]:
    log = list(past.passing(pool.log()))
    proposer = stack.enter_context(closing(LocalProposer(config.make_strategy(earlier_of(pool)), log)))
    evaluator = config.make_evaluator()
    if evaluator.rungs and evaluator.keeps_states:
        evaluator.keeper = PoolKeeper(pool.checkpoints, config.workers.checkpoint_seconds or math.inf)
    return proposer, stack.enter_context(closing(SerialExecutor(evaluator, weights=pool)))


def _connect(config: RunConfig, stack: ExitStack) -> None:
    from nao_ray.service.fleet.nodes import one_cluster
    from nao_ray.service.hosting.cluster import ray_session, tell_of_idle_gpus

    evaluator = config.make_evaluator()
    stack.enter_context(ray_session(config.workers, shares_weights=evaluator.shares_weights))
    if evaluator.uses_gpu:
        tell_of_idle_gpus(config.workers)
    stack.enter_context(one_cluster())


def _on_ray(config: RunConfig, pool: PoolWriter, past: Past, stack: ExitStack) -> tuple[Proposer, Executor]:
    from nao_ray.service.code import SameCode
    from nao_ray.service.fleet.actors import EvaluatorFactory, StrategyFactory
    from nao_ray.service.fleet.executor import RayExecutor
    from nao_ray.service.fleet.placement import resolve_gpus
    from nao_ray.service.fleet.shares import Share
    from nao_ray.service.fleet.worker import WorkerPlan
    from nao_ray.service.hosting.proposer import RayProposer

    workers, text, evaluator = config.workers, config.to_yaml(), config.make_evaluator()
    plan = WorkerPlan(
        count=None if workers.count == "auto" else workers.count,
        cpus=workers.cpus,
        gpus=resolve_gpus(workers, evaluator),
        max_per_gpu=workers.max_per_gpu,
        mps=workers.mps == "auto",
        timeout_seconds=None if workers.timeout_seconds == "none" else workers.timeout_seconds,
        ping_seconds=min(10.0, workers.silent_seconds / 6),
        silent_seconds=workers.silent_seconds,
        share=Share(
            search=storage_id(pool.manifest),
            weight=workers.weight,
            priority=workers.priority,
            max_gpus=workers.max_gpus,
        ),
        at_once=evaluator.scored_at_once if isinstance(evaluator, SharedEvaluator) else 1,
        trained_by=evaluator.trained_by if isinstance(evaluator, SharedEvaluator) else None,
    )
    seconds = workers.checkpoint_seconds or (math.inf if evaluator.rungs else None)  # rungs pause with a state
    keeps = None if seconds is None else (absolute(pool.url), storage_id(pool.manifest), seconds)
    proposer = stack.enter_context(
        closing(RayProposer(SameCode.of(StrategyFactory(text, earlier_of(pool))), past.first(pool.stream_log)))
    )
    make = SameCode.of(EvaluatorFactory(text, keeps))
    return proposer, stack.enter_context(closing(RayExecutor(make, plan, weights=pool, known=pool.sharing())))
