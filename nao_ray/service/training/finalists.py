"""The best of a pool trained again, alone and more thoroughly, in a pool of their own; the first is only read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nao_ray import yaml_text
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.report.control import best_found
from nao_ray.service.hosting.manifest import config_of
from nao_ray.service.training.tuning import Tuning
from nao_ray.skeletons.base import skeleton_of
from nao_ray.training.recipe import Recipe, full_training

_EPOCHS_FACTOR = 5
"""Times as many epochs as in the search, where no recipe says how many."""


def finalists_config(
    pool: PoolReader,
    count: int,
    recipe: str | None,
    overrides: tuple[str, ...] = (),
    *,
    with_control: bool = False,
    tuning: Tuning | None = None,
) -> RunConfig:
    """The search that trains the best `count` of a pool again; validation ranks them.

    Args:
        pool: of the first search.
        count: how many architectures, at least 1; fewer where fewer were completed.
        recipe: size, epochs and recipe of this full training; None: the pool's own, 5 times the epochs, all data; a
            cosine that would end before them is stretched to their number.
        overrides: ``section.key=value`` of `evaluator`, `workers` or `seed`.
        with_control: cells of a random control may be among them.
        tuning: each is trained under several settings of the recipe, one training for each (`repeats` is 1).

    Raises:
        PoolError: nothing was completed.
        ConfigError: nothing was trained in the first search, or an override or a value to be tried is not valid.
    """
    first = config_of(pool.manifest, pool.url)
    best = _best(pool, count, with_control=with_control)
    if not best:
        raise PoolError(f"{pool.url} has no completed trial, so no finalists")
    data = first.to_data()
    data |= {
        "name": f"{first.name}-finalists"[:100],
        "evaluator": _evaluator(data, recipe, skeleton_of(first.make_space()).sizes.model_fields),
        "strategy": {"name": "given", "genotypes": best},
        "budget": {"trials": len(best)},
    }
    for override in overrides:
        if override.partition("=")[0].partition(".")[0].strip() not in ("evaluator", "workers", "seed"):
            raise ConfigError(f"--set {override}: of finalists, only evaluator, workers and seed may be set")
    where = f"finalists of {pool.url}"
    if tuning is not None:
        data["evaluator"]["repeats"] = 1
    config = RunConfig.parse(yaml_text.dump(data), overrides, where=where)
    if recipe is None and _cosine_ends_early(config):  # the override of a user stands
        overrides = ("evaluator.recipe.cosine_epochs=null", *overrides)
        config = RunConfig.parse(yaml_text.dump(data), overrides, where=where)
    if tuning is None:
        return config
    genotypes, settings = tuning.checked(config).trials(best, config.seed)
    data |= {
        "strategy": {"name": "given", "genotypes": genotypes, "settings": settings},
        "budget": {"trials": len(genotypes)},
    }
    return RunConfig.parse(yaml_text.dump(data), overrides, where=where)


def _best(pool: PoolReader, count: int, *, with_control: bool) -> list[str]:
    """The genotypes of the best trials, each once."""
    take = count
    while True:
        best = best_found(pool, take, with_control=with_control)
        genotypes: list[str] = best["genotype"].drop_duplicates().tolist()
        if len(genotypes) >= count or len(best) < take:
            return genotypes[:count]
        take *= 4


def _cosine_ends_early(config: RunConfig) -> bool:
    settings = config.evaluator.settings
    recipe = Recipe.model_validate(settings["recipe"])
    return (
        recipe.restart_factor is None and recipe.cosine_epochs is not None and recipe.cosine_epochs < settings["epochs"]
    )


def _evaluator(data: dict[str, Any], recipe: str | None, sizes: Collection[str]) -> dict[str, Any]:
    settings = dict(data["evaluator"])
    name = settings.pop("name")
    if "alone" in settings and settings["alone"].get("name") == "tabular":
        if recipe is None:
            raise ConfigError("the search has looked its architectures up in a table: give --recipe to train them")
        settings = {"device": settings["device"]}
    elif "alone" in settings:  # beside shared weights or alphas
        settings = {**settings["alone"], "device": settings["device"]}
    elif name != "standalone":
        raise ConfigError(f"the evaluator {name} trains nothing: there are no finalists to train again")
    if recipe is None:
        more = {"epochs": _EPOCHS_FACTOR * settings["epochs"], "data_share": 1.0}
    else:
        plan = {key: value for key, value in full_training(recipe, sizes).items() if key != "data"}
        more = {**plan, "data_share": 1.0, "repeats": 1}
    return {"name": "standalone", **settings, **more}
