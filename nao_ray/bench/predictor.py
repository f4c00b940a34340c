"""How well NAO's predictors rank architectures they have not seen, from few that they have.

NAS-Bench-201: fitted to the validation accuracies of random cells, asked about all others. By five-fold
cross-validation: the 214 random DARTS cells trained for 600 epochs (Yang, Esperança, Carlucci, ICLR 2020, arXiv
1912.12522), the recurrent cells of NAS-Bench-NLP on WikiText-2 (Klyuchnikov et al., arXiv 2006.07116), and what is in a
pool of one's own.

    nao-ray bench predictor sizes=50,100,200 repeats=10
    nao-ray bench predictor pool=pools/texts predictors=gp,mlp,operations

Kendall's tau is that of predicted and true scores. N@10 is the true rank, 1 for the best of all, of the best among the
ten predicted highest (Ning, Zheng, Zhao, Wang, Yang, ECCV 2020, arXiv 2004.01899). `gp` is the predictor of `nao`,
a process on descriptors of the graph; `embedding` the same on what the pretrained encoder makes of the tokens; `mlp`
the published one, encoder and all fitted to the scores. Those that cost nothing: `operations`, least squares on how
often a cell has each operation, and `parameters`, the more the better.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau

from nao_ray import rng
from nao_ray.bench import _scored
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._scored import Floats, Scored
from nao_ray.bench.tabular import tables
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.fit import Draws, fit
from nao_ray.controllers.gp_controller import fit_process
from nao_ray.controllers.pretraining import Pretrained, pretrain
from nao_ray.errors import ConfigError
from nao_ray.standings import after
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.parts.shared_search import audit

Rows = NDArray[np.int64]

PREDICTORS: Mapping[str, Mapping[str, Any]] = {
    "gp": {},
    "embedding": {"gp": {"views": ["embedding"]}},
    "mlp": {"predictor": "mlp"},
}
"""Settings of the strategy `nao`, by the name the predictor has here."""
FREE = ("operations", "parameters")
FOLDS = 5
TOP = 10


def run(
    predictors: str = "gp,operations",
    datasets: str = "cifar10,cifar100",
    sizes: int | str = "50,100,200",
    repeats: int = 10,
    darts: bool = True,
    nlp: bool = True,
    pool: str = "",
    seed: int = 0,
) -> BenchResult:
    """Fit each predictor to random subsets of each table, and rank the rest.

    Args:
        predictors: gp, embedding, mlp, operations, parameters, by commas; an `mlp` takes a minute or more a fit.
        datasets: of NAS-Bench-201, by commas.
        sizes: training architectures there, by commas.
        repeats: random subsets; of what is cross-validated, random partitions into five folds.
        darts: with the 214 DARTS cells.
        nlp: with the recurrent cells of NAS-Bench-NLP.
        pool: folder or address of a pool, whose architectures are then the only ones.
        seed: of the subsets and of the predictors.

    Raises:
        ConfigError: there is no such predictor, or a number is not one; the pool has fewer than ten architectures.
        DataError: a table is missing; ``$NAO_RAY_DATA`` says where they are.
    """
    names, known = [name.strip() for name in predictors.split(",")], (*PREDICTORS, *FREE)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"bench predictor: no predictor {unknown[0]!r}; there are {', '.join(known)}")
    counts = _counts(sizes, repeats)
    folded: dict[str, Scored] = {}
    if pool:
        folded[str(pool)] = _scored.of_pool(str(pool), 2 * FOLDS)
    else:
        folded |= {"darts_random_214": _scored.darts_214()} if darts else {}
        folded |= {"nas_bench_nlp_wikitext2": _scored.nas_bench_nlp()} if nlp else {}
    work = [
        *(() if pool else _on_nas_bench_201(datasets, counts, repeats, seed)),
        *(fold for table, scored in folded.items() for fold in _by_folds(table, scored, repeats, seed)),
    ]
    if "parameters" in names and (lost := [table for table, scored, *_ in work if scored.parameters is None]):
        raise ConfigError(f"bench predictor: the numbers of parameters in {lost[0]} are not known; leave them out")
    found: dict[tuple[str, str, str], list[Fit]] = {}
    console = Console(stderr=True)
    for table, scored, size, train, test in track(work, "fits", console=console, disable=not console.is_terminal):
        for name in names:
            found.setdefault((table, name, size), []).append(Fit.of(name, scored, train, test, seed))
    rows = [[*key, len(fits), *_line(fits)] for key, fits in found.items()]
    return BenchResult(
        name="predictor",
        columns=["table", "predictor", "trained on", "n", "Kendall tau", f"N@{TOP}", "of", "CPU s a fit"],
        rows=[[*row[:6], _rest(work, row[0], row[2]), row[6]] for row in rows],
        notes=[
            f"n fits each, mean ± standard error. N@{TOP}: true rank of the best among the {TOP} predicted highest, of "
            "so many that the predictor has not seen; median.",
            *(
                _whole(table, folded[table], name, fits, seed)
                for (table, name, _), fits in found.items()
                if table in folded
            ),
            *(f"{table}: those {after(of.rung)}." for table, of in folded.items() if of.rung is not None),
            machine(),
        ],
        data={"fits": [[*key, *([fit.tau, fit.best, fit.seconds] for fit in fits)] for key, fits in found.items()]},
    )


_Work = tuple[str, Scored, str, Rows, Rows]
"""Table, its architectures, a name for the size of the training set, rows to train on, rows to rank."""


def _on_nas_bench_201(datasets: str, sizes: Sequence[int], repeats: int, seed: int) -> Iterator[_Work]:
    columns = {"valid": None, "test": None, "cost": None}
    for dataset, settings in tables(None, datasets, columns).items() if datasets else ():
        scored = _scored.nas_bench_201(settings)
        for repeat in range(repeats):
            order = rng.child(seed, "predictor subset", repeat).permutation(len(scored.scores))
            for size in sizes:
                yield dataset, scored, str(size), order[:size], order[max(sizes) :]


def _by_folds(table: str, scored: Scored, repeats: int, seed: int) -> Iterator[_Work]:
    for repeat in range(repeats):
        order = rng.child(seed, "predictor folds", repeat).permutation(len(scored.scores))
        for fold in np.array_split(order, FOLDS):
            yield table, scored, f"{FOLDS - 1}/{FOLDS}", np.setdiff1d(order, fold), fold


@dataclass(frozen=True, slots=True)
class Fit:
    """What one says of the rows it was asked about."""

    tau: float
    """Kendall's; NaN where it says the same of all."""
    best: float
    """N@10."""
    seconds: float
    """CPU seconds of the fit."""
    rows: Rows
    predicted: Floats
    """As `rows`."""

    @classmethod
    def of(cls, name: str, scored: Scored, train: Rows, test: Rows, seed: int) -> Fit:
        """Fit a predictor; pretraining, which a search does once, is not in its time."""
        config = NaoConfig(**PREDICTORS.get(name, {}))
        is_process = name not in FREE and config.predictor == "gp"
        pretrained = (
            pretrain(scored.space, config.epd, config.pretraining, seed, config.gp.views) if is_process else None
        )
        began = time.process_time()
        with one_thread():
            predict = _free(name, scored, train) if name in FREE else _fitted(config, pretrained, scored, train, seed)
            seconds = time.process_time() - began
            predicted, truth = predict(test), scored.scores[test]
        return cls(float(kendalltau(predicted, truth).statistic), best_rank(predicted, truth), seconds, test, predicted)


def best_rank(predicted: Floats, truth: Floats, top: int = TOP) -> int:
    """N@top: rank in ``[N]`` true scores, from 1, of the best among the `top` predicted highest."""
    chosen = np.argsort(-predicted, kind="stable")[:top]
    return int((truth > truth[chosen].max()).sum()) + 1


def _fitted(
    config: NaoConfig, pretrained: Pretrained | None, scored: Scored, train: Rows, seed: int
) -> Callable[[Rows], Floats]:
    space, tokens, scores = scored.space, scored.tokens[train], scored.scores[train]
    if pretrained is not None:
        process, _ = fit_process(space, pretrained, tokens, scores, config.spread_weight, config.gp)
        return lambda asked: process.predict(scored.tokens[asked])[0]
    controller, _ = fit(space, tokens, scores, epd=config.epd, config=config.fit, draws=Draws(seed))
    return lambda asked: controller.predict(scored.tokens[asked])[0]


def _free(name: str, scored: Scored, train: Rows) -> Callable[[Rows], Floats]:
    if name == "parameters":
        sizes = scored.parameters
        assert sizes is not None
        return lambda asked: sizes[asked]
    lowered = [Counter(op for ops in scored.space.ops_by_cell(g).values() for op in ops) for g in scored.genotypes]
    kinds = sorted(set().union(*lowered))
    counts = np.array([[1.0, *(ops[kind] for kind in kinds)] for ops in lowered])
    weights = np.linalg.lstsq(counts[train], scored.scores[train], rcond=None)[0]
    return lambda asked: counts[asked] @ weights


def _counts(sizes: int | str, repeats: int) -> list[int]:
    words = str(sizes).split(",")
    if repeats < 1 or not all(word.strip().isdecimal() and int(word) >= 2 for word in words):
        raise ConfigError(f"bench predictor: repeats >= 1 and sizes >= 2 by commas, got {repeats} and {sizes}")
    return [int(word) for word in words]


def _line(fits: Sequence[Fit]) -> list[object]:
    tau = np.array([fit.tau for fit in fits])
    error = tau.std(ddof=1) / np.sqrt(len(tau)) if len(tau) > 1 else np.nan
    told = "none" if np.isnan(tau).any() else f"{tau.mean():.3f} ± {error:.3f}"
    return [told, float(np.median([fit.best for fit in fits])), float(np.mean([fit.seconds for fit in fits]))]


def _whole(table: str, scored: Scored, name: str, fits: Sequence[Fit], seed: int) -> str:
    """Of all architectures, each predicted by the fits that had not seen it."""
    predicted, count = np.zeros(len(scored.scores)), len(fits) / FOLDS
    for fit_ in fits:
        predicted[fit_.rows] += fit_.predicted / count
    told = audit(predicted, scored.scores, seed)
    numbers = [value for key in ("audit_tau", "audit_tau_low", "audit_tau_high") if (value := told[key]) is not None]
    if not numbers:
        return f"{name} ranks none of {table}: it says the same of all."
    tau, low, high = numbers
    of = f"{name}, all {len(predicted)} of {table}, each by fits that had not seen it"
    return f"{of}: tau {tau:.3f}, 95 % of resamples in [{low:.3f}, {high:.3f}]."


def _rest(work: Sequence[_Work], table: object, size: object) -> int:
    return next(len(test) for name, _, of, _, test in work if (name, of) == (table, size))
