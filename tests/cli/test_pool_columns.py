"""What the rows of a pool say of an architecture, and pools that were written before they said it."""

import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

import nao_ray
from nao_ray import registry
from nao_ray.pool import PoolReader

BEFORE = Path(__file__).parents[1] / "pool" / "pool_of_before"
NEW = ("normal_ops", "reduction_ops", "network", "num_classes", "in_channels")
TRAINED = """
name: trained
space: nao_cnn_small
task: {name: synthetic, channels: 3, classes: 3, per_class: 20}
evaluator: {name: standalone, cells_per_stage: 1, channels: 4, epochs: 1, device: cpu}
strategy: random_search
budget: {trials: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pool with one child that was trained, on images of three classes and three channels."""
    from nao_ray.config import RunConfig
    from nao_ray.service.hosting.run import run

    url = str(tmp_path_factory.mktemp("trained") / "pool")
    run(RunConfig.parse(TRAINED), url, in_process=True)
    return url


@pytest.fixture
def before(tmp_path):
    """A copy of a pool of six trials that an older nao_ray wrote, with a NaN among its scores."""
    return shutil.copytree(BEFORE, tmp_path / "before")


def test_a_network_is_built_again_from_its_row(trained):
    (row,) = pd.read_parquet(f"{trained}/trials").to_dict("records")
    sizes = {name: int(row[name]) for name in ("cells_per_stage", "channels", "num_classes", "in_channels")}
    network = nao_ray.build_network(row["genotype"], space=row["space"], network=row["network"], **sizes)
    assert sum(parameter.numel() for parameter in network.parameters()) == row["num_params"]
    assert (row["num_classes"], row["in_channels"], row["network"]) == (3, 3, "small")


def test_operations_stand_in_the_rows_by_name(trained, call):
    (row,) = pd.read_parquet(f"{trained}/trials").to_dict("records")
    space = registry.load("space", "nao_cnn_small")()
    cells = dict(space.lower(space.parse(row["genotype"])).cells)
    for role in ("normal", "reduction"):
        assert list(row[f"{role}_ops"]) == [edge.op for node in cells[role].nodes for edge in node]
    found = PoolReader.open(trained).sql("SELECT unnest(normal_ops) AS op, count(*) AS n FROM trials GROUP BY op")
    assert found["n"].sum() == 10
    (shown,) = json.loads(call("pool", trained, "show", "0", "--json").out)
    assert (shown["normal_ops"], shown["network"]) == (list(row["normal_ops"]), "small")
    assert f"normal_ops          {' '.join(row['normal_ops'])}" in call("pool", trained, "show", "0").out


def test_describe_takes_a_trial_of_a_pool(trained, call):
    (row,) = pd.read_parquet(f"{trained}/trials").to_dict("records")
    for which in ("best", "0"):
        facts = json.loads(call("describe", f"{trained}:{which}", "--json").out)
        assert [facts[name] for name in ("genotype", "num_params", "macs", "trial_id")] == [
            row[name] for name in ("genotype", "num_params", "macs", "trial_id")
        ]
        assert facts["normal_ops"] == list(row["normal_ops"])
    wide = json.loads(call("describe", f"{trained}:best", "--network", "cifar100", "--json").out)
    assert (wide["num_classes"], wide["channels"]) == (100, 4)
    assert "trial 0" in call("describe", f"{trained}:best").out
    assert "has no finished trial 7" in call("describe", f"{trained}:7").err
    told = call("describe", trained)
    assert (told.code, told.err) == (
        2,
        f"nao-ray: {trained} is a pool: name one of its trials, {trained}:best or {trained}:ID\n",
    )


def test_a_space_without_such_cells_has_null(call):
    facts = json.loads(call("describe", "ENAS-macro", "--json").out)
    assert (facts["normal_ops"], facts["reduction_ops"]) == (None, None)
    facts = json.loads(
        call(
            "describe", "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|", "--space", "nas_bench_201", "--json"
        ).out
    )
    assert (facts["normal_ops"], facts["reduction_ops"]) == (["identity", *["zero"] * 5], None)


def test_a_pool_of_before_is_read(before, call):
    pool = PoolReader.open(str(before))
    assert pool.check() == []
    assert pool.best(1)["trial_id"].tolist() == [0]
    assert pool.trials(list(NEW)).isna().all().all()
    assert pool.sql("SELECT max(valid_accuracy) AS best, count(*) AS n FROM trials")["best"][0] == pytest.approx(
        0.9552, abs=1e-4
    )
    assert pool.log()[5].measurement.valid_accuracy is None
    assert "1 failed" in call("pool", before).out
    described = json.loads(call("describe", f"{before}:best", "--json").out)
    assert described["network"] == "cifar10"
    assert call("report", before).code == 0


def test_a_pool_of_before_goes_on(before, call):
    kept = pd.read_parquet(before / "trials").sort_values("trial_id")
    done = call("resume", before, "--in-process", "--set", "budget.trials=9")
    assert done.code == 0, done.err
    pool = PoolReader.open(str(before))
    assert pool.check() == []
    frame = pool.trials()
    assert len(frame) == 9
    assert frame["genotype"].tolist()[:6] == kept["genotype"].tolist()
    assert frame["normal_ops"].isna().tolist() == [True] * 6 + [False] * 3
    assert call("pool", before, "compact").code == 0
    assert pq.read_table(before / "trials").schema.names == list(pool.trials().columns)
    assert len(pd.read_parquet(before / "trials")) == 9
    plain = duckdb.sql(f"SELECT count(*), max(valid_accuracy) FROM '{before}/trials/*.parquet'").fetchall()
    assert plain == [(9, frame["valid_accuracy"].max())], "its NaN is null for plain readers too, once it is merged"
