"""Searches whose trials are measured by whoever asks, and told: what they are, and how their pool is opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from nao_ray import yaml_text
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.metric import DEFAULT, Goal
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.session import Session
from nao_ray.search.tally import Past
from nao_ray.service.hosting.checks import Checked, take_pool
from nao_ray.service.hosting.earlier import earlier_of
from nao_ray.service.hosting.manifest import config_of, make_manifest
from nao_ray.spaces.base import SearchSpace
from nao_ray.trial import Trial

_NO_LIMIT_HOURS = 1e6

Space = str | Mapping[str, Any] | SearchSpace[Any] | type[SearchSpace[Any]]
"""Its name, a mapping with `name` and its settings, one of the user's own as ``package.module:Class``, or a class or an
instance."""


class Told(NamedTuple):
    """What is searched, by whom, and what is told of it."""

    space: Space
    strategy: str | Mapping[str, Any]
    """Its name, or a mapping with `name` and its settings; none that trains shared weights."""
    seed: int = 0
    metric: str = DEFAULT.name
    goal: Goal = DEFAULT.goal
    trials: int | None = None
    """That may be asked; None: without limit."""

    def config(self, where: str) -> RunConfig:
        """As a config; `where` begins what is said of a wrong one.

        Raises:
            ConfigError: there is no such space or strategy, or a setting is wrong.
        """
        space = section(self.space)
        strategy = {"name": self.strategy} if isinstance(self.strategy, str) else dict(self.strategy)
        name = f"{strategy.get('name')}-{space['name']}"
        data = {
            "name": re.sub(r"[^A-Za-z0-9_.-]", ".", name).lstrip("_.-")[:100],
            "seed": self.seed,
            "space": space,
            "evaluator": {"name": "told", "metric": self.metric, "goal": self.goal},
            "strategy": strategy,
            "budget": {"hours": _NO_LIMIT_HOURS} if self.trials is None else {"trials": self.trials},
        }
        return RunConfig.parse(yaml_text.dump(data), where=where)

    def search(self, where: str) -> Checked:
        """As a search that can begin. Raises as `config`."""
        config = self.config(where)
        strategy, evaluator = config.make_strategy(), config.make_evaluator()
        return Checked(config, make_manifest(config, evaluator.data_hash(), strategy.planned), None)


class Opened(NamedTuple):
    """A pool that is told, under its lease."""

    session: Session
    left: list[Trial]
    """Open trials of earlier drivers, by id."""


def open_told(url: str, search: Checked, budget: Callable[[Budget, Past], Budget], stack: ExitStack) -> Opened:
    """Open the pool of such a search, or make it; `stack` gives it free.

    Args:
        url: folder or URL of the pool.
        search: that it is of; its budget is that of a new pool.
        budget: what holds from now on, of what held and what the pool has.
        stack: ends the session, and then the lease.

    Raises:
        InputError: the pool is of another search, or has another driver.
    """
    pool, config, past = take_pool(url, search), search.config, Past()
    stack.enter_context(pool.acquire(ops=config.make_space().ops_by_cell))
    log = list(past.passing(pool.log()))
    limits = _budget(pool, past, budget)
    session = Session(pool, LocalProposer(config.make_strategy(earlier_of(pool)), log), limits, log=past)
    stack.callback(session.leave)
    pool.say("", limits.trials)
    return Opened(session, sorted(past.unfinished, key=lambda trial: trial.trial_id))


def _budget(pool: PoolWriter, past: Past, budget: Callable[[Budget, Past], Budget]) -> Budget:
    changed, first = pool.changed_budget(), config_of(pool.manifest, pool.url).budget
    limits = (first.trials, None if first.hours is None else first.hours * 3600)
    held = Budget(trials=limits[0], seconds=limits[1]) if changed is None else Budget(**changed.now._asdict())
    now = budget(held, past)
    if now != held:
        pool.record_budget(held.limits, now.limits)
    return now


def section(space: Space) -> dict[str, Any]:
    """The section of a config."""
    if isinstance(space, str):
        return {"name": space}
    if isinstance(space, Mapping):
        return dict(space)
    made = space() if isinstance(space, type) else space
    if made.name.startswith("__main__:"):
        raise ConfigError(
            f"the space {type(made).__name__} is defined in the script that runs, where nobody who opens the pool "
            "finds it: put it into a module"
        )
    return {"name": made.name, **made.config.model_dump(mode="json")}
