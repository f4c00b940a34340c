"""Cells of a table scored with the shared weights of a pool that has not asked for them."""

import json

import numpy as np
import pandas as pd
import pytest

from nao_ray import registry, rng
from nao_ray.cli import table as command
from nao_ray.cli.table_audit import open_table
from nao_ray.cli.table_score import TableScore
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Group
from nao_ray.metric import ACCURACY
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.parts.alpha_watch import skips
from nao_ray.trial import Fidelity, Phase, Proposal

CONFIG = """
name: cells
space: nas_bench_201
task: {name: synthetic, classes: 2, per_class: 40}
evaluator: {name: one_shot, cells_per_stage: 1, channels: 2, batch: 4, recipe: {crop_padding: 1, flip: false, batch: 8}}
strategy: {name: shared_random_search, rounds: 1, epochs: 1, paths: 3, scored: 3, finalists: 0, audited: 0}
budget: {trials: 10}
"""
CELLS = [
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|",
    "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|none~2|",
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
]  # two have equally many parameters, two others skip connections
PHASE = {"version": "e00001", "source": None, "first_epoch": 0, "last_epoch": 1}


class Pool:
    """A reader's, of a search whose weights were trained for an epoch."""

    url, metric = "pools/p", ACCURACY

    def __init__(self, weights, text=CONFIG, phases=(PHASE,)):
        self.manifest = {"config": text}
        self._weights = {"e00001": weights}
        rows = [{"trial_id": i, "phase": json.dumps(phase), "state": "COMPLETED"} for i, phase in enumerate(phases)]
        self._frame = pd.DataFrame(rows, columns=["trial_id", "phase", "state"])

    def trials(self, columns):
        return self._frame[columns]

    def read_weights(self, version):
        return self._weights[version]


@pytest.fixture(scope="module")
def trained():
    evaluator = RunConfig.parse(CONFIG).make_evaluator()
    phase = Phase(**PHASE, genotypes=tuple(CELLS), seed=1)
    _, weights = evaluator.train(Proposal(genotype=Genotype("nas_bench_201", "e00001"), phase=phase), None, Group())
    return evaluator, weights


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "table.csv"
    pd.DataFrame({"arch_str": CELLS, "valid": [94.0, 91.0, 85.0, 54.0]}).to_csv(path, index=False)
    return path


def known(csv):
    space = RunConfig.parse(CONFIG).make_space()
    return open_table(space, {"path": str(csv), "valid": "valid", "partial": True, "twins": "distinct"})


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_score_is_that_of_the_search_on_as_many_validation_examples(trained, csv, share):
    evaluator, weights = trained
    found = TableScore(Pool(weights), known(csv), share=share)
    evaluator.use("e00001", weights)
    fidelity = Fidelity(weights_version="e00001", valid_share=share)
    alone = [evaluator.evaluate(Proposal(genotype=cell, fidelity=fidelity)).valid_accuracy for cell in found.cells]
    assert found.scores() == pytest.approx(alone)


def test_rankings_that_cost_nothing_stand_beside_it(trained, csv):
    found = TableScore(Pool(trained[1]), known(csv)).agreement(np.array([0.1, 0.2, 0.3, 0.4])).set_index("ranked by")
    assert found["tau"].to_dict() == pytest.approx(
        {"weights e00001": -1, "more parameters": 5 / 30**0.5, "fewer skip connections": 1 / 30**0.5}, abs=1e-3
    )
    assert found["n"].tolist() == [4, 4, 4]
    assert found.loc["weights e00001", "its rank"] == 4


def test_skip_connections_are_counted_where_a_cell_has_some():
    found = {}
    for name in ("nao_rnn", "darts_rnn", "nao_cnn_small", "darts_cnn"):
        space = registry.load("space", name)()
        found[name] = sum(sum(skips(space, space.sample(rng.child(k, "cell"))).values()) for k in range(20))
    assert found["nao_rnn"] == found["darts_rnn"] == 0
    assert min(found["nao_cnn_small"], found["darts_cnn"]) > 0
    assert skips(space, space.sample(rng.child(0, "cell"))).keys() == {"normal", "reduction"}


def test_the_command(trained, csv, monkeypatch, capsys):
    monkeypatch.setattr("nao_ray.pool.PoolReader.open", lambda _: Pool(trained[1]))
    monkeypatch.setattr("nao_ray.cli.pool.make_space", lambda _: RunConfig.parse(CONFIG).make_space())
    out = csv.with_name("scores.csv")
    settings = ["valid=valid", "partial=true", "twins=distinct"]
    command.score("pools/p", csv, settings, count=3, out=out)
    assert "3 of 4 architectures" in capsys.readouterr().out
    written = pd.read_csv(out)
    assert list(written) == ["genotype", "value", "score"]
    assert len(written) == 3


def test_scores_that_are_no_numbers_rank_nothing(trained, csv, monkeypatch, capsys):
    """They counted as ties in a tau of all cells, and the best one was of them."""
    found = TableScore(Pool(trained[1]), known(csv))
    rows = found.agreement(np.array([0.3, np.nan, 0.2, 0.1])).set_index("ranked by")
    assert rows["n"].tolist() == [3, 3, 3]
    assert rows["tau"]["weights e00001"] == 1
    assert rows["its rank"]["weights e00001"] == 1
    with pytest.raises(
        ConfigError, match=r"^weights e00001 give 2 of 4 cells a finite score, which ranks nothing: name"
    ):
        found.agreement(np.array([0.3, np.nan, np.inf, 0.1]))
    monkeypatch.setattr("nao_ray.pool.PoolReader.open", lambda _: Pool(trained[1]))
    monkeypatch.setattr("nao_ray.cli.pool.make_space", lambda _: RunConfig.parse(CONFIG).make_space())
    monkeypatch.setattr(TableScore, "scores", lambda _: np.array([0.3, np.nan, 0.2, 0.1]))
    command.score("pools/p", csv, ["valid=valid", "partial=true", "twins=distinct"], count=None, out=None)
    assert "4 of 4 architectures, without 1 whose score is no finite number" in capsys.readouterr().out


def test_two_cells_are_no_ranking(trained, csv):
    pd.read_csv(csv).head(2).to_csv(csv, index=False)
    with pytest.raises(ConfigError, match=r"^a table of 2 architectures ranks nothing: give one of at least 3$"):
        TableScore(Pool(trained[1]), known(csv))


def test_without_shared_weights_it_is_refused(trained, csv):
    with pytest.raises(ConfigError, match=r"^pools/p has no shared weights yet$"):
        TableScore(Pool(trained[1], phases=()), known(csv))
    alphas = CONFIG.replace("one_shot", "darts").replace(" batch: 4,", "").replace("shared_random_search", "darts")
    alphas = alphas.replace("rounds: 1, epochs: 1, paths: 3, scored: 3, finalists: 0, audited: 0", "epochs: 1")
    alphas = alphas.replace("recipe: {", "recipe: {name: darts_search, ")
    with pytest.raises(ConfigError, match=r"^pools/p: the evaluator darts has no weights that score a cell$"):
        TableScore(Pool(trained[1], alphas), known(csv))
