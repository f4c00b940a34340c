"""What can be refused is refused before anything is made: config, components, data, and what is in the pool already."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

from nao_ray import own_modules, registry
from nao_ray.config import RunConfig, Workers
from nao_ray.errors import ConfigError, PoolError
from nao_ray.loggers.base import Search
from nao_ray.pool import PoolReader, PoolWriter, refuse_changes
from nao_ray.service.hosting.earlier import freeze
from nao_ray.service.hosting.manifest import FREE_ON_RESUME, config_of, make_manifest, settle, storage_id
from nao_ray.service.places import placed, unlearnt
from nao_ray.strategies.base import Strategy
from nao_ray.tasks.base import Facts

_log = logging.getLogger(__name__)

_ALSO_IN_PROCESS = frozenset({"max_attempts", "retry", "patience_seconds", "notice_seconds"})
"""Settings of `workers` that mean something without workers."""


class Checked(NamedTuple):
    """A search that can begin, or go on."""

    config: RunConfig
    """With absolute paths."""
    manifest: dict[str, Any]
    """Of a new pool."""
    facts: Facts | None
    """Of its data."""


def check_search(config: RunConfig, pool_url: str) -> Checked:
    """What a search in this pool begins, or goes on, with; nothing is made.

    Raises:
        InputError: the config, the data or the pool is not what it should be.
    """
    config = placed(config)
    config.make_strategy()
    evaluator = config.make_evaluator()
    if config.strategy.name == "imported":
        raise ConfigError(
            f"the trials of {pool_url} were imported, and no search goes on with them: a new one learns from them with "
            f"strategy.warm_start=[{pool_url}]"
        )
    if not evaluator.measures:
        raise ConfigError(
            f"the evaluator {config.evaluator.name} measures nothing: trials of {pool_url} are told by whoever asks "
            "for them; a search in Ray Tune goes on with Tuner.restore, or with a new Tuner on the same pool"
        )
    data_hash, facts = evaluator.data_hash(), evaluator.facts()
    if config.task is not None:  # its data are there now
        evaluator.check(evaluator.space, evaluator.task.shapes, evaluator.config)
    if facts is not None:
        for own in config.own_settings:
            evaluator.check_facts(facts, evaluator.config.under(own), "strategy.settings")
    begun = config_of(PoolReader.open(pool_url).manifest, pool_url) if PoolReader.exists(pool_url) else None
    config = settle(config, evaluator, begun)
    strategy = config.make_strategy()
    _warn_of_budget(config, strategy)
    _warn_of_cosine(config)
    manifest = make_manifest(config, data_hash, strategy.planned, data=None if facts is None else facts.line)
    config.make_loggers(search_of(config, manifest, pool_url))
    if begun is None:
        freeze(config)  # that it can be
    search = Checked(config, manifest, facts)
    if PoolReader.exists(pool_url):
        pool = PoolReader.open(pool_url)
        _check_same_search(pool, search)
        _warn_of_other_code(pool.manifest, manifest)
    return search


def take_pool(pool_url: str, search: Checked, made_as: str | None = None) -> PoolWriter:
    """The pool of a search that was checked: the one that is there, or a new one.

    Args:
        pool_url: folder or URL.
        search: by `check_search`.
        made_as: the `storage_id` that it has, where another machine has seen it.

    Raises:
        PoolError: it is of another search, or not the one that the other machine has seen; or a pool that a new one
            learns from cannot be read.
    """
    if not PoolReader.exists(pool_url) and made_as is None:
        frozen = freeze(search.config)
        return PoolWriter.create(pool_url, {**search.manifest, **frozen.manifest}, frozen.data)
    pool = PoolWriter.open(pool_url) if PoolReader.exists(pool_url) else None
    if made_as is not None and (pool is None or storage_id(pool.manifest) != made_as):
        what = "there is none" if pool is None else "another one is there"
        raise PoolError(
            f"{pool_url} is not on all machines: on {platform.node()} {what} where the machine that started this "
            "search has its pool; give --pool on storage that all of them see, or as a URL"
        )
    assert pool is not None
    _check_same_search(pool, search)
    return pool


def search_of(config: RunConfig, manifest: Mapping[str, Any], pool_url: str) -> Search:
    """What loggers are told of the search."""
    search_id = f"{config.name} {manifest.get('created_at')} seed {config.seed}"
    return Search(name=config.name, id=search_id, pool_url=pool_url, config=config.to_data())


def refuse_device_without_gpu(config: RunConfig) -> None:
    """Raise ConfigError where workers are to compute on a GPU that none of them is given."""
    if config.make_evaluator().needs_gpu and config.workers.gpus == 0:
        device = config.evaluator.settings.get("device")
        raise ConfigError(
            f"evaluator.device is {device}, and workers.gpus is 0, so that no worker is given a GPU: set workers.gpus "
            "to auto, or to how many each is to have"
        )


def warn_of_ignored(workers: Workers) -> None:
    """Say which settings of the workers have no meaning where there are none (``--in-process``)."""
    given = workers.model_dump(mode="json")
    usual = Workers().model_dump(mode="json")
    ignored = [f"{name} {given[name]}" for name in given if name not in _ALSO_IN_PROCESS and given[name] != usual[name]]
    if ignored:
        _log.warning("--in-process ignores workers.%s", ", workers.".join(ignored))


def _warn_of_budget(config: RunConfig, strategy: Strategy[Any]) -> None:
    trials, name = config.budget.trials, config.strategy.name
    planned, unguided, phases = strategy.planned, strategy.unguided, strategy.phases
    if trials is None:
        return
    if trials <= unguided:
        _log.warning(
            "budget.trials %d: the first %d that %s asks are random, so this is random search",
            trials,
            unguided,
            name,
        )
    elif phases >= trials:
        _log.warning(
            "budget.trials %d ends this search before its cells are found: each epoch of each seed counts, %d in all, "
            "and some %d with what follows",
            trials,
            phases,
            planned,
        )
    elif planned is not None and trials < planned:
        _log.warning("budget.trials %d ends this search early: it plans %d", trials, planned)


def _warn_of_cosine(config: RunConfig) -> None:
    strategy = registry.load("strategy", config.strategy.name)
    epochs, period = strategy.Config(**config.strategy.settings).training_epochs, config.evaluator_config.most_epochs
    if epochs is not None and period is not None and epochs < period:
        _log.warning(
            "strategy.epochs is %d, and the cosine of the learning rate ends with epoch %d: it stays high, unless "
            "evaluator.period is %d",
            epochs,
            period,
            epochs,
        )


def _warn_of_other_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = own_modules.changes(before.get("own_modules", {}), now.get("own_modules", {}))
    if changed:
        _log.warning(
            "your own code has changed since this search began, in %s: what is scored from now on may not compare with "
            "what was",
            ", ".join(changed),
        )


def _check_same_search(pool: PoolReader, search: Checked) -> None:
    before = config_of(pool.manifest, pool.url).to_data()
    refuse_changes(before, search.manifest["config"], FREE_ON_RESUME | unlearnt(search.config))
    had, has = pool.manifest.get("data_hash"), search.manifest["data_hash"]
    if had != has:
        raise PoolError(
            f"{pool.url} was searched on other data: its hash was {str(had)[:12]}, it is now {has[:12]}; give the "
            "same data, or another pool"
        )
