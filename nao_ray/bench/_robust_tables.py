"""The tables that strategies are compared on when none of them was tuned to all: many, and different.

Which half a table is in was settled before any search: the first two, on which everything had been tuned, are for
tuning, and after them every other one of the list, beginning with `report`, so of each pair of one kind one. What is
tuned, a setting, a model, a rule, is tuned on the half `tune`; what is said of it is said of the half `report`.

`make` writes a table as a file. What is random in one is drawn by its name, and is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.bench._cells_101 import Cells101
from nao_ray.bench._data import data_folder
from nao_ray.bench._landscape import Landscape
from nao_ray.bench._nlp_space import NlpRecipes
from nao_ray.bench._scored import darts_214
from nao_ray.errors import DataError
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

Floats = NDArray[np.float64]
KNOWN = 2
"""Tables at the head of the list on which strategies were tuned before there was a list."""
FOUR = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
"""Operations of the micro space of TransNAS-Bench-101 (Duan et al., CVPR 2021, arXiv 2105.11871): 4,096 cells."""
_RUNS = 8  # noisy results of each architecture, of which a query gives one


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One table of the suite."""

    name: str
    about: str
    make: Callable[[], pd.DataFrame] | None = None
    """Columns `arch_str`, `valid`, of which one is better than another if it is larger unless the settings say
    otherwise, `seconds` where trainings differ, and `run0`, ... where a query gives one of them; None: a formula."""
    space: Mapping[str, Any] = field(default_factory=lambda: {"name": "nas_bench_201"})
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the evaluator."""

    @property
    def half(self) -> str:
        """`tune` or `report`."""
        place = [entry.name for entry in SUITE].index(self.name)
        return "tune" if place < KNOWN or (place - KNOWN) % 2 else "report"

    def written(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The space and the evaluator of a search, as in a config; a file in `folder` if they need one.

        Raises:
            DataError: what it is made of is missing.
        """
        space = dict(self.space)
        if self.make is None:
            return space, dict(self.settings)
        frame, path = self.make(), folder / f"{self.name}.parquet"
        frame.to_parquet(path, index=False)
        if space["name"] == _LISTED:
            space["path"] = str(path)
        found = {
            "name": "tabular",
            "path": str(path),
            "valid": "valid",
            "metric": "score",
            "unit": "",
            "twins": "merge",
        }
        found |= {"cost": "seconds"} if "seconds" in frame else {}
        runs = [name for name in map(str, frame) if name.startswith("run")]
        return space, {**found, "runs": runs, **self.settings}


# -- what they are made of ------------------------------------------------------------------------------------


@cache
def _source(name: str, file: str) -> pd.DataFrame:
    path = data_folder() / name / f"{file}.parquet"
    if not path.is_file():
        raise DataError(f"no table {path}: say in NAO_RAY_DATA where the data are")
    return pd.read_parquet(path)


def _cells_201() -> pd.DataFrame:
    """All cells of NAS-Bench-201: accuracies and times, hardware, proxies (NaN where there is none)."""
    cells = _source("nas_bench_201", "nas_bench_201").set_index("index")
    hardware, proxies = (_source("nas_bench_201", file).set_index("index") for file in ("hardware", "zero_cost"))
    return cells.join(hardware).join(proxies).reset_index()


def _frame(cells: pd.DataFrame, valid: Floats | pd.Series, **runs: Floats) -> pd.DataFrame:
    seconds = cells["cifar10_valid_train_time_200_s"].to_numpy()
    return pd.DataFrame({"arch_str": cells["arch_str"], "valid": np.asarray(valid, float), "seconds": seconds, **runs})


def _share(values: Floats | pd.Series) -> Floats:
    """Ranks in [0, 1], 1 the largest; equal values have equal ones."""
    ranks = pd.Series(np.asarray(values, dtype=np.float64)).rank().to_numpy(dtype=np.float64)
    share: Floats = (ranks - 1) / (len(ranks) - 1)
    return share


def _column(name: str) -> pd.DataFrame:
    cells = _cells_201()
    cells = cells[cells[name].notna()]
    return _frame(cells, cells[name].clip(lower=cells[name][cells[name] > -1e7].min()))  # -1e8: could not be computed


def _runs(pattern: str) -> pd.DataFrame:
    """The truth is the mean of the trainings that there are."""
    cells = _cells_201()
    runs = [cells[pattern.format(number)].to_numpy() for number in range(3)]
    named = {f"run{number}": values for number, values in enumerate(runs)}
    return _frame(cells, np.nanmean(np.stack(runs), axis=0), **named)


def _noisy(name: str, column: str) -> pd.DataFrame:
    """Worse architectures scatter more, and of equally good ones some more than others; points of accuracy."""
    cells, draw = _cells_201(), rng.child(0, name)
    classes = cells["unique_index"].to_numpy()  # equal cells have equal results
    truth = cells[column].to_numpy(dtype=np.float64)
    spread = 0.3 * np.exp(draw.normal(0, 0.5, len(cells))) + 0.02 * (truth.max() - truth)
    noise = (draw.normal(size=(_RUNS, len(cells))) * spread)[:, classes]
    return _frame(cells, truth, **{f"run{number}": truth + row for number, row in enumerate(noise)})


def _without(column: str, op: str) -> pd.DataFrame:
    cells = _cells_201()
    cells = cells[~cells["arch_str"].str.contains(op)]
    return _frame(cells, cells[column])


def _rounded(column: str, step: float) -> pd.DataFrame:
    cells = _cells_201()
    return _frame(cells, (cells[column] / step).round() * step)


def _skewed(name: str, column: str) -> pd.DataFrame:
    """Ranks, disturbed by a fiftieth of the table, to a power: a long flat floor and a steep top."""
    cells = _cells_201()
    noise = rng.child(0, name).normal(0, 0.02, len(cells))[cells["unique_index"]]
    return _frame(cells, 100 * _share(_share(cells[column]) + noise) ** 12)


def _trade(column: str, cost: str) -> pd.DataFrame:
    cells = _cells_201()
    return _frame(cells, 100 * (_share(cells[column]) - 0.5 * _share(cells[cost])))


def _micro(name: str, of: Mapping[str, float], landscape: float, cap: float, noise: float) -> pd.DataFrame:
    """A task on the cells of four operations, each trained once, equal ones too.

    Args:
        name: of the table.
        of: how much columns count, by their ranks.
        landscape: how much a function of the graph counts, drawn by the name.
        cap: share of the cells from which on there is hardly anything to gain.
        noise: of a training, in deviations of the table before it is capped.
    """
    cells = _cells_201()
    cells = cells[~cells["arch_str"].str.contains("avg_pool")]
    space = NasBench201(NasBench201Config(ops=FOUR))
    function = Landscape(space, rng.child_seed(0, name))
    graph = np.array([function(space.canonical(space.parse(text))) for text in cells["arch_str"]])
    worth = landscape * _normal(graph) + sum(weight * _normal(cells[column]) for column, weight in of.items())
    worth = (worth - worth.mean()) / worth.std()
    flat = -np.logaddexp(0, -4 * (worth - np.quantile(worth, cap))) / 4
    return _frame(cells, 50 + 10 * (flat + noise * rng.child(0, name).normal(size=len(cells))))


def _normal(values: Floats | pd.Series) -> Floats:
    """The same ranks, with mean 0 and deviation 1."""
    share = _share(values)
    normal: Floats = (share - share.mean()) / share.std()
    return normal


def _cells_of_101(column: str) -> pd.DataFrame:
    found, space = _source("nas_bench_101_small", "ec_nas_4epochs"), Cells101()
    found = found[found["space"] == "5v"]
    texts = [
        space.canonical(space.parse(f"{adjacency} {ops}", "benchmark")).key
        for adjacency, ops in zip(found["adjacency"], found["operations"], strict=True)
    ]
    seconds = found["train_time_s"].to_numpy(dtype=np.float64)
    return pd.DataFrame({"arch_str": texts, "valid": found[column].to_numpy(dtype=np.float64), "seconds": seconds})


def _cells_of_darts() -> pd.DataFrame:
    scored = darts_214()
    return pd.DataFrame({"arch_str": [genotype.key for genotype in scored.genotypes], "valid": 100 * scored.scores})


def _cells_of_nlp() -> pd.DataFrame:
    found, space = _source("nas_bench_nlp_wikitext2", "nas_bench_nlp_wikitext2"), NlpRecipes()
    found = found[(found["status"] == "OK") & found["best_val_loss"].notna()]
    texts = [space.parse(text, "recipe").key for text in found["recepie"]]
    frame = pd.DataFrame({"arch_str": texts, "valid": found["best_val_loss"].to_numpy(dtype=np.float64)})
    frame["seconds"] = found["mean_epoch_time_s"].to_numpy(dtype=np.float64)
    return frame.groupby("arch_str", sort=False, as_index=False).mean()


# -- the list -------------------------------------------------------------------------------------------------

_LISTED, _FORMULA = "nao_ray.bench._listed:Listed", "nao_ray.bench._formula:Formula"
_DISTINCT = {"twins": "distinct"}
_LEAST = {"goal": "minimize"}
_SPACE_4 = {"name": "nas_bench_201", "ops": list(FOUR)}


def _task(name: str, about: str, of: Mapping[str, float], landscape: float, cap: float, noise: float) -> Entry:
    make = partial(_micro, name, of, landscape, cap, noise)
    return Entry(name=name, about=about, make=make, space=_SPACE_4, settings=_DISTINCT)


def _list(name: str, about: str, of: str, make: Callable[[], pd.DataFrame], goal: str = "maximize") -> Entry:
    settings = {"goal": goal, "twins": "merge"}
    return Entry(name=name, about=about, make=make, space={"name": _LISTED, "of": of}, settings=settings)


def _formula(name: str, about: str, space: str, **settings: float) -> Entry:
    return Entry(name=name, about=about, space={"name": space}, settings={"name": _FORMULA, **settings})


SUITE: Sequence[Entry] = (
    Entry(name="cifar10", about="CIFAR-10, 200 epochs", make=partial(_column, "cifar10_valid_acc_200")),
    Entry(name="cifar100", about="CIFAR-100, 200 epochs", make=partial(_column, "cifar100_valid_acc_200")),
    # pairs of a kind: the first is reported, the second is for tuning
    Entry(name="cifar10_12", about="CIFAR-10, 12 epochs", make=partial(_column, "cifar10_valid_acc_12")),
    Entry(name="cifar100_12", about="CIFAR-100, 12 epochs", make=partial(_column, "cifar100_valid_acc_12")),
    Entry(
        name="cifar100_runs",
        about="CIFAR-100: a query gives one of two or three trainings",
        make=partial(_runs, "cifar100_validtest_acc_200_run{}"),
    ),
    Entry(
        name="cifar10_runs",
        about="CIFAR-10: a query gives one of two or three trainings",
        make=partial(_runs, "cifar10_valid_acc_200_run{}"),
    ),
    Entry(
        name="cifar100_noise",
        about="CIFAR-100 with noise of 0.3 points and more, unlike for each cell",
        make=partial(_noisy, "cifar100_noise", "cifar100_valid_acc_200"),
    ),
    Entry(
        name="cifar10_noise",
        about="CIFAR-10 with noise of 0.3 points and more, unlike for each cell",
        make=partial(_noisy, "cifar10_noise", "cifar10_valid_acc_200"),
    ),
    Entry(
        name="four_ops_cifar100",
        about="CIFAR-100, cells without average pooling",
        make=partial(_without, "cifar100_valid_acc_200", "avg_pool"),
        space=_SPACE_4,
    ),
    Entry(
        name="no_conv3x3_cifar10",
        about="CIFAR-10, cells without 3x3 convolution",
        make=partial(_without, "cifar10_valid_acc_200", "nor_conv_3x3"),
        space={"name": "nas_bench_201", "ops": ["none", "skip_connect", "nor_conv_1x1", "avg_pool_3x3"]},
    ),
    _task("micro_scene", "four operations, flat top", {"cifar100_valid_acc_200": 1.0}, 0.3, 0.8, 0.03),
    _task("micro_object", "four operations, flat top, short training", {"cifar100_valid_acc_12": 1.0}, 0.3, 0.9, 0.05),
    _task("micro_jigsaw", "four operations, flat and noisy", {"cifar10_valid_acc_200": 1.0}, 0.5, 0.6, 0.05),
    _task("micro_room", "four operations, flatter and noisier", {"cifar100_valid_acc_12": 1.0}, 0.5, 0.5, 0.15),
    _task("micro_autoencoder", "four operations, another function", {"cifar10_fpga_energy_mj": 0.5}, 1.0, 0.95, 0.1),
    _task("micro_segment", "four operations, another function, flat", {"cifar10_valid_acc_12": 0.5}, 1.0, 0.8, 0.1),
    Entry(
        name="energy_eyeriss",
        about="energy on Eyeriss, least",
        make=partial(_column, "cifar10_eyeriss_energy_mj"),
        settings=_DISTINCT | _LEAST,
    ),
    Entry(
        name="trade_pixel3",
        about="rank by CIFAR-10 less half the rank by latency on Pixel 3",
        make=partial(_trade, "cifar10_valid_acc_200", "cifar10_pixel3_latency_ms"),
        settings=_DISTINCT,
    ),
    Entry(
        name="proxy_nwot",
        about="the proxy nwot; two of five cells are not in the table and fail",
        make=partial(_column, "cifar10_nwot"),
        settings=_DISTINCT | {"partial": True},
    ),
    Entry(
        name="proxy_jacov",
        about="the proxy jacov; two of five cells are not in the table and fail",
        make=partial(_column, "cifar10_jacov"),
        settings=_DISTINCT | {"partial": True},
    ),
    Entry(
        name="skewed_cifar100",
        about="CIFAR-100, ranks disturbed and to the power of 12",
        make=partial(_skewed, "skewed_cifar100", "cifar100_valid_acc_200"),
    ),
    Entry(
        name="rounded_cifar10",
        about="CIFAR-10 to a fifth of a point: plateaus, several best",
        make=partial(_rounded, "cifar10_valid_acc_200", 0.2),
    ),
    _list(
        "nas_bench_101", "NAS-Bench-101 to 5 vertices, 4 epochs", "nas_bench_101", partial(_cells_of_101, "valid_acc")
    ),
    _list(
        "energy_101", "the same cells, energy, least", "nas_bench_101", partial(_cells_of_101, "energy_kwh"), "minimize"
    ),
    _list("darts_214", "214 cells of DARTS", "darts_cnn", _cells_of_darts),
    _list(
        "nlp_wikitext2", "263 recurrent cells of NAS-Bench-NLP, loss, least", "nas_bench_nlp", _cells_of_nlp, "minimize"
    ),
    _formula("nao_cnn", "a function of the cells of NAO", "nao_cnn", seed=1, best=1.1052127, median=0.8998315),
    _formula(
        "nao_cnn_small", "a function, with noise", "nao_cnn_small", seed=2, noise=0.5, best=1.1265071, median=0.8996231
    ),
)
