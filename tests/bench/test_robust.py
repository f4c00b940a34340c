"""The suite of tables: which half has what, what is measured, what stands in for tables."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from nao_ray import registry, rng
from nao_ray.bench import _robust_tables, robust
from nao_ray.bench._cells_101 import Cells101
from nao_ray.bench._formula import function, reference
from nao_ray.bench._listed import Listed, ListedConfig
from nao_ray.bench._robust_tables import SUITE, Entry
from nao_ray.cli import app as cli
from nao_ray.errors import ConfigError, DataError, GenotypeError
from nao_ray.evaluators.closed_form import accuracy
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

OPS = ("none", "nor_conv_1x1", "nor_conv_3x3")
SPACE = {"name": "nas_bench_201", "ops": list(OPS)}


def cells():
    space = NasBench201(NasBench201Config(ops=OPS))
    found = [space.decode(np.array(tokens) + 1) for tokens in itertools.product(range(len(OPS)), repeat=6)]
    score = [accuracy(space.lower(space.canonical(cell))) for cell in found]
    return pd.DataFrame({"arch_str": [cell.key for cell in found], "valid": score})


def noisy():
    frame = cells()
    draw = rng.child(0, "test").normal(0, 0.2, (2, len(frame)))
    return frame.assign(run0=frame["valid"] + draw[0], run1=frame["valid"] + draw[1])


def listed():
    space = registry.load("space", "darts_cnn")()
    found = dict.fromkeys(space.sample(rng.child(0, "listed", number)).key for number in range(30))
    return pd.DataFrame({"arch_str": list(found), "valid": np.arange(len(found), dtype=float)})


SMALL = (
    Entry(name="plain", about="", make=cells, space=SPACE),
    Entry(name="least", about="", make=cells, space=SPACE, settings={"goal": "minimize"}),
    Entry(name="noisy", about="", make=noisy, space=SPACE),
    _robust_tables._list("list", "", "darts_cnn", listed),
    _robust_tables._formula("formula", "", "nao_cnn_small", seed=2, best=1.1265071, median=0.8996231, noise=0.5),
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(_robust_tables, "SUITE", SMALL)
    monkeypatch.setattr(robust, "SUITE", SMALL)


def study(**settings):
    return robust.run(**{"strategies": "random_search,local_search", "half": "all", "processes": 1} | settings)


# -- the halves -----------------------------------------------------------------------------------------------


def test_every_other_table_is_reported_and_the_known_ones_are_for_tuning():
    assert [entry.name for entry in SUITE[:2]] == ["cifar10", "cifar100"]
    assert [entry.half for entry in SUITE] == ["tune", "tune", *["report", "tune"] * 13]
    assert len({entry.name for entry in SUITE}) == len(SUITE) == 28


def test_a_half_holds_its_own_tables_alone():
    report, tune = ({entry.name for entry in robust.chosen(half, None)} for half in ("report", "tune"))
    assert not report & tune
    assert report | tune == {entry.name for entry in robust.chosen("all", None)}
    assert [entry.name for entry in robust.chosen("tune", "cifar100,cifar10")] == ["cifar10", "cifar100"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"half": "best"}, "half=best: choose of tune, report, all"),
        ({"tables": "cifar11"}, "no table 'cifar11'; there are cifar10, cifar100"),
        ({"half": "report", "tables": "cifar10"}, "cifar10 is in the half tune; set half=all"),
        ({"nao.seeds": 3}, r"bench robust nao.seeds: expected key or SECTION.key with a SECTION of random_search"),
        ({"workers": "none"}, "workers must be a whole number"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ConfigError, match=told):
        study(**settings)


def test_data_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NAO_RAY_DATA", str(tmp_path))
    _robust_tables._source.cache_clear()
    with pytest.raises(DataError, match="NAO_RAY_DATA"):
        SUITE[0].written(tmp_path)
    _robust_tables._source.cache_clear()


@pytest.mark.parametrize("entry", [SUITE[number] for number in (0, 5, 11, 14, 24)], ids=lambda entry: entry.name)
def test_a_table_is_made_again_to_the_byte(entry, tmp_path, data_folder):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        entry.written(tmp_path / name)
    files = [(tmp_path / name / f"{entry.name}.parquet").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


# -- what is measured -----------------------------------------------------------------------------------------


def test_every_kind_of_table_is_searched(small, tmp_path):
    settings = {"strategies": "random_search,reinforce", "seeds": 2, "max_queries": 55, "workers": "1,3"}
    result = study(**settings, results=str(tmp_path))
    assert [row[:3] for row in result.rows[::4]] == [[entry.half, entry.name, 1] for entry in SMALL], (
        "two strategies, two numbers of workers"
    )
    by_name = {(row[1], row[2], row[3]): row for row in result.rows}
    assert by_name["list", 1, "random_search"][6] == 1.0, "thirty architectures are all found in 55 queries"
    assert by_name["list", 1, "random_search"][7] == "0.00 ± 0.00"
    assert by_name["formula", 1, "random_search"][6] == 0.0
    assert json.loads(json.dumps(result.data)) == result.data
    again = study(**settings, results=str(tmp_path))
    assert again.rows == result.rows


def test_a_regret_is_what_the_median_misses(small, tmp_path):
    study(seeds=1, max_queries=50, strategies="random_search", results=str(tmp_path), tables="plain,least")
    rows = {row["table"]: row for row in pd.read_parquet(tmp_path).to_dict("records")}
    space = NasBench201(NasBench201Config(ops=OPS))
    values = cells().set_index("arch_str")["valid"]
    values = values[[space.parse(text) == space.canonical(space.parse(text)) for text in values.index]]
    for name, best in (("plain", values.max()), ("least", values.min())):
        (regret,) = robust.Measured.of([rows[name]]).regrets[50]
        reached = rows[name]["curve_valid"][-1]
        assert regret == pytest.approx(100 * (best - reached) / (best - values.median()))


def test_the_truth_judges_and_a_noisy_search_goes_on_after_the_best(small, tmp_path):
    study(seeds=1, max_queries=600, strategies="random_search", tables="noisy", results=str(tmp_path))
    (row,) = pd.read_parquet(tmp_path).to_dict("records")
    assert row["queries_to_optimum"] < row["queries"]
    curve = np.array(row["curve_valid"])
    assert (np.diff(curve) < 0).any(), "the lucky one was preferred"
    assert curve.max() <= row["best_valid_of_table"] == pytest.approx(cells()["valid"].max())


def test_where_queries_are_noisy_the_recommended_one_is_judged_too(small):
    row = row_of("noisy", "picks", None, [0.9] * 200) | {"stop_at_optimum": False, "curve_recommended": [0.7] * 200}
    assert robust.Measured.of([row]).recommended[50].tolist() == pytest.approx([30.0])
    assert not robust.Measured.of([row | {"stop_at_optimum": True}]).recommended
    assert not robust.Measured.of([row | {"curve_recommended": [None] * 200}]).recommended
    silent = row_of("noisy", "silent", None, [0.9] * 200) | {"stop_at_optimum": False}
    result = robust.summary([row, silent])
    assert result.columns[-2:] == ["recommended@50", "recommended@200"]
    assert [line[-2:] for line in result.rows] == [["30.00", "30.00"], ["-", "-"]]
    assert "recommended@50" not in robust.summary([silent]).columns


def row_of(table, label, queries, values):
    curve = list(values)
    return {
        "table": table, "label": label, "workers": 1, "max_queries": 200, "queries_to_optimum": queries, "metric": None,
        "curve_valid": curve, "best_valid_of_table": 1.0, "median_valid_of_table": 0.0, "revision": "",
    }  # fmt: skip


def test_first_and_nearly_first_are_counted(monkeypatch):
    monkeypatch.setattr(robust, "SUITE", SMALL)
    monkeypatch.setattr(_robust_tables, "SUITE", SMALL)
    near = [row_of("plain", "near", None, [value] * 200) for value in (0.5, 0.9)]  # 0.3 ± 0.2
    first = [row_of("plain", "first", 190, [0.8] * 189 + [1.0] * 11) for _ in range(2)]  # 0.2
    far = [row_of("plain", "far", None, [0.1] * 200) for _ in range(2)]
    result = robust.summary([*near, *first, *far])
    counts = {row["strategy"]: row for row in result.data["first"]}
    assert counts["first"]["50"] == {"first": 1, "within": 1, "tables": 1}
    assert counts["near"]["50"] == {"first": 0, "within": 1, "tables": 1}
    assert counts["far"]["50"] == {"first": 0, "within": 0, "tables": 1}
    assert counts["near"]["200"]["within"] == 0
    assert counts["first"]["queries"]["first"] == 1
    unfound = robust.summary([*near, *far])
    assert unfound.data["first"][0]["queries"] == {"first": 0, "within": 0, "tables": 0}


def test_the_command(small, capsys):
    words = "bench robust half=all tables=plain seeds=1 max_queries=12 processes=1 strategies=climb:local_search"
    with pytest.raises(SystemExit) as left:
        cli.main([*words.split(), "climb.move=first", "--json"])
    assert left.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"][0]["strategy"] == "climb"
    assert "regret@50" not in said["rows"][0], "twelve queries have no fiftieth"


@pytest.mark.slow
def test_nao_runs_on_a_list_and_on_a_formula(small):
    result = study(
        seeds=1, max_queries=24, strategies="nao", tables="list,formula",
        **{"nao.pretraining": {"steps": 5, "genotypes": 50}},
    )  # fmt: skip
    assert [search["fits"] > 0 for search in result.data["searches"]] == [True, True]


def test_nao_says_which_one_it_recommends(small, tmp_path):
    quick = {"nao.pretraining": {"steps": 5, "genotypes": 50}, "nao.candidates": 20}
    study(seeds=1, max_queries=14, strategies="nao,random_search", tables="noisy", results=str(tmp_path), **quick)
    nao, other = pd.read_parquet(tmp_path).sort_values("label")["curve_recommended"]
    truths = set(cells()["valid"])
    assert np.isnan(nao[:3]).all(), "before the first fit"
    assert set(nao[3:]) <= truths
    assert np.isnan(other).all()


# -- what stands in for tables --------------------------------------------------------------------------------


def test_formulas_have_the_best_and_the_median_that_they_say():
    for entry in SUITE:
        if entry.make is None:
            space = registry.load("space", entry.space["name"])()
            best, median = reference(space, entry.settings["seed"], climbs=1, steps=50)
            assert median == pytest.approx(entry.settings["median"], abs=1e-6)
            assert best < entry.settings["best"]


def test_a_formula_without_seed_is_the_closed_form():
    space = registry.load("space", "nao_cnn_small")()
    genotype = space.sample(rng.child(0, "formula"))
    assert function(space, None)(genotype) == accuracy(space.lower(genotype))


@pytest.fixture
def darts(tmp_path):
    listed().to_parquet(tmp_path / "list.parquet")
    return Listed(ListedConfig(of="darts_cnn", path=str(tmp_path / "list.parquet")))


def test_a_list_holds_its_own_alone(darts):
    known = set(listed()["arch_str"])
    assert darts.num_architectures == len(known) < darts.num_genotypes
    inner = darts.inner
    for number in range(20):
        draw = rng.child(1, "list", number)
        genotype = darts.sample(draw)
        assert genotype.key in known
        assert darts.canonical(genotype) == genotype
        assert darts.decode(darts.encode(genotype)) == genotype
        mutant = darts.mutate(genotype, draw)
        assert mutant.key in known - {genotype.key}
        elsewhere = darts.decode(inner.encode(inner.sample(draw)))
        assert darts.canonical(elsewhere).key in known
        assert darts.lower(genotype) == inner.lower(Genotype(inner.name, genotype.key))


def test_what_is_not_listed_stands_for_the_nearest(darts):
    genotype = darts.listed[3]
    tokens = darts.encode(genotype)
    position = next(at for at, legal in enumerate(darts.token_mask) if legal.sum() > 1)
    others = np.flatnonzero(darts.token_mask[position])
    tokens[position] = others[others != tokens[position]][0]
    assert darts.canonical(darts.decode(tokens)) == genotype


def test_cells_of_101_are_cut_and_ordered():
    space = Cells101()
    matrix = "0 1 1 0 0  0 0 0 1 0  0 0 0 0 1  0 0 0 0 0  0 0 0 0 0".replace(" ", "")
    dead = space.parse(f"{matrix} input,maxpool3x3,conv3x3-bn-relu,conv1x1-bn-relu,output", "benchmark")
    alone = space.parse("010001000 input,conv3x3-bn-relu,output", "benchmark")
    assert space.canonical(dead) == space.canonical(alone)
    one, other = (
        space.parse(f"0110000100010000 input,{first},{second},output", "benchmark")
        for first, second in (("maxpool3x3", "conv3x3-bn-relu"), ("conv3x3-bn-relu", "maxpool3x3"))
    )
    assert space.canonical(one) == space.canonical(other) != space.canonical(alone)
    for number in range(30):
        genotype = space.sample(rng.child(0, "101", number))
        assert space.canonical(genotype) == genotype
        assert space.mutate(genotype, rng.child(1, "101", number)) != genotype
        assert space.parse(genotype.key) == space.decode(space.encode(genotype)) == genotype
    for text, dialect in (("1 2 x", None), ("0100 input,conv9x9,output", "benchmark")):
        with pytest.raises(GenotypeError, match="nas_bench_101"):
            space.parse(text, dialect)


def test_a_vertex_of_101_sums_and_then_does_its_operation():
    space = Cells101()
    graph = space.lower(space.parse("0110000100010000 input,maxpool3x3,conv3x3-bn-relu,output", "benchmark"))
    ((_, cell),) = graph.cells
    assert [edge.op for node in cell.nodes for edge in node if edge.op != "identity"] == [
        "max_pool_3x3", "conv_3x3", "conv_3x3",
    ]  # fmt: skip
    assert len(cell.nodes[-1]) == 2, "two vertices lead to the output"


def test_entries_are_values():
    assert dataclasses.replace(SUITE[0], name="cifar100").half == "tune"
