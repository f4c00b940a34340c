"""Searches for recurrent cells end to end, in one process: real trainings of tiny networks on a made-up text."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run

pytestmark = pytest.mark.usefixtures("fresh_modules")

CONFIG = """
name: cells
space: SPACE
task: {name: made_up_text, words: 60, letters: 3, gap: 1}
evaluator: {name: standalone, hidden: 4, epochs: 1, recipe: RECIPE}
strategy: STRATEGY
budget: {trials: 8}
"""
RECIPE = "{name: short_text, batch: 4, lr: 1.0}"
NAO = (
    "{name: nao, mode: rounds, seeds: 5, rounds: 1, round_size: 3, pretraining: {steps: 5, genotypes: 20}, "
    "candidates: 12, neighbours: 2}"
)
OWN = """
from nao_ray.spaces.parts.recurrent_cell import RecurrentSpace

class Two(RecurrentSpace):
    activations = ("relu", "tanh")
"""


def configured(folder, strategy, space="{name: nao_rnn, nodes: 3}"):
    text = CONFIG.replace("SPACE", space).replace("STRATEGY", strategy).replace("RECIPE", RECIPE)
    (folder / "cells.yaml").write_text(text)
    return "cells.yaml"


def trials():
    rows = PoolReader.open("pools/cells").trials()
    assert rows["valid_perplexity"].between(1, 10).all()
    assert rows["valid_accuracy"].isna().all()
    assert rows["hidden"].eq(4).all()
    return rows


def test_nao_brings_perplexity_down_and_says_so(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    done = call("search", configured(tmp_path, NAO), "--in-process")
    assert done.code == 0, done.err
    rows = trials()
    assert len(rows) == 8
    assert rows["num_params"].eq(4 * 4 + 4 + 64 + 3 * 32).all()
    assert (rows["network"].iloc[0], rows["num_classes"].iloc[0]) == ("text", 4)
    least = rows.sort_values("valid_perplexity").iloc[0]
    assert str(least["genotype"]) in call("pool", "pools/cells", "best", "--json").out
    assert f"best perplexity {least['valid_perplexity']:.2f} (trial {least['trial_id']})" in done.err
    assert done.out.split("\n")[2].split()[:2] == [str(least["trial_id"]), f"{least['valid_perplexity']:.4f}"]
    shown = call("describe", "pools/cells:best")
    assert "text, H = 4, 4 words" in shown.out
    assert "per token" in shown.out
    page = (tmp_path / "pools" / "cells" / "report.html").read_text()
    assert "validation perplexity" in page
    assert "h_{t-1}" in page
    run(RunConfig.load("cells.yaml"), "pools/cells", in_process=True)
    assert len(trials()) == 8


@pytest.mark.parametrize("strategy", ["random_search", "{name: regularized_evolution, population: 3, sample: 2}"])
def test_others_search_too(tmp_path, monkeypatch, strategy):
    monkeypatch.chdir(tmp_path)
    run(RunConfig.load(configured(tmp_path, strategy)), "pools/cells", in_process=True)
    assert trials()["genotype"].nunique() == 8


def test_a_search_in_a_space_of_ones_own_with_two_activations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(OWN)
    space = '{name: "two:Two", nodes: 2}'
    run(RunConfig.load(configured(tmp_path, "random_search", space)), "pools/cells", in_process=True)
    rows = trials()
    found = {word.partition(":")[2] for key in rows["genotype"] for word in key.split()}
    assert found == {"relu", "tanh"}
    assert rows["genotype"].nunique() == 7, "all of them"
