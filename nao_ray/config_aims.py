"""Limits, objectives and preferences of a config: what of them can be kept, and what a strategy is given of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from nao_ray import rng
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Evaluator
from nao_ray.limits import MEASURED, Limits
from nao_ray.pareto import Aim, check_objectives
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.spaces.parts.within import within
from nao_ray.strategies.base import Strategy

if TYPE_CHECKING:
    from nao_ray.config import RunConfig

_REMEMBERED = 200_000  # genotypes, each counted once

Figures = Callable[[Genotype], Mapping[str, float]]
S = TypeVar("S", bound=SearchSpace[Any])


def others(objectives: Sequence[str]) -> tuple[str, ...]:
    """Columns of the objectives but the metric's."""
    return tuple(each.column for each in map(Aim.parse, objectives) if not each.column.startswith("valid_"))


def check_aims(config: RunConfig, strategy: type[Strategy[Any]], evaluator: type[Evaluator[Any]]) -> None:
    """Refuse what this strategy and this evaluator cannot keep to.

    Raises:
        ConfigError: limits, objectives or preferences that are such.
    """
    name, settings = config.strategy.name, config.evaluator_config
    if config.space.preferences is not None and strategy.trains == "alphas":
        raise ConfigError(
            f"space.ops: {name} weighs all operations of a space; leave without and favour out", "space.ops"
        )
    if config.limits:
        if not strategy.keeps_limits:
            raise ConfigError(
                f"constraints: the strategy {name} cannot keep them, what it comes to is known when it has trained; "
                "leave them out, or take another strategy",
                "constraints",
            )
        evaluator.check_limits(settings, config.limits)
    if config.objectives:
        metric = evaluator.metric(settings, None if config.task is None else config.make_task())
        check_objectives(config.objectives, metric, evaluator.recorded(settings))
        _check_ranking(config, strategy, evaluator)


def _check_ranking(config: RunConfig, strategy: type[Strategy[Any]], evaluator: type[Evaluator[Any]]) -> None:
    name = config.strategy.name
    if not strategy.ranks_several:
        raise ConfigError(
            f"objectives: the strategy {name} knows the score alone: take nao, regularized_evolution or random_search",
            "objectives",
        )
    if strategy.foresees and MEASURED in others(config.objectives) and evaluator.needs_task:
        raise ConfigError(
            f"objectives: {name} chooses by what is known before a training, and {MEASURED} is not: limit it "
            "(constraints), aim at macs, or take regularized_evolution",
            "objectives",
        )


def limited(space: S, limits: Limits, figures: Figures, seed: int) -> S:
    """The space within the limits, if there are any.

    Raises:
        ConfigError: they leave next to nothing.
    """
    if not limits:
        return space
    made = within(space, limits, figures)
    made.sample(rng.child(seed, "constraints"))
    return made


def aim(strategy: Strategy[Any], objectives: Sequence[str], figures: Figures) -> None:
    """Give a strategy its objectives; of each genotype figures are asked for once."""
    strategy.objectives = tuple(each for each in map(Aim.parse, objectives) if each.column in others(objectives))
    strategy.figures = lru_cache(maxsize=_REMEMBERED)(figures)
