"""Architectures with their scores, of tables and pools: what predictors are judged by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray import config_components, own_modules, registry
from nao_ray.bench._data import data_folder
from nao_ray.bench._nlp_space import NlpRecipes
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.pool import PoolReader
from nao_ray.report.tables import of_one_rung
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.yaml_text import load_document

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """A table's architectures, each once."""

    space: SearchSpace[Any]
    genotypes: list[Genotype]
    """N."""
    tokens: NDArray[np.int64]
    """``[N, L]``."""
    scores: Floats
    """``[N]``, more is better."""
    parameters: Floats | None = None
    """``[N]``, where they are known."""
    rung: int | None = None
    """Epochs of the rung that they are of; None: of no ladder of fidelities."""

    @classmethod
    def of(
        cls, space: SearchSpace[Any], genotypes: Iterable[Genotype], scores: Floats, parameters: Floats | None = None
    ) -> Scored:
        """Equal architectures are one, of their mean score: folds must not share any."""
        frame = pd.DataFrame({"genotype": list(map(space.canonical, genotypes)), "score": scores})
        frame["parameters"] = np.nan if parameters is None else parameters
        frame = frame.groupby("genotype", sort=False).mean()
        found = list(frame.index)
        sizes = None if frame["parameters"].isna().any() else frame["parameters"].to_numpy(dtype=np.float64)
        tokens = np.stack([space.encode(genotype) for genotype in found])
        return cls(space, found, tokens, frame["score"].to_numpy(dtype=np.float64), sizes)


def nas_bench_201(settings: Mapping[str, Any]) -> Scored:
    """A table of NAS-Bench-201: validation accuracies."""
    config = RunConfig(
        name="predictor",
        space=Component(name="nas_bench_201"),
        evaluator=Component(**settings),
        strategy=Component(name="random_search"),
        budget=Budget(trials=1),
    )
    table = config.make_evaluator()
    assert isinstance(table, Tabular)
    genotypes = sorted(table.genotypes(), key=str)
    return Scored.of(table.space, genotypes, np.array([table.valid(genotype) for genotype in genotypes]))


def darts_214() -> Scored:
    """The 214 random DARTS cells: test accuracies.

    Raises:
        DataError: the table is missing.
    """
    space: SearchSpace[Any] = registry.load("space", "darts_cnn")()
    frame = pd.read_parquet(_table("darts_random_214", "darts"))
    texts = [
        json.dumps({"normal": json.loads(normal), "reduce": json.loads(reduce)})
        for normal, reduce in zip(frame["normal"], frame["reduce"], strict=True)
    ]
    genotypes = [space.parse(text, "genotype") for text in texts]
    return Scored.of(space, genotypes, frame["final_test_acc"].to_numpy(dtype=np.float64) / 100)


def nas_bench_nlp() -> Scored:
    """Recurrent cells on WikiText-2: negative validation losses in nats, of those whose training ended.

    Raises:
        DataError: the table is missing.
    """
    space = NlpRecipes()
    frame = pd.read_parquet(_table("nas_bench_nlp_wikitext2", "nlp"))
    frame = frame[(frame["status"] == "OK") & frame["best_val_loss"].notna()]
    genotypes = [space.parse(text, "recipe") for text in frame["recepie"]]
    losses, sizes = (frame[name].to_numpy(dtype=np.float64) for name in ("best_val_loss", "num_params"))
    return Scored.of(space, genotypes, -losses, sizes)


def of_pool(url: str, fewest: int) -> Scored:
    """What has been trained in a search, of a ladder on its highest rung that has enough.

    Args:
        url: of the pool.
        fewest: architectures that there have to be.

    Raises:
        ConfigError: there are fewer.
        PoolError: there is no pool.
    """
    pool = PoolReader.open(url)
    space, metric = _space(pool), pool.metric
    names = ["genotype", "state", "num_params", "weights_version", "epochs", "parent_trial_id", metric.column]
    rows = pool.trials(names, rungs=True)
    rows = rows[(rows["state"] == "COMPLETED") & rows["weights_version"].isna() & rows[metric.column].notna()]
    rows = of_one_rung(rows, fewest)
    genotypes = [Genotype(space.name, text) for text in rows["genotype"].dropna()]
    if len(set(genotypes)) < fewest:
        raise ConfigError(f"{url}: has {len(set(genotypes))} architectures trained alone, expected {fewest} or more")
    values = rows[metric.column].to_numpy(dtype=np.float64)
    sizes = rows["num_params"].to_numpy(dtype=np.float64, na_value=np.nan)
    scored = Scored.of(space, genotypes, np.array([metric.score(value) for value in values]), sizes)
    return replace(scored, rung=int(rows["epochs"].max())) if pool.rungs else scored


def _space(pool: PoolReader) -> SearchSpace[Any]:
    own_modules.refuse_missing(pool.manifest.get("own_modules", {}), pool.url)
    config = pool.manifest["config"]
    return config_components.make_space((load_document(config) if isinstance(config, str) else config)["space"])


def _table(name: str, setting: str) -> Path:
    path = data_folder() / name / f"{name}.parquet"
    if not path.is_file():
        raise DataError(f"no table {path}: say in NAO_RAY_DATA where the data are, or give {setting}=false")
    return path
