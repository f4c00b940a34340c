"""Searches for recurrent cells end to end, in one process: real trainings of tiny networks on a made-up text."""

import pytest

from nao_ray import registry
from nao_ray.config import RunConfig
from nao_ray.contracts.spaces import check_space
from nao_ray.page.bundle import unpacked
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run
from tests.tasks import _made_up_data as made

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
    told = unpacked((tmp_path / "pools" / "cells" / "report.html").read_text())["responses"]
    assert told["api/pools"]["pools"][0]["metric"]["label"] == "validation perplexity"
    assert told["api/pools"]["pools"][0]["is_recurrent"]
    assert "h_{t-1}" in told[f"api/pools/0/trials/{told['api/pools/0/report']['best'][0]['trial']}"]["svg"]
    run(RunConfig.load("cells.yaml"), "pools/cells", in_process=True)
    assert len(trials()) == 8


@pytest.mark.parametrize("strategy", ["random_search", "{name: regularized_evolution, population: 3, sample: 2}"])
def test_others_search_too(tmp_path, monkeypatch, strategy):
    monkeypatch.chdir(tmp_path)
    run(RunConfig.load(configured(tmp_path, strategy)), "pools/cells", in_process=True)
    assert trials()["genotype"].nunique() == 8


@pytest.mark.parametrize(("strategy", "nodes"), [("random_search", 2), (NAO, 3)], ids=["random", "nao"])
def test_a_search_in_a_space_of_ones_own_with_two_activations(tmp_path, monkeypatch, strategy, nodes):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(OWN)
    space = f'{{name: "two:Two", nodes: {nodes}}}'
    run(RunConfig.load(configured(tmp_path, strategy, space)), "pools/cells", in_process=True)
    rows = trials()
    found = {word.partition(":")[2] for key in rows["genotype"] for word in key.split()}
    assert found == {"relu", "tanh"}
    assert rows["genotype"].nunique() == {2: 7, 3: 8}[nodes], "all of them, or all of the budget"
    check_space(registry.load("space", "two:Two"), examples=3)


def test_a_text_that_is_not_there_any_more_or_another_stops_a_search_and_loses_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    train = made.text(tmp_path / "text") / "made.train.txt"
    config = tmp_path / configured(tmp_path, "random_search")
    config.write_text(
        config.read_text().replace("{name: made_up_text, words: 60, letters: 3, gap: 1}", "{name: ptb, path: text}")
    )
    text = train.read_bytes()
    for wrong in (b"", b"\x89PNG\x00"):
        train.write_bytes(wrong)
        done = call("search", "cells.yaml", "--in-process")
        assert (done.code, done.err.strip().count("\n")) == (2, 0), done.err
        assert not (tmp_path / "pools").exists()
    train.write_bytes(text)
    assert call("search", "cells.yaml", "--in-process", "--set", "budget.trials=2").code == 0
    files = {file: file.read_bytes() for file in (tmp_path / "pools").rglob("*") if file.is_file()}
    for other in (b"", b"other words\n" * 90):
        train.write_bytes(other)
        done = call("resume", "pools/cells", "--in-process", "--set", "budget.trials=3")
        assert (done.code, done.err.strip().count("\n")) == (2, 0), done.err
        assert "is empty" in done.err or "was searched on other data" in done.err
        assert {file: file.read_bytes() for file in (tmp_path / "pools").rglob("*") if file.is_file()} == files
    train.write_bytes(text.replace(b"\n", b"\r\n"))
    assert call("resume", "pools/cells", "--in-process", "--set", "budget.trials=3").code == 0
    assert len(PoolReader.open("pools/cells").trials()) == 3
