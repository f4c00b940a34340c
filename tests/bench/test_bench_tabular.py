"""The study on tables: counted right, repeatable, resumable."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from nao_ray.bench import _gather, _study, _summary, tabular
from nao_ray.bench._study import Search, perform
from nao_ray.cli import app as cli
from nao_ray.errors import ConfigError, DataError, RunError
from nao_ray.evaluators.closed_form import accuracy
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies.parts.reinforce_config import ReinforceConfig

OPS = ("none", "nor_conv_1x1", "nor_conv_3x3")
SPACE = NasBench201(NasBench201Config(ops=OPS))


@pytest.fixture(autouse=True)
def _charts_are_blank(monkeypatch):
    """They are test_curves.py's."""
    monkeypatch.setattr(Figure, "savefig", lambda self, target, **_: target.write("<svg></svg>"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Every cell of three operations; a training takes an hour, and longer by its accuracy."""
    cells = [SPACE.decode(np.array(tokens) + 1) for tokens in itertools.product(range(len(OPS)), repeat=6)]
    score = np.array([100 * accuracy(SPACE.lower(SPACE.canonical(cell))) for cell in cells])
    frame = pd.DataFrame({"arch_str": [cell.key for cell in cells], "score": score, "final": score - 3})
    frame["run_a"], frame["run_b"] = 0.7 * score, score
    frame["seconds"] = 3600.0 + frame.index % 7
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    frame.to_parquet(path)
    return path


def study(path, **settings):
    settings = {"strategies": "random_search,local_search", "seeds": 3, "max_queries": 40, "processes": 1} | settings
    columns = {"valid": "score", "test": "final", "cost": "seconds"}
    columns |= {name: settings.pop(name) for name in columns if name in settings}
    return tabular.run(str(path), **columns, **{"space.ops": list(OPS)}, **settings)


def one(path, strategy="random_search", **changes):
    evaluator = {"name": "tabular", "path": str(path), "valid": "score", "test": "final", "cost": "seconds"}
    settings = {"label": "x", "table": "t", "seed": 0, "workers": 1, "max_queries": 60, "stop_at_optimum": False}
    settings |= changes
    space = {"name": "nas_bench_201", "ops": OPS}
    return perform(
        Search(
            space=space, evaluator=evaluator | settings.pop("evaluator", {}), strategy={"name": strategy}, **settings
        )
    )


def test_queries_time_and_the_best_so_far_are_those_of_the_search(path):
    row = one(path, "regularized_evolution", max_queries=700)
    frame = pd.read_parquet(path)
    best = frame["score"].max() / 100
    assert row["best_valid_of_table"] == pytest.approx(best)
    curve = np.array(row["curve_valid"])
    assert (np.diff(curve) >= 0).all()
    first = int(np.argmax(curve >= best)) + 1
    assert row["queries_to_optimum"] == row["started_at_optimum"] == first
    np.testing.assert_allclose(row["curve_test"], curve - 0.03)
    assert row["curve_hours"][9] == pytest.approx(10, abs=0.03)
    assert row["hours_to_optimum"] == row["curve_hours"][first - 1]
    assert row["queries"] == len(curve) <= SPACE.num_architectures


def test_a_search_stops_at_the_optimum_and_is_otherwise_the_same(path):
    whole = one(path, "regularized_evolution", max_queries=700)
    stopped = one(path, "regularized_evolution", max_queries=700, stop_at_optimum=True)
    assert stopped["queries"] == stopped["queries_to_optimum"] == whole["queries_to_optimum"] < whole["queries"]
    assert stopped["curve_valid"] == whole["curve_valid"][: stopped["queries"]]
    assert stopped["curve_hours"] == whole["curve_hours"][: stopped["queries"]]


def test_workers_share_the_time_and_repeat_exactly(path):
    many = one(path, "local_search", workers=8)
    again = one(path, "local_search", workers=8)
    assert {**many, "cpu_seconds": 0} == {**again, "cpu_seconds": 0}
    assert many["curve_hours"][-1] == pytest.approx(60 / 8, abs=0.6)
    assert one(path, "local_search", workers=8, seed=1)["curve_valid"] != many["curve_valid"]
    stopped = one(path, "local_search", workers=8, max_queries=400, stop_at_optimum=True)
    assert stopped["queries_to_optimum"] < stopped["started_at_optimum"] <= stopped["queries_to_optimum"] + 8


def test_what_was_told_selects_and_the_truth_is_reported(path):
    rows = [one(path, seed=seed, evaluator={"runs": ["run_a", "run_b"]}) for seed in range(5)]
    assert any((np.diff(row["curve_valid"]) < 0).any() for row in rows), "a lucky run is preferred to a better cell"
    for row in rows:
        assert (np.diff(row["curve_oracle_test"]) >= 0).all()
        assert (np.array(row["curve_test"]) <= row["curve_oracle_test"]).all()
    assert rows[0]["curve_oracle_test"] == one(path)["curve_oracle_test"], "the same architectures were seen"


def test_a_partial_table_gives_failed_trials_that_count(path, tmp_path):
    part = tmp_path / "part.parquet"
    frame = pd.read_parquet(path)
    frame.iloc[::3].to_parquet(part)
    row = one(part, evaluator={"partial": True})
    assert 0 < row["failed"] < row["queries"] == 60


def test_the_summary_has_a_line_per_strategy(path):
    result = study(path)
    assert [line[:4] for line in result.rows] == [["table", name, 1, 3] for name in ("random_search", "local_search")]
    searches = result.data["searches"]
    assert len(searches) == 6
    found = [search["queries_to_optimum"] or 40 for search in searches[:3]]
    assert result.rows[0][5].startswith(f"{np.mean(found):.1f} ± ")
    assert json.loads(json.dumps(result.data)) == result.data
    assert searches[0]["valid@10"] <= searches[0]["valid@30"]
    assert "valid@40" in result.table


def test_the_study_goes_on_where_it_stopped(path, tmp_path, monkeypatch):
    first = study(path, results=str(tmp_path), seeds=2, max_queries=30)
    study(path, results=str(tmp_path), seeds=1, max_queries=300, strategies="found:regularized_evolution")
    assert pd.read_parquet(tmp_path)["queries_to_optimum"].notna().any()
    next(tmp_path.glob("table-found*")).unlink()
    rows = pd.read_parquet(tmp_path)
    assert len(rows) == 4
    assert rows["queries_to_optimum"].isna().any(), "found and not found are read together"
    done = []
    real = _study.perform
    monkeypatch.setattr(_gather, "perform", lambda search: done.append((search.label, search.seed)) or real(search))
    again = study(path, results=str(tmp_path), seeds=2, max_queries=30)
    assert done == []
    assert again.rows == first.rows
    shorter = study(path, results=str(tmp_path), seeds=2, max_queries=20)
    assert done == []
    assert shorter.data == study(path, seeds=2, max_queries=20).data | {"searches": shorter.data["searches"]}
    done.clear()
    study(path, results=str(tmp_path), seeds=3, max_queries=30)
    assert sorted(done) == [("local_search", 2), ("random_search", 2)]
    done.clear()
    study(path, results=str(tmp_path), seeds=1, strategies="local_search", **{"local_search.move": "first"})
    assert done == [("local_search", 0)], "other settings, another search"
    next(tmp_path.glob("table-random_search*-s00001.parquet")).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"s00001\.parquet is not a row of a study"):
        study(path, results=str(tmp_path), max_queries=30)


def test_another_default_is_another_search(path):
    search = Search(
        label="x",
        table="t",
        space={"name": "nas_bench_201"},
        evaluator={"name": "tabular", "path": str(path), "valid": "score"},
        strategy={"name": "reinforce"},
        seed=0,
        workers=1,
        max_queries=9,
        stop_at_optimum=True,
    )
    default = ReinforceConfig().learning_rate
    explicit, other = ({"name": "reinforce", "learning_rate": rate} for rate in (default, 2 * default))
    assert search.file_name("t") == dataclasses.replace(search, strategy=explicit).file_name("t")
    assert search.file_name("t") != dataclasses.replace(search, strategy=other).file_name("t")
    assert search.file_name("t") != search.file_name("u")
    moved = {**search.evaluator, "path": "elsewhere.parquet"}
    assert search.file_name("t") == dataclasses.replace(search, evaluator=moved).file_name("t")


@pytest.mark.parametrize("stop_at_optimum", [True, False])
def test_rows_that_went_further_are_cut(path, tmp_path, stop_at_optimum):
    folder = str(tmp_path)
    study(path, results=folder, strategies="regularized_evolution", max_queries=160, stop_at_optimum=False)
    limits = {"strategies": "regularized_evolution", "max_queries": 60, "stop_at_optimum": stop_at_optimum}
    cut, fresh = study(path, results=folder, **limits), study(path, **limits)
    ignored = ("cpu_seconds", "stop_at_optimum", "evaluator")
    for mine, its in zip(cut.data["searches"], fresh.data["searches"], strict=True):
        assert {k: v for k, v in mine.items() if k not in ignored} == {k: v for k, v in its.items() if k not in ignored}


@pytest.mark.slow
def test_nao_is_counted(path):
    short = {"nao.pretraining": {"steps": 20, "genotypes": 100}}
    result = study(path, strategies="nao", seeds=1, max_queries=14, **short)
    (search,) = result.data["searches"]
    assert search["fits"] >= 1
    assert 0 < search["scored_per_query_max"] <= 200
    assert 0 < search["scored_share_of_space"] <= 1


@pytest.mark.slow
def test_processes_give_what_one_process_gives(path):
    here, there = (study(path, seeds=2, max_queries=20, processes=processes) for processes in (1, 2))
    for mine, its in zip(here.data["searches"], there.data["searches"], strict=True):
        assert {**mine, "cpu_seconds": 0} == {**its, "cpu_seconds": 0}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seeds": 0}, "seeds must be a whole number from 1 on"),
        ({"workers": "1,many"}, "workers must be a whole number from 1 on"),
        ({"valid": "{dataset}_valid"}, "the column {dataset}_valid is named by its dataset: give dataset"),
        ({"strategies": "nonsense"}, "no strategy is named 'nonsense'"),
        ({"local_search.mov": "best"}, "unknown key strategy.mov"),
        ({"nao.seeds": 3}, r"nao\.seeds: expected key or SECTION.key with a SECTION of random_search, local_search"),
        ({"evaluator.vali": "x"}, "unknown key evaluator.vali"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_done(path, settings, told):
    with pytest.raises(ConfigError, match=told):
        study(path, **settings)


def test_a_table_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read the table"):
        study(tmp_path / "nothing.parquet")


def test_a_search_that_fails_is_named(path, monkeypatch):
    def fail(_):
        raise RunError("no more")

    monkeypatch.setattr(_gather, "perform", fail)
    with pytest.raises(RunError, match="random_search on table, seed 0: no more"):
        study(path)


def test_the_command(path, capsys):
    words = f"bench tabular path={path} valid=score space.ops=[none,nor_conv_1x1,nor_conv_3x3] seeds=2 max_queries=10"
    with pytest.raises(SystemExit) as left:
        cli.main([*words.split(), "strategies=climb:local_search", "climb.move=first", "processes=1", "--json"])
    assert left.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"][0]["strategy"] == "climb"
    assert said["rows"][0]["n"] == 2
    assert said["data"]["searches"][0]["test@10"] is None, "the table has no test column"
    words = words.replace("valid=score", "valid={dataset}e datasets=scor nao.pretraining.steps=20")
    with pytest.raises(SystemExit) as left:
        cli.main([*words.split(), "processes=1", "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["table"] == "scor"
    with pytest.raises(SystemExit) as left:
        cli.main([*words.split(), "sedes=3"])
    assert left.value.code == 2
    assert "expected key=value" in capsys.readouterr().err


@pytest.mark.parametrize("queries", [None, 12])
def test_a_short_search_has_no_later_value(queries):
    row = {"curve_valid": [0.1] * 12, "queries_to_optimum": queries}
    assert math.isnan(_summary.after(row, "curve_valid", 13)) == (queries is None)
    assert _summary.after(row, "curve_valid", 12) == 0.1


def test_datasets_and_workers_are_searched_each_on_its_own(path, tmp_path):
    frame = pd.read_parquet(path).rename(columns={"score": "a_valid"}).assign(b_valid=lambda t: 95 - t["a_valid"] / 2)
    both = tmp_path / "both.parquet"
    frame.to_parquet(both)
    figures = tmp_path / "figures"
    columns = {"valid": "{dataset}_valid", "test": None, "cost": None}
    result = study(both, datasets="a,b", workers="1,3", seeds=2, max_queries=15, figures=str(figures), **columns)
    keys = [tuple(line[:3]) for line in result.rows]
    assert keys == [(t, s, w) for t in "ab" for w in (1, 3) for s in ("random_search", "local_search")]
    assert sorted(file.name for file in figures.iterdir()) == ["a-w1.svg", "a-w3.svg", "b-w1.svg", "b-w3.svg"]
    best = {s["table"]: s["best_valid_of_table"] for s in result.data["searches"]}
    assert best["b"] == pytest.approx(0.95 - frame["a_valid"].min() / 200)


def test_the_better_direction_may_differ_by_data_set(path, tmp_path):
    frame = pd.read_parquet(path).rename(columns={"score": "up"}).assign(down=lambda t: 3 - t["up"] / 50)
    both = tmp_path / "both.parquet"
    frame.to_parquet(both)
    settings = {"evaluator.goal": "up:maximize,down:minimize", "evaluator.unit": "up:percent,down:nats"}
    found = study(both, datasets="up,down", valid="{dataset}", test=None, cost=None, max_queries=60, **settings)
    by_table = {table: [s for s in found.data["searches"] if s["table"] == table] for table in ("up", "down")}
    assert by_table["down"][0]["best_valid_of_table"] == pytest.approx(frame["down"].min())
    assert by_table["up"][0]["best_valid_of_table"] == pytest.approx(frame["up"].max() / 100)
    for up, down in zip(by_table["up"], by_table["down"], strict=True):
        assert down["valid@50"] == pytest.approx(3 - 2 * up["valid@50"]), "the same searches, turned over"
    with pytest.raises(ConfigError, match="bench goal: nothing is given for data set down; it has those of up"):
        study(both, datasets="up,down", valid="{dataset}", test=None, **{"evaluator.goal": "up:maximize"})


def test_what_no_search_reached_and_what_nobody_knows_has_no_column(path):
    result = study(path, max_queries=30)
    assert "nan" not in result.table
    assert [name for name in result.columns if "@" in name] == ["valid@30", "test@30"]
    assert "within 30" in result.columns
    known = study(path, max_queries=60, test=None, seeds=1)
    assert [name for name in known.columns if "@" in name] == ["valid@50", "valid@60"]
    assert "±" not in known.rows[0][5], "one search has no standard error"
    assert "nan" not in known.table, "nor a deviation"
    whole = study(path, max_queries=50, seeds=2)
    assert [name for name in whole.columns if "@" in name] == ["valid@50", "test@50", "oracle@50"]


@pytest.mark.parametrize(
    ("settings", "queries", "seeds"),
    [
        ({}, 200, range(100)),
        ({"protocol": "mls_bench"}, 30, range(5)),
        ({"protocol": "mls_bench", "max_queries": 40, "first_seed": 3}, 40, range(3, 8)),
        ({"protocol": "nao_ray", "seeds": 2}, 200, range(2)),
    ],
)
def test_a_protocol_is_what_holds_where_nothing_is_given(path, monkeypatch, settings, queries, seeds):
    asked = []
    monkeypatch.setattr(tabular, "gather", lambda searches, *_: asked.extend(searches) or [])
    monkeypatch.setattr(tabular, "summary", lambda rows: None)
    tabular.run(str(path), valid="score", strategies="random_search", **settings)
    assert [search.seed for search in asked] == list(seeds)
    assert {search.max_queries for search in asked} == {queries}


def test_a_protocol_of_nobody_is_refused(path):
    with pytest.raises(ConfigError, match="protocol=ours: choose of nao_ray, mls_bench"):
        study(path, protocol="ours")
