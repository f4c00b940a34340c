"""Finalists under several settings of their recipe, in Ray Tune: a grid, a random part of it, or either under ASHA.

What is trained and what came of it is in the finalists' pool, and so are the states of trainings under way, one an
epoch. So nothing is left to Tune's own folder, which is a temporary one: who goes on makes a new Tuner, which takes
what is open. A scheduler then begins anew; trainings that it had stopped have ended.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from nao_ray.addresses import absolute
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, RunError
from nao_ray.evaluators.base import Evaluator
from nao_ray.pool import PoolReader
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Failure, measure
from nao_ray.search.snapshot import Snapshot
from nao_ray.search.tally import Past
from nao_ray.service.code import SameCode
from nao_ray.service.fleet.actors import EvaluatorFactory
from nao_ray.service.fleet.placement import resolve_gpus
from nao_ray.service.hosting.checks import Checked, check_search, refuse_device_without_gpu, take_pool
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.manifest import metric_of, storage_id
from nao_ray.service.hosting.requests import Signals, heed_signals
from nao_ray.service.tune.searcher import PoolSearcher
from nao_ray.spaces.base import Genotype
from nao_ray.trial import FailureKind, Measurement, Proposal, Trial

REDUCTION = 3
"""ASHA: of what has come to a rung a third goes on. The first rung is at a ninth of the epochs."""
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_KEPT_SECONDS = 0.0  # between two states of a training: each epoch's


def tune_finalists(
    config: RunConfig, pool_url: str, *, stops_early: bool, listener: Callable[[Snapshot], None] = lambda _: None
) -> None:
    """Train what a config gives (`finalists_config` with a tuning); on a pool that exists already, go on with it.

    Args:
        config: what is trained, under which settings.
        pool_url: folder or URL of the finalists' pool.
        stops_early: ASHA ends trainings that are behind others after as many epochs; else each is trained to its end.
        listener: is given a snapshot whenever something has happened.

    Raises:
        InputError: config, data or pool are not what they should be; nothing was started.
        RunError: the run failed; the same call goes on.
        KeyboardInterrupt: SIGINT or SIGTERM; likewise.
    """
    search = check_search(config, pool_url)
    config = search.config
    if stops_early and config.evaluator.settings.get("repeats", 1) > 1:
        raise ConfigError("evaluator.repeats must be 1 with --scheduler asha, which looks at one training of a trial")
    if _is_over(pool_url, config):
        return
    refuse_device_without_gpu(config)
    with ray_session(config.workers), heed_signals() as signals, _quiet(), tempfile.TemporaryDirectory() as folder:
        pool = take_pool(pool_url, search)
        searcher = FinalistsSearch(pool_url, search)
        keeps = (absolute(pool_url), storage_id(pool.manifest), _KEPT_SECONDS)
        try:
            _tuner(config, searcher, stops_early, keeps, _Watch(searcher, signals, listener), folder).fit()
        except _InterruptedError:
            raise KeyboardInterrupt from None
        finally:
            searcher.close()


def _tuner(
    config: RunConfig,
    searcher: FinalistsSearch,
    stops_early: bool,
    keeps: tuple[str, str, float],
    watch: _Watch,
    folder: str,
) -> tune.Tuner:
    workers, evaluator = config.workers, config.make_evaluator()
    gpus = resolve_gpus(workers, evaluator)
    resources = {"cpu": workers.cpus, "gpu": 1.0 if gpus is None else gpus}
    make = SameCode.of(EvaluatorFactory(config.to_yaml(), keeps))
    metric = metric_of(config)
    room = int(ray.cluster_resources().get("CPU", 1) // workers.cpus)
    epochs = int(config.evaluator.settings["epochs"])
    asha = ASHAScheduler("epoch", max_t=epochs, grace_period=math.ceil(epochs / 9), reduction_factor=REDUCTION)
    return tune.Tuner(
        tune.with_resources(partial(train_finalist, make, searcher.space_name), resources),
        tune_config=tune.TuneConfig(
            metric=metric.column,
            mode="max" if metric.more_is_better else "min",
            search_alg=searcher,
            scheduler=asha if stops_early else None,
            num_samples=-1,  # as many as the pool has open
            max_concurrent_trials=max(1, room if workers.count == "auto" else workers.count),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="finalists",
            storage_path=folder,
            verbose=0,
            callbacks=[watch],
            failure_config=tune.FailureConfig(max_failures=workers.max_attempts - 1),
        ),
    )


def _is_over(pool_url: str, config: RunConfig) -> bool:
    if not PoolReader.exists(pool_url):
        return False
    counts = PoolReader.open(pool_url).counts()
    return counts.completed + counts.failed >= (config.budget.trials or 0)


class FinalistsSearch(PoolSearcher):
    """Gives each trial its settings."""

    def __init__(self, pool: str, search: Checked) -> None:
        metric = metric_of(search.config)
        mode = "max" if metric.more_is_better else "min"
        super().__init__(pool, metric=metric.column, mode=mode, time_attr="epoch")
        self._search = search
        self.space_name = search.config.make_space().name
        self.trouble: str | None = None
        """What is no architecture's fault, and ends the run, whose trials stay open."""

    def search(self, samples: int | None) -> Checked:
        """As `PoolSearcher.search`."""
        return self._search

    def budget(self, held: Budget, past: Past) -> Budget:
        """As `PoolSearcher.budget`: what is trained was decided when the pool was made."""
        return held

    def given(self, trial: Trial) -> dict[str, Any]:
        """As `PoolSearcher.given`."""
        proposal = trial.proposal
        return {
            "trial_id": trial.trial_id,
            "seed": proposal.seed,
            "genotype": trial.genotype.key,
            "settings": proposal.settings,
        }

    def measured(self, result: Mapping[str, Any], curve: tuple[float, ...]) -> Measurement | Failure | None:
        """As `PoolSearcher.measured`; the trainable tells all that a measurement has."""
        if (kind := result.get("failure_kind")) is None:
            facts: dict[str, Any] = _frozen(json.loads(result["measurement"]))
            return Measurement(**facts)
        failure = Failure(FailureKind(kind), result["failure_message"], log=result["failure_log"])
        if failure.kind is FailureKind.ENVIRONMENT:
            self.trouble = failure.message
            return None
        return failure

    def failed(self, trial_id: str, last: Mapping[str, Any]) -> Failure:
        """As `PoolSearcher.failed`: what the trainable raises it reports; this is the end of its process."""
        return Failure(FailureKind.LOST, "its worker was lost as often as workers.max_attempts allows")

    def snapshot(self) -> Snapshot | None:
        """How it stands; None: nothing was asked yet."""
        return None if self._desk is None else self._desk.snapshot()


def train_finalist(make: SameCode[Evaluator[Any]], space: str, config: Mapping[str, Any]) -> None:
    """The trainable: one training, an epoch a report; it goes on where the pool says that it was."""
    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves all of the node's GPUs in sight of those it gave none
    evaluator = make()
    evaluator.watcher = lambda so_far: tune.report(_told(evaluator, so_far))
    proposal = Proposal(
        genotype=Genotype(space, config["genotype"]),
        trial_id=config["trial_id"],
        seed=config["seed"],
        settings=config["settings"],
        fidelity=type(evaluator).fidelity(evaluator.config),
    )
    outcome = measure(evaluator, proposal)
    if isinstance(outcome, Failure):
        failure = {"failure_kind": outcome.kind.value, "failure_message": outcome.message, "failure_log": outcome.log}
        tune.report({evaluator.measure.column: math.nan, **failure})
    else:
        tune.report(_told(evaluator, outcome))


def _told(evaluator: Evaluator[Any], measured: Measurement) -> dict[str, Any]:
    """A report: what schedulers look at, and the whole as JSON."""
    facts = {name: value for name, value in asdict(measured).items() if value is not None}
    column = evaluator.measure.column
    return {column: facts.get(column, math.nan), "epoch": len(measured.curve or ()), "measurement": json.dumps(facts)}


def _frozen(value: Any) -> Any:  # noqa: ANN401
    """What JSON made of a measurement, with tuples again."""
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class _InterruptedError(Exception):
    """An interrupt as Tune takes it: at a `KeyboardInterrupt` it would leave its workers, who keep their CPUs."""


class _Watch(tune.Callback):  # type: ignore[misc]  # Tune has no types here
    """Tells how it stands, and ends the run where it is to end."""

    def __init__(self, searcher: FinalistsSearch, signals: Signals, listener: Callable[[Snapshot], None]) -> None:
        self._searcher, self._signals, self._listener = searcher, signals, listener

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a Tuner keeps its callbacks, and this one is of its process."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ANN401
        if self._signals.stopped() or self._signals.take():
            raise _InterruptedError
        if self._searcher.trouble is not None:
            raise RunError(f"{self._searcher.trouble}; its trial stays open, and the same command goes on")
        if (snapshot := self._searcher.snapshot()) is not None:
            try:
                self._listener(snapshot)
            except KeyboardInterrupt:
                raise _InterruptedError from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No tables of Tune's, no files of its loggers, no handler of its own for Ctrl-C."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
