"""Tables of other people: losses, twins that were trained apart, operations that nobody named, other units."""

import itertools
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import tabular as study
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError, GenotypeError
from nao_ray.evaluators.closed_form import accuracy
from nao_ray.evaluators.tabular import Tabular, TabularConfig
from nao_ray.metric import ACCURACY, PERPLEXITY, Metric
from nao_ray.pool import PoolReader, Watch
from nao_ray.service.hosting.run import run
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.trial import Proposal

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3")
SPACE = NasBench201(NasBench201Config(ops=OPS))
FEWER = ("none", "skip_connect", "nor_conv_3x3")
"""Of the table that searches run on: each reads it anew."""
APART = NasBench201(NasBench201Config(ops=OPS, twins="distinct"))


def _texts(space, ops):
    return [space.decode(np.array(tokens) + 1) for tokens in itertools.product(range(len(ops)), repeat=6)]


@pytest.fixture(scope="module")
def cells():
    """All 4,096 texts of four operations."""
    return _texts(SPACE, OPS)


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    """A table of them."""
    return _written(SPACE, cells, tmp_path_factory.mktemp("foreign") / "table.parquet")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The same of the 729 texts of three operations."""
    space = NasBench201(NasBench201Config(ops=FEWER))
    return _written(space, _texts(space, FEWER), tmp_path_factory.mktemp("small") / "table.parquet")


def _written(space, cells, path):
    """Equal cells have one `merged` score, and each another `apart`; the best of these is no class's first row."""
    canonical = [space.canonical(cell) for cell in cells]
    merged = np.array([accuracy(space.lower(cell)) for cell in canonical])
    apart = np.round(1024 * merged) / 1024 + np.arange(len(cells)) % 7 / 4096
    firsts = {cell.key for cell in canonical}
    apart[next(row for row, cell in enumerate(cells) if cell.key not in firsts)] = 0.9999
    frame = pd.DataFrame({"arch_str": [cell.key for cell in cells], "merged": merged, "apart": apart})
    frame["val_loss"], frame["mirror"] = 2 * (1 - apart), 1 - apart
    frame["a_seconds"], frame["slow_b"] = 10.0, 70.0
    frame.to_parquet(path)
    return path


def table(path, space=SPACE, **settings):
    return Tabular(space, None, TabularConfig(path=str(path), **{"unit": "fraction", **settings}))


# -- twins ----------------------------------------------------------------------------------------------------


def test_the_values_of_a_table_decide_how_twins_are_treated(path):
    same, differ = table(path, valid="merged"), table(path, valid="apart")
    assert len(same) == SPACE.num_architectures == 1236
    assert same.settled() == {"evaluator": {"twins": "merge"}}
    assert len(differ) == 4096
    assert differ.settled() == {"evaluator": {"twins": "distinct"}, "space": {"twins": "distinct"}}
    line = same.facts().line
    assert "4,096 rows, 1,236 different networks" in line
    assert "in 0 of" in line
    assert line.endswith("the first row stands for its twins (evaluator.twins=merge)")
    line = differ.facts().line
    assert line.endswith("each row is an architecture of its own (evaluator.twins=distinct)")


def test_twins_can_be_treated_otherwise(path, cells):
    frame = pd.read_parquet(path)
    classes = pd.Series([SPACE.canonical(cell).key for cell in cells])
    merged, mean = table(path, valid="apart", twins="merge"), table(path, valid="apart", twins="mean")
    assert len(merged) == len(mean) == 1236
    means = frame["apart"].groupby(classes).mean()
    firsts = frame["apart"].groupby(classes).first()
    for cell in cells[::97]:
        key = SPACE.canonical(cell).key
        assert merged.evaluate(Proposal(genotype=cell)).score == firsts[key]
        assert mean.evaluate(Proposal(genotype=cell)).score == pytest.approx(means[key], abs=1e-12)


def test_a_space_that_only_merges_refuses_distinct_twins(path, monkeypatch):
    monkeypatch.setattr(NasBench201, "may_be_distinct", False)
    assert table(path, valid="apart").settled() == {"evaluator": {"twins": "mean"}}
    with pytest.raises(ConfigError, match="merges twins; choose merge or mean"):
        table(path, valid="apart", twins="distinct").settled()


def test_a_space_of_distinct_twins_has_every_text():
    rng = np.random.default_rng(0)
    assert (APART.num_architectures, APART.num_classes) == (4096, 1236)
    genotypes = [APART.sample(rng) for _ in range(300)]
    assert any(SPACE.canonical(genotype) != genotype for genotype in genotypes)
    tokens = np.stack([APART.encode(genotype) for genotype in genotypes])
    assert (APART.twins(tokens, rng) == tokens).all(), "none is another's equal"
    for genotype in genotypes:
        mutant = APART.mutate(genotype, rng)
        assert (APART.encode(mutant) != APART.encode(genotype)).sum() == 1


def config(path, *, trials=30, strategy="regularized_evolution", **evaluator):
    settings = {"name": "tabular", "path": str(path), "unit": "fraction", **evaluator}
    return RunConfig(
        name="t", space={"name": "nas_bench_201", "ops": FEWER}, evaluator=settings, strategy=strategy,
        budget={"trials": trials},
    )  # fmt: skip


def search(config, folder):
    return run(config, str(folder), in_process=True)


def test_a_search_over_distinct_twins_is_one_over_texts_and_goes_on_as_such(small, tmp_path, caplog):
    with caplog.at_level("INFO", "nao_ray"):
        search(config(small, valid="apart"), tmp_path / "pool")
    assert "each row is an architecture of its own" in caplog.text
    pool = PoolReader.open(tmp_path / "pool")
    recorded = pool.manifest["config"]
    assert (recorded["space"]["twins"], recorded["evaluator"]["twins"]) == ("distinct", "distinct")
    trials = pool.trials()
    assert (trials["state"] == "COMPLETED").all()
    keys = [SPACE.canonical(SPACE.parse(text)).key for text in trials["genotype"]]
    assert keys != trials["genotype"].tolist()
    search(config(small, trials=36, valid="apart"), tmp_path / "pool")
    assert len(PoolReader.open(tmp_path / "pool").trials()) == 36


def test_a_pool_of_before_goes_on_merging(small, tmp_path):
    import yaml

    search(config(small, valid="apart", twins="merge"), tmp_path / "pool")
    manifest = yaml.safe_load((tmp_path / "pool" / "run.yaml").read_text())
    for section, names in (("evaluator", ("twins", "goal", "metric", "partial")), ("space", ("twins",))):
        for name in names:
            del manifest["config"][section][name]
    del manifest["metric"]
    (tmp_path / "pool" / "run.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    search(config(small, trials=36, valid="apart"), tmp_path / "pool")
    trials = PoolReader.open(tmp_path / "pool").trials()
    assert len(trials) == 36
    assert all(SPACE.canonical(SPACE.parse(text)).key == text for text in trials["genotype"])


# -- losses ---------------------------------------------------------------------------------------------------


def test_what_is_measured_follows_from_goal_and_unit():
    make = partial(TabularConfig, path="t")
    assert make(valid="acc").measure == ACCURACY
    assert make(valid="val_loss", goal="minimize").measure == Metric("loss", "", "minimize")
    assert make(valid="valLoss", goal="minimize", unit="nats").measure == Metric("loss", "nats", "minimize")
    assert make(valid="ptb_ppl", goal="minimize").measure == PERPLEXITY
    assert make(valid="bleu", metric="bleu").measure == Metric("bleu")
    assert make(valid="top5_err", goal="minimize", unit="percent").measure == Metric("error", "percent", "minimize")
    for wrong in ({"metric": "accuracy", "goal": "minimize"}, {"metric": "accuracy", "unit": "nats"}):
        with pytest.raises(ValueError, match=r"accuracy"):
            make(valid="acc", **wrong)


@pytest.mark.parametrize("column", ["val_loss", "top1_err", "wikitext2_ppl", "edge_gpu_latency", "testError", "nll"])
def test_a_column_that_is_a_loss_by_name_is_doubted_when_it_is_maximised(column):
    assert f"the column {column} is maximised" in TabularConfig(path="t", valid=column).doubt
    assert TabularConfig(path="t", valid=column, goal="minimize").doubt is None
    assert TabularConfig(path="t", valid="cifar10_valid_acc_200", test="flossy").doubt is None


def test_a_loss_is_minimised_from_the_search_to_its_last_word(small, tmp_path, caplog):
    chosen = config(small, valid="val_loss", goal="minimize", unit="nats", twins="merge")
    seen = []
    run(chosen, str(tmp_path / "pool"), listener=seen.append, in_process=True)
    pool = PoolReader.open(tmp_path / "pool")
    trials = pool.trials()
    assert trials["valid_accuracy"].isna().all()
    assert set(trials["goal"]) == {"minimize"}
    lowest = trials.sort_values(["valid_score", "trial_id"]).iloc[0]
    assert pool.metric == Metric("loss", "nats", "minimize")
    assert pool.manifest["metric"] == {"name": "loss", "unit": "nats", "goal": "minimize"}
    assert pool.best(1)["trial_id"].iloc[0] == lowest["trial_id"]
    assert Watch(pool.url).look().best.trial_id == lowest["trial_id"]
    assert seen[-1].best_trial_id == lowest["trial_id"]
    assert seen[-1].metric.words(seen[-1].best_score) == f"loss {lowest['valid_score']:.5g} nats"
    assert "is maximised" not in caplog.text
    truth = pd.read_parquet(small).set_index("arch_str")["val_loss"]
    assert trials["valid_score"].tolist() == truth.loc[trials["genotype"]].tolist()


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "nao", "seeds": 20, "mode": "rounds", "rounds": 1, "round_size": 8, "pretraining": {"steps": 20}},
        {"name": "regularized_evolution", "population": 10, "sample": 5},
        {"name": "local_search"},
        {"name": "reinforce"},
    ],
    ids=lambda strategy: strategy["name"],
)
def test_minimising_one_minus_an_accuracy_asks_what_maximising_the_accuracy_asks(small, tmp_path, strategy):
    """The values are such that neither is rounded."""
    asked = []
    for settings in ({"valid": "apart"}, {"valid": "mirror", "goal": "minimize", "unit": ""}):
        folder = tmp_path / settings["valid"]
        search(config(small, trials=30, strategy=strategy, twins="merge", **settings), folder)
        asked.append(PoolReader.open(folder).trials()["genotype"].tolist())
    assert asked[0] == asked[1]


def test_a_study_of_losses_counts_until_the_lowest(path):
    settings = {"seeds": 2, "max_queries": 1300, "processes": 1, "strategies": "random_search"}
    more = {"space.ops": "none,skip_connect,nor_conv_1x1,nor_conv_3x3", "evaluator.goal": "minimize"}
    more |= {"evaluator.unit": "nats", "evaluator.twins": "merge"}
    result = study.run(str(path), valid="val_loss", test="mirror", **settings, **more)
    frame = pd.read_parquet(path)
    firsts = frame.groupby([SPACE.canonical(SPACE.parse(text)).key for text in frame["arch_str"]])["val_loss"].first()
    for row in result.data["searches"]:
        assert row["best_valid_of_table"] == firsts.min()
        assert row["queries_to_optimum"] is not None
        assert row["valid@100"] <= row["valid@10"]
        assert row["oracle_test@100"] <= row["oracle_test@10"]
    assert "loss in nats (minimized)" in " ".join(result.notes)
    assert json.loads(json.dumps(result.data)) == result.data


# -- coverage -------------------------------------------------------------------------------------------------


def test_a_space_larger_than_the_table_is_refused_with_the_operations_that_it_has(path):
    with pytest.raises(DataError) as caught:
        table(path, NasBench201(), valid="merged", twins="merge").data_hash()
    told = str(caught.value)
    assert "holds 1,236 of the 6,466 architectures" in told
    assert "no row has the operations avg_pool_3x3" in told
    assert "set space.ops=[none, skip_connect, nor_conv_1x1, nor_conv_3x3]" in told
    table(path, NasBench201(), valid="merged", twins="merge", partial=True).data_hash()


def test_what_little_is_missing_is_told(path, tmp_path):
    pd.read_parquet(path).iloc[100:].to_parquet(tmp_path / "part.parquet")
    facts = table(tmp_path / "part.parquet", APART, valid="apart").facts()
    assert "100 of the space's 4,096 are not in it" in facts.odd[0]
    with pytest.raises(GenotypeError, match="not in the table"):
        table(tmp_path / "part.parquet", APART, valid="apart").evaluate(
            Proposal(genotype=SPACE.decode(np.ones(6, int)))
        )


def test_lists_are_read_with_commas_alone():
    assert NasBench201Config(ops="none, skip_connect") == NasBench201Config(ops=("none", "skip_connect"))
    assert TabularConfig(path="t", runs="a,b").runs == ("a", "b")


# -- a study's columns ----------------------------------------------------------------------------------------


def test_columns_by_data_set_in_one_command(path):
    found = study.tables(str(path), "a,b", {"valid": "{dataset}", "cost": "a:a_seconds,b:slow_b", "test": None})
    assert [found[name]["cost"] for name in "ab"] == ["a_seconds", "slow_b"]
    assert found["a"]["valid"] == "{dataset}"
    given = study.tables(str(path), "a,b", {"cost": {"a": "x", "b": "y"}})
    assert [given[name]["cost"] for name in "ab"] == ["x", "y"]
    with pytest.raises(ConfigError, match="bench cost: nothing is given for data set c; it has those of a, b"):
        study.tables(str(path), "a,c", {"cost": "a:x,b:y"})
