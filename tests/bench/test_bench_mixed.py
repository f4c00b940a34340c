"""Priors of a search on a table: what each is told, how they are compared, and that a study goes on."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from nao_ray.bench import mixed
from nao_ray.bench._study import write_row
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.tabular import Tabular
from nao_ray.metric import ACCURACY, to_plain
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

OPS = ("none", "skip_connect", "nor_conv_1x1")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    space = NasBench201(NasBench201Config(ops=OPS))
    texts = [space.decode(1 + np.array(row)).key for row in np.ndindex((3,) * 6)]
    worth = {space.canonical(Genotype(space.name, text)).key: float(k) for k, text in enumerate(texts)}
    path = tmp_path_factory.mktemp("mixed") / "table.csv"
    values = [worth[space.canonical(Genotype(space.name, text)).key] / 10 for text in texts]
    pd.DataFrame({"arch_str": texts, "worth": values}).to_csv(path, index=False)
    return Tabular(space, None, TabularConfig(path=str(path), valid="worth", twins="merge"))


@pytest.fixture
def done(table, monkeypatch):
    """Searches that were made: (label, seed, what it was told). One with a prior of tau > 0.5 is at the best sooner."""
    made = []

    def perform(search, earlier, kept):
        made.append((search.label, search.seed, earlier))
        good = bool(earlier) and _tau(table, earlier[0]) > 0.5
        kept.fits += [{"round": 1, "warm_start": "on" if good else "off"}] if earlier else [{"round": 1}]
        curve = [0.5] * 4 + [0.9 if good else 0.6] * (search.max_queries - 4)
        about = {"queries_to_optimum": None, "max_queries": search.max_queries, "best_valid_of_table": 0.9}
        return about | {"curve_valid": curve, "metric": json.dumps(to_plain(ACCURACY))}

    monkeypatch.setattr(mixed, "perform", perform)
    monkeypatch.setattr(mixed, "open_table", lambda _: (table, "hash"))
    monkeypatch.setattr(mixed, "made", lambda work, todo, _: {k: work(job) for k, job in todo.items()})
    return made


def _tau(table, earlier):
    truth = [table.valid(Genotype(table.space.name, key)) for key in earlier.genotypes]
    return kendalltau(earlier.scores, truth).statistic


def test_every_prior_is_told_to_the_same_search_and_compared_with_none(table, done, tmp_path):
    cells = table.genotypes()[::3]
    scores = tmp_path / "uniform.parquet"
    row = {"cells": [cell.key for cell in cells], "scores": [table.valid(cell) for cell in cells]}
    write_row(scores, row)
    given = {"scores": str(scores), "taus": "0.2,0.8", "cells": 100, "seeds": 2, "max_queries": 8}
    result = mixed.run(**given, results=str(tmp_path / "study"))
    told = {(label, seed): earlier for label, seed, earlier in done}
    assert told["nao", 0] == told["random_search", 1] == ()
    assert _tau(table, told["uniform", 0][0]) == pytest.approx(1.0)
    shuffled = [told["uniform, shuffled", seed][0] for seed in (0, 1)]
    assert shuffled[0].genotypes == told["uniform", 0][0].genotypes
    assert shuffled[0].scores != shuffled[1].scores
    assert all(abs(_tau(table, each)) < 0.3 for each in shuffled)
    for tau in (0.2, 0.8):
        found = [_tau(table, told[f"made up, tau {tau:g}", seed][0]) for seed in (0, 1)]
        assert np.mean(found) == pytest.approx(tau, abs=0.1)
    assert len(told["parameters", 0][0].genotypes) == 100
    rows = {row[0]: row[1:] for row in result.rows}
    assert rows["nao"] == [2, "", "30.00 ± 0.00", "30.00 ± 0.00", "", "", ""]
    assert rows["uniform"] == [2, "1.00", "0.00 ± 0.00", "0.00 ± 0.00", "30.00 ± 0.00", "30.00 ± 0.00", "100%"]
    assert rows["uniform, shuffled"][-3:] == ["0.00 ± 0.00", "0.00 ± 0.00", "0%"]
    count = len(done)
    assert mixed.run(**given, results=str(tmp_path / "study")).rows == result.rows
    assert len(done) == count, "what is there is not done again"


def test_what_is_no_study_and_no_number_is_refused(done, tmp_path):
    with pytest.raises(DataError, match="expected a file of scores of nao-ray bench tau"):
        mixed.run(scores=str(tmp_path / "nothing.parquet"), seeds=1)
    with pytest.raises(ConfigError, match="taus=2: expected numbers between -1 and 1"):
        mixed.run(taus="2", seeds=1)
