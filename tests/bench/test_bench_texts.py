"""Searches on texts beside their controls, each one's best trained anew."""

import json

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import shared, texts
from nao_ray.errors import ConfigError
from nao_ray.pool import PoolReader

SEARCH = """
name: NAME
space: {name: nao_rnn, nodes: 3}
task: {name: made_up_text, words: 60, letters: 3, gap: 1}
evaluator: EVALUATOR
strategy: STRATEGY
budget: {trials: 4}
"""
RECIPE = "{name: short_text, batch: 4, lr: 1.0, restarts: 0}"
ALONE = f"{{name: standalone, hidden: 4, epochs: 1, recipe: {RECIPE}}}"
SHARED = (
    f"{{name: one_shot, hidden: 4, period: 2, batch: 4, recipe: {RECIPE}, "
    f"alone: {{hidden: 4, epochs: 1, recipe: {RECIPE}}}}}"
)
DRAWN = (
    "{name: enas, preset: enas_rnn, rounds: 2, epochs: 1, paths: 4, updates: 1, candidates: 5, finalists: 2, "
    "audited: 3, lstm: {num_aggregate: 3}}"
)
MUTATED = "{name: regularized_evolution, population: 2, sample: 1}"


@pytest.fixture
def presets(tmp_path, monkeypatch, fresh_modules):
    monkeypatch.chdir(tmp_path)
    for name, evaluator, strategy in (("mutated", ALONE, MUTATED), ("drawn", SHARED, DRAWN)):
        text = SEARCH.replace("NAME", name).replace("EVALUATOR", evaluator).replace("STRATEGY", strategy)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_a_search_and_its_control_are_trained_anew_alike(presets, monkeypatch):
    result = texts.run("mutated.yaml", seeds=1, epochs=1, trainings=2, results="study")
    assert [line[:3] for line in result.rows] == [["nao_rnn", "mutated", 1], ["nao_rnn", "random_search", 1]]
    rows = pd.read_parquet("study/rows").set_index("label")
    for label, row in rows.iterrows():
        (folder,) = (presets / "study" / "pools").glob(f"{label}-*")
        trials = PoolReader.open(str(folder)).trials()
        assert len(trials) == row["trials"] == 4
        best = trials.sort_values("valid_perplexity").iloc[0]
        assert (best["genotype"], best["valid_perplexity"]) == (row["genotype"], row["best"])
        assert len(set(row["test"])) == 2
        assert all(1 < value < 100 for value in row["test"])
    mine, its = (np.mean(rows.loc[label, "test"]) for label in ("mutated", "random_search"))
    assert result.rows[0][5].startswith(f"{its - mine:.2f} ± "), "less is better"
    assert json.loads(json.dumps(result.data)) == result.data
    monkeypatch.setattr(texts, "_perform", lambda job: pytest.fail("it is done"))
    assert texts.run("mutated.yaml", seeds=1, epochs=1, trainings=2, results="study").rows == result.rows


def test_shared_weights_are_compared_by_perplexities(presets):
    result = shared.run("drawn.yaml", seeds=1, processes=1, results="study")
    rows = pd.read_parquet("study/rows").set_index("label")
    mine, its = (-np.mean(rows.loc[label, "finalists"]) for label in ("drawn", shared.CONTROL))
    assert 1 < mine < 100
    assert result.rows[0][3].startswith(f"{mine:.2f} ± ")
    assert float(result.rows[0][4].split()[0]) == pytest.approx(its - mine, abs=0.006), "less is better"
    assert result.notes[0].startswith("Validation perplexity of networks trained alone")
    found = texts.run("drawn.yaml", seeds=1, epochs=1, results="anew")
    assert [line[1] for line in found.rows] == ["drawn", shared.CONTROL]
    assert float(found.rows[0][3].split()[0]) == pytest.approx(-max(rows.loc["drawn", "finalists"]), abs=0.006)


def test_what_cannot_be_compared_is_refused(presets):
    text = (presets / "mutated.yaml").read_text().replace("{trials: 4}", "{hours: 1}")
    (presets / "timed.yaml").write_text(text.replace("name: mutated", "name: timed"))
    with pytest.raises(ConfigError, match=r"^timed: the budget has no number of trials, which its control would have"):
        texts.run("timed.yaml")
    with pytest.raises(ConfigError, match=r"^nas_bench_201: its evaluator tabular trains no networks on their own$"):
        texts.run("nas_bench_201", **{"evaluator.path": "table.parquet"})
