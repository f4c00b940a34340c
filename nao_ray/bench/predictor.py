"""How well NAO's predictors rank architectures they have not seen, from few that they have.

NAS-Bench-201: fitted to the validation accuracies of random cells, asked about all others. The 214 random DARTS cells
trained for 600 epochs (Yang, Esperança, Carlucci, ICLR 2020, arXiv 1912.12522): five-fold cross-validation.

    nao-ray bench predictor sizes=50,100,200 repeats=10

Kendall's tau is that of predicted and true scores. N@10 is the true rank, 1 for the best of all, of the best among the
ten predicted highest (Ning, Zheng, Zhao, Wang, Yang, ECCV 2020, arXiv 2004.01899).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau

from nao_ray import registry, rng
from nao_ray.bench._data import data_folder
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench.tabular import tables
from nao_ray.config import Budget, Component, RunConfig
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.fit import fit
from nao_ray.controllers.gp_controller import fit_process
from nao_ray.controllers.pretraining import pretrain
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular
from nao_ray.spaces.base import SearchSpace
from nao_ray.strategies.parts.nao_config import NaoConfig

Floats = NDArray[np.float64]
Predict = Callable[[NDArray[np.int64], Floats], Callable[[NDArray[np.int64]], Floats]]
"""Fits to ``[N, L]`` tokens and ``[N]`` scores; what comes back predicts ``[M]`` scores of ``[M, L]`` tokens."""

PREDICTORS: Mapping[str, Mapping[str, Any]] = {
    "gp": {},
    "mlp": {"predictor": "mlp"},
}
"""Settings of the strategy `nao`, by the name the predictor has here."""
FOLDS = 5
TOP = 10


@dataclass(frozen=True, slots=True)
class _Scored:
    """A table's architectures."""

    space: SearchSpace[Any]
    tokens: NDArray[np.int64]
    """``[N, L]``."""
    scores: Floats
    """``[N]``."""


def run(
    predictors: str = "gp",
    datasets: str = "cifar10,cifar100",
    sizes: int | str = "50,100,200",
    repeats: int = 10,
    darts: bool = True,
    seed: int = 0,
) -> BenchResult:
    """Fit each predictor to random subsets of each table, and rank the rest.

    Args:
        predictors: of `PREDICTORS`, by commas; an `mlp`, fitted as published, takes a minute or more a fit.
        datasets: of NAS-Bench-201, by commas.
        sizes: training architectures, by commas.
        repeats: random subsets; for the DARTS cells, random partitions into five folds.
        darts: with the 214 DARTS cells.
        seed: of the subsets and of the predictors.

    Raises:
        ConfigError: there is no such predictor, or a number is not one.
        DataError: a table is missing; ``$NAO_RAY_DATA`` says where they are.
    """
    names = [name.strip() for name in predictors.split(",")]
    if unknown := [name for name in names if name not in PREDICTORS]:
        raise ConfigError(f"bench predictor: no predictor {unknown[0]!r}; there are {', '.join(PREDICTORS)}")
    counts = _counts(sizes, repeats)
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    work = [*_on_nas_bench_201(datasets, counts, repeats, seed), *(_on_darts(repeats, seed) if darts else ())]
    console = Console(stderr=True)
    for table, scored, size, train, test in track(work, "fits", console=console, disable=not console.is_terminal):
        for name in names:
            found.setdefault((table, name, size), []).append(_measure(name, scored, train, test, seed))
    rows = [[*key, len(values), *_line(np.array(values))] for key, values in found.items()]
    return BenchResult(
        name="predictor",
        columns=["table", "predictor", "trained on", "n", "Kendall tau", f"N@{TOP}", "of", "CPU s a fit"],
        rows=[[*row[:6], _rest(work, row[0], row[2]), row[6]] for row in rows],
        notes=[
            f"n fits each, mean ± standard error. N@{TOP}: true rank of the best among the {TOP} predicted highest, of "
            "so many that the predictor has not seen; median.",
            machine(),
        ],
        data={"fits": [[*key, *map(list, values)] for key, values in found.items()]},
    )


_Work = tuple[str, _Scored, str, NDArray[np.int64], NDArray[np.int64]]
"""Table, its architectures, a name for the size of the training set, rows to train on, rows to rank."""


def _on_nas_bench_201(datasets: str, sizes: Sequence[int], repeats: int, seed: int) -> Iterator[_Work]:
    columns = {"valid": None, "test": None, "cost": None}
    for dataset, settings in tables(None, datasets, columns).items() if datasets else ():
        scored = _nas_bench_201(settings)
        for repeat in range(repeats):
            order = rng.child(seed, "predictor subset", repeat).permutation(len(scored.scores))
            for size in sizes:
                yield dataset, scored, str(size), order[:size], order[max(sizes) :]


def _nas_bench_201(settings: Mapping[str, Any]) -> _Scored:
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
    tokens = np.stack([table.space.encode(genotype) for genotype in genotypes])
    return _Scored(table.space, tokens, np.array([table.valid(genotype) for genotype in genotypes]))


def _on_darts(repeats: int, seed: int) -> Iterator[_Work]:
    path = data_folder() / "darts_random_214" / "darts_random_214.parquet"
    if not path.is_file():
        raise DataError(f"no table {path}: say in NAO_RAY_DATA where the data are, or give darts=false")
    scored = _darts(path)
    for repeat in range(repeats):
        order = rng.child(seed, "predictor folds", repeat).permutation(len(scored.scores))
        for fold in np.array_split(order, FOLDS):
            yield "darts_random_214", scored, f"{FOLDS - 1}/{FOLDS}", np.setdiff1d(order, fold), fold


def _darts(path: Path) -> _Scored:
    space: SearchSpace[Any] = registry.load("space", "darts_cnn")()
    frame = pd.read_parquet(path, columns=["normal", "reduce", "final_test_acc"])
    texts = [
        json.dumps({"normal": json.loads(normal), "reduce": json.loads(reduce)})
        for normal, reduce in zip(frame["normal"], frame["reduce"], strict=True)
    ]
    tokens = np.stack([space.encode(space.canonical(space.parse(text, "genotype"))) for text in texts])
    return _Scored(space, tokens, frame["final_test_acc"].to_numpy(dtype=np.float64) / 100)


def _measure(
    name: str, scored: _Scored, train: NDArray[np.int64], test: NDArray[np.int64], seed: int
) -> tuple[float, float, float]:
    """Kendall's tau, N@10, CPU seconds of the fit."""
    began = time.process_time()
    with one_thread():
        predict = _fitted(NaoConfig(**PREDICTORS[name]), scored, train, seed)
        seconds = time.process_time() - began
        predicted = predict(scored.tokens[test])
    truth = scored.scores[test]
    return float(kendalltau(predicted, truth).statistic), float(best_rank(predicted, truth)), seconds


def best_rank(predicted: Floats, truth: Floats, top: int = TOP) -> int:
    """N@top: rank in ``[N]`` true scores, from 1, of the best among the `top` predicted highest."""
    chosen = np.argsort(-predicted, kind="stable")[:top]
    return int((truth > truth[chosen].max()).sum()) + 1


def _fitted(
    config: NaoConfig, scored: _Scored, train: NDArray[np.int64], seed: int
) -> Callable[[NDArray[np.int64]], Floats]:
    space, tokens, scores = scored.space, scored.tokens[train], scored.scores[train]
    if config.predictor == "gp":
        pretrained = pretrain(space, config.epd, config.pretraining, seed)
        process, _ = fit_process(space, pretrained, tokens, scores, config.spread_weight, config.gp)
        return lambda asked: process.predict(asked)[0]
    controller, _ = fit(space, tokens, scores, epd=config.epd, config=config.fit, seed=seed)
    return lambda asked: controller.predict(asked)[0]


def _counts(sizes: int | str, repeats: int) -> list[int]:
    words = str(sizes).split(",")
    if repeats < 1 or not all(word.strip().isdecimal() and int(word) >= 2 for word in words):
        raise ConfigError(f"bench predictor: repeats >= 1 and sizes >= 2 by commas, got {repeats} and {sizes}")
    return [int(word) for word in words]


def _line(values: Floats) -> list[object]:
    tau = values[:, 0]
    error = tau.std(ddof=1) / np.sqrt(len(tau)) if len(tau) > 1 else np.nan
    return [f"{tau.mean():.3f} ± {error:.3f}", float(np.median(values[:, 1])), float(values[:, 2].mean())]


def _rest(work: Sequence[_Work], table: object, size: object) -> int:
    return next(len(test) for name, _, of, _, test in work if (name, of) == (table, size))
