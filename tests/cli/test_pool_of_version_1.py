"""A pool of before sizes were a skeleton's own: two children of ENAS's macro space, whose rows have a meaningless N."""

import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest

import nao_ray
from nao_ray._pool import rows
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.manifest import config_of

BEFORE = Path(__file__).parents[1] / "pool" / "pool_of_version_1"
CHECKPOINT = "weights/trial0-short-0e0759d9.safetensors"


@pytest.fixture
def before(tmp_path):
    """A copy of it."""
    return shutil.copytree(BEFORE, tmp_path / "before")


def test_it_is_read(call):
    pool = PoolReader.open(str(BEFORE))
    assert pool.check() == []
    assert [dict(trial.proposal.fidelity.size) for trial in pool.log()] == [{"cells_per_stage": 3, "channels": 4}] * 2
    assert pool.trials()[["layers", "hidden", "embedding_width", "own_size"]].isna().all().all()
    assert pool.sql("SELECT max(channels) AS f, count(layers) AS n FROM trials").to_dict("list") == {"f": [4], "n": [0]}
    (row,) = json.loads(call("pool", BEFORE, "show", "0", "--json").out)
    assert (row["cells_per_stage"], row["channels"], row["layers"]) == (3, 4, None)
    facts = json.loads(call("describe", f"{BEFORE}:best", "--json").out)
    assert (facts["num_params"], facts["channels"], facts.get("cells_per_stage")) == (row["num_params"], 4, None)
    names = ("network", "cells_per_stage", "channels", "layers", "num_classes", "in_channels")
    network = nao_ray.build_network(row["genotype"], space=row["space"], **{name: row[name] for name in names})
    assert sum(parameter.numel() for parameter in network.parameters()) == row["num_params"]


def test_its_config_has_no_size_that_means_nothing():
    config = config_of(PoolReader.open(str(BEFORE)).manifest, str(BEFORE))
    assert "cells_per_stage" not in config.to_data()["evaluator"]
    assert config.evaluator_config.channels == 4


def test_it_goes_on_and_is_merged(before, call):
    done = call("resume", before, "--in-process", "--set", "budget.trials=3")
    assert done.code == 0, done.err
    pool = PoolReader.open(str(before))
    assert pool.check() == []
    frame = pool.trials(["cells_per_stage", "channels", "layers"])
    assert frame["cells_per_stage"].tolist() == [3, 3, pd.NA]
    assert frame["channels"].tolist() == [4] * 3
    assert call("pool", before, "compact").code == 0
    (part,) = (before / "trials").glob("*.parquet")
    schema = pq.read_schema(part)
    assert (schema.equals(rows.TRIALS), schema.metadata[b"schema_version"]) == (True, b"2")
    for counted in (
        len(pd.read_parquet(before / "trials")),
        len(polars.read_parquet(before / "trials")),
        duckdb.sql(f"SELECT count(channels) FROM '{before}/trials/*.parquet'").fetchall()[0][0],
    ):
        assert counted == 3
    assert pool.check() == []


def test_its_full_training_is_the_same_training(before, call):
    told = ("--recipe", "short", "--set", "epochs=1", "--set", "channels=2", "--set", "task.limit=100", "--json")
    row = json.loads(call("train", f"{before}:0", *told).out)
    assert (row["checkpoint"], row["cells_per_stage"]) == (CHECKPOINT, 1), "the row that was there"
    scored = json.loads(call("evaluate", before / CHECKPOINT, "--json").out)
    assert scored["test_accuracy"] == row["test_accuracy"]
