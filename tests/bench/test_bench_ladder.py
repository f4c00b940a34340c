"""What a ladder saves: on a small table of two numbers of epochs, figures by hand, and that a study goes on."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import ladder
from nao_ray.bench._ladder_summary import summary
from nao_ray.config_fidelity import Rungs
from nao_ray.errors import ConfigError
from nao_ray.evaluators.closed_form import accuracy
from nao_ray.metric import ACCURACY, to_plain
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

OPS = ("none", "skip_connect", "nor_conv_3x3")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The 127 cells of three operations; after 2 epochs half of what they have after 20, and in its order."""
    space = NasBench201(NasBench201Config(ops=OPS))
    texts = (space.decode(np.array(tokens) + 1) for tokens in itertools.product(range(len(OPS)), repeat=6))
    cells = sorted({space.canonical(cell) for cell in texts}, key=lambda cell: cell.key)
    score = np.array([accuracy(space.lower(cell)) for cell in cells])
    frame = pd.DataFrame({"arch_str": [cell.key for cell in cells], "acc_2": score / 2, "acc_20": score})
    frame["seconds"] = 7200.0
    path = tmp_path_factory.mktemp("rungs") / "table.parquet"
    frame.to_parquet(path)
    return str(path)


def study(path, **settings):
    usual = {"strategies": "random_search", "epochs": "2,20", "seeds": 3, "max_queries": 60, "valid": "acc_{epochs}"}
    table = {"cost": "seconds", "evaluator.unit": "fraction", "evaluator.twins": "merge", "space.ops": list(OPS)}
    return ladder.run(path=path, **{**usual, **table, **settings})


def test_a_ladder_whose_first_rung_knows_the_order_saves_what_it_should(path, tmp_path):
    result = study(path, results=str(tmp_path), workers="1,4", keep=0.1)
    rows = pd.read_parquet(tmp_path)
    assert len(rows) == 2 * 3 * 3
    whole = rows[rows["label"] == "random_search whole"].iloc[0]
    assert np.diff(whole["curve_hours"][:3]).tolist() == ([2.0, 2.0] if whole["workers"] == 1 else [0.0, 0.0])
    on_ladder = rows[(rows["label"] == "random_search ladder") & (rows["workers"] == 1)].iloc[0]
    epochs = np.array(on_ladder["curve_epochs"])
    assert np.allclose(np.diff(on_ladder["curve_hours"]), np.where(epochs[1:] == 2, 0.2, 2.0)), "all of its rung"
    assert set(epochs) == {2, 20}
    lines = {(row[2], row[3]): dict(zip(result.columns, row, strict=True)) for row in result.rows}
    assert set(lines) == {(1, "whole@50"), (4, "whole@50"), (1, "the best"), (4, "the best")}
    line = lines[1, "the best"]
    assert (line["n"], line["reached"].split("/")[1]) == (3, "3")
    assert float(line["ladder/whole"].split()[0]) < 0.7, "nine of ten pay a tenth"
    first = rows[(rows["label"] == "random_search first") & (rows["workers"] == 1)].iloc[0]
    assert set(first["curve_epochs"]) == {2}
    assert np.allclose(np.diff(first["curve_hours"]), 0.2)
    assert set(first["curve_more_hours"]) == {2.0}, "the best of it is trained for all epochs"
    assert max(first["curve_valid"]) == pytest.approx(first["best_valid_of_whole"]), "judged after all epochs"


def test_a_study_goes_on_where_it_stopped(path, tmp_path, monkeypatch):
    quick = {"nao.pretraining.steps": 2, "nao.pretraining.genotypes": 16, "nao.candidates": 20}
    settings = {"results": str(tmp_path), "strategies": "nao", "seeds": 1, "max_queries": 10, "keep": 1 / 3, **quick}
    first = study(path, **settings)
    told = pd.read_parquet(tmp_path)
    assert len(told) == 3
    weights = {row["label"]: list(row["fits_told"]) for _, row in told.iterrows()}
    assert set(weights["nao ladder"]) == {""}, "two rungs are told apart, the higher one has too few to stand on"
    assert not any(weights[label] for label in ("nao whole", "nao first"))
    monkeypatch.setattr(ladder, "perform", lambda *_: pytest.fail("it is there"))
    assert study(path, **settings).rows == first.rows


def test_hours_until_a_quality_and_their_ratios():
    def row(way, seed, hours, valid, **more):
        return {
            "label": f"x {way}", "table": "t", "workers": 2, "seed": seed, "max_queries": 3,
            "metric": json.dumps(to_plain(ACCURACY)),
            "curve_hours": hours, "curve_valid": valid, "queries_to_optimum": None, "best_valid_of_whole": 0.9,
            "curve_more_hours": [0.0] * 3, "revision": "now", **more,
        }  # fmt: skip

    nan = float("nan")
    rows = [
        row("whole", 0, [1.0, 2.0, 3.0], [0.5, 0.8, 0.8]),
        row("whole", 1, [1.0, 2.0, 3.0], [0.6, 0.6, 0.9]),
        row("ladder", 0, [0.1, 0.5, 1.0], [nan, 0.8, 0.9]),
        row("ladder", 1, [0.1, 0.5, 1.0], [nan, 0.5, 0.9]),
        row("first", 0, [0.1, 0.2, 0.3], [0.4, 0.8, 0.8], curve_more_hours=[1.0, 1.0, 1.0]),
        row("first", 1, [0.1, 0.2, 0.3], [0.4, 0.6, 0.7], curve_more_hours=[1.0, 1.0, 1.0]),
    ]
    for each in rows:  # 50 queries were all there were
        each["queries_to_optimum"] = len(each["curve_valid"])
    result = summary(rows, Rungs(epochs=(2, 20)))
    asked, best = (dict(zip(result.columns, line, strict=True)) for line in result.rows)
    assert (asked["quality"], asked["reached"]) == ("whole@50", "2/2/1")
    assert (asked["whole h"], asked["ladder h"]) == ("5.0 ± 1.0", "1.5 ± 0.5"), "of both workers"
    assert asked["ladder/whole"].startswith("0.30 ± ")
    assert asked["seed by seed"].startswith(f"{np.sqrt(1 / 4 * 2 / 6):.2f}")
    assert asked["first h"] == "1.0 ± 0.4", "0.4 and an hour more reach it; the other has not in all its 0.6"
    assert best["reached"] == "1/2/0"
    seconds = [{**each, "curve_hours": [hour / 360 for hour in each["curve_hours"]]} for each in rows]
    asked = dict(zip(result.columns, summary(seconds, Rungs(epochs=(2, 20))).rows[0], strict=True))
    assert (asked["whole h"], asked["ladder h"]) == ("0.0139 ± 0.0028", "0.00417 ± 0.00139"), "of seconds too"
    said = "The searches were made by different revisions of the code."
    assert said not in result.notes
    assert said in summary([*rows[:-1], rows[-1] | {"revision": "before"}], Rungs(epochs=(2, 20))).notes


def test_what_is_no_setting_is_refused(path):
    with pytest.raises(ConfigError, match="epochs must be whole numbers by commas"):
        study(path, epochs="two,20")
    with pytest.raises(ConfigError, match="nothing says which columns are of 2 epochs"):
        study(path, valid="acc_20")
    with pytest.raises(ConfigError, match="nothing says what a training on table takes: give cost"):
        study(path, cost=None)
