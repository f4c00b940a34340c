"""When shared scores rank: trained once, scored once, and judged as scipy would."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from nao_ray.bench import tau
from nao_ray.bench._tau_summary import Ranking
from nao_ray.errors import ConfigError
from nao_ray.evaluators.one_shot import OneShot
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

PRESET = """
name: small
space: {name: nas_bench_201, twins: distinct, ops: [none, skip_connect, nor_conv_1x1]}
task: {name: synthetic, per_class: 12}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 2
  recipe: {name: darts_search, crop_padding: 1, flip: false, batch: 24, lr: 0.1}
strategy: {name: shared_random_search, paths: 9}
budget: {trials: 3}
"""
CONVOLUTIONS = "nor_conv_1x1"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A preset, and a table in which a cell is worth as much as it has convolutions, and a little of its own."""
    folder = tmp_path_factory.mktemp("tau")
    (folder / "small.yaml").write_text(PRESET)
    space = NasBench201(NasBench201Config(twins="distinct", ops=("none", "skip_connect", CONVOLUTIONS)))
    texts = [space.decode(1 + np.array(row)).key for row in np.ndindex((3,) * 6)]
    values = [text.count(CONVOLUTIONS) + 0.001 * index / len(texts) for index, text in enumerate(texts)]
    pd.DataFrame({"arch_str": texts, "worth": np.array(values) * 10}).to_csv(folder / "table.csv", index=False)
    return folder


def bench(place, **more):
    given = {"epochs": [1, 2], "cells": 12, "samplings": "uniform,fair", "norms": "batch,path@8,running"}
    known = {"preset": str(place / "small.yaml"), "path": str(place / "table.csv"), "valid": "worth"}
    return tau.run(**{**known, **given, **more})


def test_weights_and_scores_are_made_once_and_every_row_has_its_own(place, monkeypatch):
    study, figure = place / "study", place / "tau.svg"
    once = bench(place, results=str(study), figure=str(figure))
    labels = [(row[0], row[1], row[2]) for row in once.rows]
    assert labels == [
        *((paths, n, norm) for paths in ("uniform", "fair") for n in (1, 2) for norm in ("batch", "path@8", "running")),
        ("more parameters", "", ""),
        ("more multiply-adds", "", ""),
    ]
    losses = {tuple(pd.read_parquet(path)["losses"][0]) for path in (study / "scores").iterdir()}
    assert len(losses) == 12
    bar = once.rows[-2]
    assert float(bar[4]) > 0.8, "the table is made so"
    assert float(bar[4]) <= float(bar[5].strip("[]").split(",")[1])
    drawn = figure.read_text()
    assert all(word in drawn for word in ("number of parameters", "path@8", "fair", "n = 12 cells"))
    monkeypatch.setattr(OneShot, "train", None)
    monkeypatch.setattr(OneShot, "evaluate_together", None)
    assert bench(place, results=str(study)).rows == once.rows


def test_later_epochs_go_on_from_the_weights_that_are_there(place, monkeypatch):
    study, epochs = place / "later", []
    bench(place, results=str(study), samplings="uniform", norms="batch", epochs=[1])
    train = OneShot.train

    def seen(evaluator, proposal, source, group):
        epochs.append((proposal.phase.first_epoch, proposal.phase.last_epoch, source is not None))
        return train(evaluator, proposal, source, group)

    monkeypatch.setattr(OneShot, "train", seen)
    later = bench(place, results=str(study), samplings="uniform,fair@1", norms="batch", epochs=[1, 2])
    assert epochs == [(1, 2, True), (0, 1, False)]
    whole = bench(place, samplings="uniform,fair@1", norms="batch", epochs=[1, 2])
    assert [row[4] for row in later.rows] == [row[4] for row in whole.rows]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"norms": "layer"}, "norms=layer: expected batch, path or running"),
        ({"norms": "running@8"}, "expected batch, path or running"),
        ({"epochs": [2, 1]}, "epochs=2,1: expected ascending"),
        ({"samplings": "fair@0"}, "samplings=fair@0: expected a sampling"),
        ({"cells": 500}, "the table has [0-9]+ different ones"),
        ({"preset": "digits"}, "no one_shot evaluator with shared_random_search"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_anything_is_trained(place, settings, said):
    with pytest.raises(ConfigError, match=said):
        bench(place, **settings)


def test_a_ranking_is_judged_by_tau_of_all_and_of_the_better_half_and_beside_another():
    draws = np.random.default_rng(0)
    truth = draws.normal(size=60)
    good, bad = (
        Ranking.free(name, truth + noise * draws.normal(size=60), truth) for name, noise in (("a", 0.3), ("b", 9))
    )
    assert good.tau()[0] == pytest.approx(kendalltau(good.scores, truth).statistic)
    half = truth >= np.median(truth)
    assert good.tau_of_better_half()[0] == pytest.approx(kendalltau(good.scores[half], truth[half]).statistic)
    assert good.tau()[1] > 0 > bad.tau()[1]
    ahead, low, high = good.ahead_of(bad)
    assert ahead == pytest.approx(good.tau()[0] - bad.tau()[0])
    assert 0 < low < ahead < high
    assert good.ahead_of(good) == (0, 0, 0)
    a, b, c = (
        kendalltau(x, y).statistic for x, y in ((good.scores, truth), (bad.scores, truth), (good.scores, bad.scores))
    )
    told, low, high = good.given(bad)
    assert told == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))
    assert 0 < low < told < high
    assert bad.given(good)[1] < 0, "who knows the good one learns nothing from the bad one"
