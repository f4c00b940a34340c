"""Searches on images beside random search, the noise they search in, and their finalists trained for longer."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import _noise, images
from nao_ray.bench._noise import Noise, pooled
from nao_ray.errors import ConfigError
from nao_ray.pool import Finals, PoolReader

SEARCH = """
name: tiny
space: {name: nas_bench_201, ops: [skip_connect, nor_conv_1x1]}
task: {name: synthetic, classes: 2, per_class: 100, noise: 1}
evaluator: {name: standalone, cells_per_stage: 1, channels: 2, epochs: 2, recipe: {name: short, batch: 16}}
strategy: local_search
budget: {trials: 3}
"""
FEW = {"strategies": "random_search,mutated:regularized_evolution", "mutated.population": 2, "mutated.sample": 1}
FEW |= {"seeds": 2, "after": 1, "noise": 2, "repeats": 2, "finalists": 2, "trainings": 2, "epochs": 1}


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SEARCH)
    cells = [
        "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops)
        for ops in itertools.product(("skip_connect", "nor_conv_1x1"), repeat=6)
    ]
    table = pd.DataFrame({"arch_str": cells, "truth": [50 + cell.count("conv") for cell in cells]})
    table.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "tiny.yaml"


def test_searches_and_their_finalists_are_what_pools_and_trainings_say(search, monkeypatch):
    result = images.run(str(search), table="table.csv", truth="truth", results="study", **FEW)
    assert [line[:2] for line in result.rows] == [["random_search", 2], ["mutated", 2]]
    trainings = {}
    for row in result.data["trainings"]:
        trainings.setdefault(row["genotype"], []).append(row)
    assert {len({row["seed"] for row in rows}) for rows in trainings.values()} == {2}, "alike for all"
    finals = Finals("study").names()
    assert len(finals) == sum(map(len, trainings.values())), "each once, whoever found it"
    for label, line in zip(("random_search", "mutated"), result.rows, strict=True):
        tests, best, means, ranks, later = [], [], [], [], []
        for folder in sorted((search.parent / "study" / "pools").glob(f"{label}-*")):
            trials = PoolReader.open(str(folder)).trials().sort_values("trial_id")
            chosen = trials.sort_values("valid_accuracy", ascending=False, kind="stable")["genotype"][:2]
            tests.append(np.mean([row["test"] for key in chosen for row in trainings[key]]))
            best.append(trials["valid_accuracy"].max())
            means.append(trials["valid_accuracy"][1:].mean())
            later.append(trials["genotype"][1:].str.count("conv").mean())
            ranks.append(chosen.iloc[0].count("conv"))
        shown = dict(zip(result.columns, line, strict=True))
        for name, values in {"best@3": best, "mean after 1": means, "test": tests}.items():
            assert shown[name].startswith(f"{np.mean(values):.3f} ± "), name
        assert shown["of the best"].startswith(f"{np.mean(ranks) + 50:.2f} ± ")
        assert shown["table, after 1"].startswith(f"{np.mean(later) + 50:.2f} ± ")
    monkeypatch.setattr(images, "search_with", lambda *_, **__: pytest.fail("it is done"))
    monkeypatch.setattr(_noise, "_evaluator", lambda *_: pytest.fail("it is done"))
    monkeypatch.setattr("nao_ray.training.fit.fit", lambda *_, **__: pytest.fail("it is done"))
    again = images.run(str(search), table="table.csv", truth="truth", results="study", **FEW)
    assert (again.rows, again.notes) == (result.rows, result.notes)
    assert json.loads(json.dumps(again.data))["noise"] == result.data["noise"]


def test_noise_alone_is_a_line_per_architecture(search):
    result = images.run(str(search), parts="noise", noise=3, repeats=2)
    assert result.columns == ["architecture", "n", "validation"]
    (first, second) = result.data["noise"]
    assert first["genotypes"] == second["genotypes"]
    assert first["values"] != second["values"]
    means = [float(line[2].split()[0]) for line in result.rows]
    assert means == sorted(means, reverse=True)
    assert means[0] == pytest.approx(np.mean([first["values"], second["values"]], axis=0).max(), abs=1e-4)


def test_what_trainings_differ_by_is_taken_from_what_architectures_differ_by():
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 3, 2000) + draw.normal(0, 2, (4, 2000))
    assert Noise(scores).within == pytest.approx(2, rel=0.05)
    assert Noise(scores).between == pytest.approx(3, rel=0.05)
    assert Noise(draw.normal(0, 2, (2, 2000))).between < 1
    assert np.isnan(Noise(scores[:1]).within)
    assert pooled([[1.0, 3.0], [5.0]]) == pytest.approx(2**0.5), "one alone says nothing"


def test_what_cannot_be_compared_is_refused(search):
    text = search.read_text().replace("{trials: 3}", "{hours: 1}")
    search.with_name("timed.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^timed.yaml: the budget has no number of trials, which all strategies"):
        images.run("timed.yaml")
    with pytest.raises(ConfigError, match=r"^nas_bench_201: its evaluator tabular trains no networks on their own$"):
        images.run("nas_bench_201", **{"evaluator.path": "table.parquet"})
    with pytest.raises(ConfigError, match="parts=finalists: they are of searches"):
        images.run("tiny.yaml", parts="noise,finalists")
    with pytest.raises(ConfigError, match="parts=quiet: expected some of noise, searches, finalists"):
        images.run("tiny.yaml", parts="quiet")
    with pytest.raises(
        ConfigError, match=r"^bench images other\.sample: expected key or SECTION\.key with a SECTION of nao,"
    ):
        images.run("tiny.yaml", **{"other.sample": 1})
