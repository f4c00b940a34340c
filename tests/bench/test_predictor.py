"""How predictors are judged."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nao_ray import registry, rng
from nao_ray.bench import _scored, predictor
from nao_ray.bench._nlp_space import NlpRecipes
from nao_ray.contracts.spaces import check_space
from nao_ray.errors import ConfigError, DataError, GenotypeError
from nao_ray.metric import PERPLEXITY


def test_the_rank_of_the_best_of_the_chosen():
    truth = np.array([0.1, 0.9, 0.5, 0.7, 0.8])
    assert predictor.best_rank(truth, truth, top=1) == 1
    assert predictor.best_rank(-truth, truth, top=1) == 5
    assert predictor.best_rank(np.array([5, 0, 4, 3, 0]), truth, top=3) == 3
    assert predictor.best_rank(-truth, truth, top=5) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"predictors": "gp,nonsense"},
            "no predictor 'nonsense'; there are gp, embedding, mlp, operations, parameters",
        ),
        ({"sizes": "50,x"}, "sizes >= 2 by commas"),
        ({"sizes": 1}, "sizes >= 2 by commas"),
        ({"repeats": 0}, "repeats >= 1"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ConfigError, match=told):
        predictor.run(**settings)


def test_a_missing_table_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NAO_RAY_DATA", str(tmp_path))
    with pytest.raises(DataError, match="darts_random_214"):
        predictor.run(datasets="")
    with pytest.raises(DataError, match=r"nas_bench_nlp_wikitext2.* or give nlp=false"):
        predictor.run(datasets="", darts=False)


def test_the_cells_of_nas_bench_nlp_are_a_space_in_one_file():
    check_space(NlpRecipes, examples=3)


GRU = {
    "h_new_0": {"op": "blend", "input": ["z_act", "h_prev_0", "new"]},
    "z": {"op": "linear", "input": ["x", "h_prev_0"]},
    "z_act": {"op": "activation_sigm", "input": ["z"]},
    "new": {"op": "activation_tanh", "input": ["z"]},
}


def test_a_recipe_is_read_level_by_level():
    space = NlpRecipes()
    (_, cell), *_ = space.lower(space.parse(json.dumps(GRU), "recipe")).cells
    assert [[(edge.source, edge.op) for edge in node] for node in cell.nodes[:5]] == [
        [(0, "linear"), (1, "linear")],
        [(6, "tanh")],
        [(6, "sigmoid")],
        [(8, "gate"), (1, "open"), (7, "closed")],
        [],
    ]
    assert cell.output == (9,)
    loop = {**GRU, "z": {"op": "linear", "input": ["x", "h_new_0"]}}
    for wrong in (
        loop,
        {**GRU, "z": {"op": "conv", "input": ["x"]}},
        ["z"],
        {f"node_{i}": GRU["z"] for i in range(16)},
    ):
        with pytest.raises(GenotypeError, match="space nas_bench_nlp: no recipe of at most 15 nodes: ") as told:
            space.parse(json.dumps(wrong), "recipe")
        assert "\n" not in str(told.value)


def test_equal_cells_of_a_table_are_one(monkeypatch, tmp_path):
    folder = tmp_path / "nas_bench_nlp_wikitext2"
    folder.mkdir()
    other = {**GRU, "new": {"op": "activation_sigm", "input": ["z"]}}
    rows = [
        (GRU, 4.0, "OK"),
        (dict(reversed(GRU.items())), 5.0, "OK"),
        (other, 6.0, "OK"),
        (other, 9.0, "loss is nan!"),
    ]
    frame = pd.DataFrame(rows, columns=["recepie", "best_val_loss", "status"]).assign(num_params=7)
    frame["recepie"] = frame["recepie"].map(json.dumps)
    frame.to_parquet(folder / "nas_bench_nlp_wikitext2.parquet")
    monkeypatch.setenv("NAO_RAY_DATA", str(tmp_path))
    scored = _scored.nas_bench_nlp()
    assert scored.scores.tolist() == [-4.5, -6.0]
    assert scored.parameters.tolist() == [7, 7]


def of_perplexities(count, parameters=700):
    """A pool of recurrent cells that are the better the more of their nodes are relu; some rows are of no cell."""
    space = registry.load("space", "nao_rnn")()
    cells = [space.sample(rng.child(0, "cell", k)).key for k in range(count)]
    frame = pd.DataFrame({"genotype": cells, "valid_perplexity": [200.0 - 9 * text.count("relu") for text in cells]})
    frame = frame.assign(state="COMPLETED", num_params=parameters, weights_version=None)
    others = [
        {"genotype": cells[0], "valid_perplexity": 1.0, "state": "COMPLETED", "weights_version": "v1"},
        {"genotype": cells[1], "valid_perplexity": np.nan, "state": "FAILED"},
    ]
    frame = pd.concat([frame, pd.DataFrame(others)]).assign(epochs=8, parent_trial_id=None)
    return space, SimpleNamespace(metric=PERPLEXITY, rungs=(), trials=lambda columns, rungs: frame[columns])


def test_a_pool_of_ones_own_is_ranked_by_folds(monkeypatch):
    """What decides the score is what `operations` sees; parameters, of which all cells have as many, rank nothing."""

    def pool(*given):
        space, reader = of_perplexities(*given)
        monkeypatch.setattr(_scored, "_space", lambda _: space)
        monkeypatch.setattr(_scored.PoolReader, "open", lambda _: reader)
        return "pools/cells"

    short = {"pretraining": {"steps": 2, "genotypes": 20, "batch": 8}}
    monkeypatch.setattr(predictor, "PREDICTORS", {"embedding": {"gp": {"views": ["embedding"]}, **short}})
    result = predictor.run("operations,parameters,embedding", pool=pool(30), repeats=2)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    assert [(row["predictor"], row["n"], row["of"]) for row in rows] == [
        (name, 10, 6) for name in ("operations", "parameters", "embedding")
    ]
    assert float(rows[0]["Kendall tau"].split()[0]) > 0.9
    assert rows[1]["Kendall tau"] == "none"
    told = re.match(
        r"operations, all 30 of pools/cells, .*: tau (\S+), 95 % of resamples in \[(\S+), (\S+)\]", result.notes[1]
    )
    tau, low, high = map(float, told.groups())
    assert 0.8 < low < tau < high <= 1
    assert result.notes[2].startswith("parameters ranks none of ")
    assert float(rows[2]["Kendall tau"].split()[0]) < 0.9
    with pytest.raises(ConfigError, match="has 9 architectures trained alone, expected 10 or more"):
        predictor.run("operations", pool=pool(9))
    with pytest.raises(ConfigError, match="numbers of parameters in pools/cells are not known"):
        predictor.run("parameters", pool=pool(10, None))


@pytest.mark.slow
def test_more_architectures_teach_more_and_folds_leave_nothing_out(data_folder, monkeypatch):
    short = {
        "pretraining": {"steps": 10, "genotypes": 200}
    }  # of the encoder, which only proposes: predicted is by the descriptors
    monkeypatch.setattr(predictor, "PREDICTORS", {"gp": short})
    result = predictor.run(predictors="gp", datasets="cifar100", sizes="10,50", repeats=1, nlp=False)
    few, many, folds = (dict(zip(result.columns, row, strict=True)) for row in result.rows)
    assert float(few["Kendall tau"].split()[0]) < float(many["Kendall tau"].split()[0])
    assert float(many["Kendall tau"].split()[0]) > 0.6, "published predictors reach 0.6 to 0.8"
    assert many[f"N@{predictor.TOP}"] < 30
    assert (folds["table"], folds["n"], folds["of"]) == ("darts_random_214", 5, 43)


def test_of_a_ladder_one_rung_is_ranked(monkeypatch):
    space = registry.load("space", "nao_rnn")()
    cells = [space.sample(rng.child(0, "cell", k)).key for k in range(12)]
    climbed = [(2, None, 300.0, cells), (4, 0, 200.0, cells[:6]), (8, 1, 100.0, cells[:2])]
    rows = [
        {"genotype": text, "epochs": epochs, "parent_trial_id": parent, "valid_perplexity": value + k}
        for epochs, parent, value, some in climbed
        for k, text in enumerate(some)
    ]
    frame = pd.DataFrame(rows).assign(state="COMPLETED", num_params=7, weights_version=None)
    reader = SimpleNamespace(metric=PERPLEXITY, rungs=(2, 4, 8), trials=lambda columns, rungs: frame[columns])
    monkeypatch.setattr(_scored, "_space", lambda _: space)
    monkeypatch.setattr(_scored.PoolReader, "open", lambda _: reader)
    for fewest, rung, best in ((2, 8, 100), (3, 4, 200), (10, 2, 300)):
        scored = _scored.of_pool("pools/cells", fewest)
        assert scored.rung == rung
        assert scored.scores.tolist() == [-best - k for k in range(len(scored.scores))]
    with pytest.raises(ConfigError, match="has 12 architectures trained alone, expected 13 or more"):
        _scored.of_pool("pools/cells", 13)
    noted = predictor.run("operations", pool="pools/cells", repeats=1).notes
    assert "pools/cells: those after 2 epochs." in noted
