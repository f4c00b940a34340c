"""SQL reads a pool and reaches nothing else; manifests that differ are refused by name."""

import pandas as pd
import pytest
from _made_up_trials import record

from nao_ray._pool import manifest as manifests
from nao_ray.errors import PoolError
from nao_ray.pool import PoolWriter, refuse_changes


@pytest.fixture
def filled(pool, lease) -> PoolWriter:
    record(pool, 0, 6)
    pool.record_fits([{"round": 0, "loss": 0.5}])
    return pool


def test_sql_reads_trials_fits_and_final(filled, folder):
    best = filled.sql(
        "SELECT trial_id, valid_accuracy FROM trials WHERE state = 'COMPLETED' ORDER BY 2 DESC, 1 LIMIT 2"
    )
    assert best["trial_id"].tolist() == filled.best(2)["trial_id"].tolist()
    assert filled.sql("SELECT loss FROM fits")["loss"].tolist() == [0.5]
    assert filled.sql("SELECT count(*) AS n FROM final")["n"].tolist() == [0]
    pd.DataFrame({"trial_id": [3], "test_accuracy": [0.9]}).to_parquet(folder / "final" / "a.parquet")
    joined = filled.sql("SELECT test_accuracy FROM trials JOIN final USING (trial_id)")
    assert joined["test_accuracy"].tolist() == [0.9]


def test_sql_keeps_types(filled):
    frame = filled.sql("SELECT source_trial_id, finished_at, curve FROM trials ORDER BY trial_id")
    assert str(frame["source_trial_id"].dtype) == "Int64"
    assert str(frame["finished_at"].dtype).endswith("UTC]")
    assert frame["curve"][1][0] == 0.1
    assert filled.sql("SUMMARIZE trials")["column_name"].tolist()[0] == "trial_id"
    assert filled.sql("SELECT min(asked_at)::DATE AS day FROM trials")["day"].astype(str).tolist() == ["2026-01-02"]


def test_a_difference_of_times_is_a_duration(filled):
    frame = filled.sql("SELECT finished_at - started_at AS took, INTERVAL 1 MONTH AS month FROM trials LIMIT 1")
    assert frame["took"].iloc[0] == pd.Timedelta(seconds=1)
    assert "months=1" in str(frame["month"].iloc[0])


caller_secret = pd.DataFrame({"x": [1]})


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM caller_secret",
        "SELECT * FROM filled",
        "COPY trials TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/x.db'",
        "ATTACH ':memory:' AS y",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW trials",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY trials TO '/tmp/stolen.csv'",
        "",
        "-- nothing",
        "SELEC 1",
        "SELECT nosuch FROM trials",
        "SELECT error('boom')",
    ],
)
def test_sql_refuses_all_else_in_one_line(filled, query):
    with pytest.raises(PoolError, match=r"^sql: ") as caught:
        filled.sql(query)
    assert "\n" not in str(caught.value)


OLD = {"config": {"seed": 0, "strategy": {"name": "nao", "rounds": 2}, "budget": {"trials": 10}}, "hashes": {"a": "1"}}


def changed(**config):
    return OLD | {"config": OLD["config"] | config}


def test_the_same_manifest_and_free_changes_pass():
    refuse_changes(OLD, OLD)
    refuse_changes(OLD, changed(budget={"trials": 99, "hours": 1}), {"config.budget"})
    refuse_changes({"a": (1, 2)}, {"a": [1, 2]})
    refuse_changes(OLD, changed(budget={}), {"config.budget"})


def test_each_differing_key_is_named_with_both_values():
    new = changed(seed=1, strategy={"name": "nao", "rounds": 3}, budget={"trials": 11}) | {"hashes": {"b": "1"}}
    with pytest.raises(PoolError) as caught:
        refuse_changes(OLD, new, {"config.budget"})
    message = str(caught.value)
    assert "config.seed was 0, is 1; config.strategy.rounds was 2, is 3" in message
    assert "hashes.a was '1', is 'absent'; hashes.b was 'absent', is '1'" in message
    assert "budget" not in message
    with pytest.raises(PoolError, match=r"config\.budget\.trials was 10, is 11"):
        refuse_changes(OLD, new, {"config.bud", "budget"})


def test_a_prefix_frees_whole_keys_only():
    with pytest.raises(PoolError, match="workers_kind"):
        refuse_changes({"workers_kind": 1}, {"workers_kind": 2}, {"workers"})


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ({"config": {"strategy": {"name": "nao"}}}, "nao"),
        ({"config": {"strategy": "nao"}}, "nao"),
        ({"config": "strategy: {name: nao}"}, "nao"),
        ({"strategy": "nao"}, "nao"),
        ({"config": "["}, None),
        ({"config": {"strategy": 3}}, None),
        ({}, None),
    ],
)
def test_the_strategy_is_found_in_the_manifest(manifest, name):
    assert manifests.component(manifest, "strategy") == name
