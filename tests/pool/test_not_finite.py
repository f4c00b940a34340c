"""A diverged trial has no score: null wherever the pool is read, also where a pool of before holds NaN."""

import math
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _made_up_trials import START, make_proposal, make_trial

from nao_ray._pool import rows
from nao_ray._pool.tail import Tail
from nao_ray.trial import Measurement, Trial

README_QUERY = "select round, count(*) as trials, max(valid_accuracy) as best from trials group by round order by round"
FIGURES = ("valid_accuracy", "valid_loss", "valid_perplexity", "predicted_score", "predicted_spread")
DIVERGED = Measurement(
    valid_accuracy=math.nan, valid_loss=math.inf, valid_perplexity=-math.inf, curve=(0.1, math.nan), num_params=7
)


def diverged(k: int) -> Trial:
    proposal = replace(make_proposal(k), predicted_score=math.nan, predicted_spread=math.inf)
    facts = {"attempt": 1, "log_index": k, "asked_at": START, "started_at": START, "finished_at": START}
    return Trial(proposal=proposal).complete(DIVERGED, **facts)


def as_before(trials: list[Trial]) -> pa.Table:
    """The rows that were written when NaN was stored as it is."""
    made = [rows.trial_row(trial, "nao", "digits") for trial in trials]
    columns = [pa.array([row.get(field.name) for row in made], field.type) for field in rows.TRIALS]
    return pa.Table.from_arrays(columns, schema=rows.TRIALS)


@pytest.fixture(params=["written now", "of before"])
def mixed(request, pool, lease):
    """Round 0: three trials, of which the middle one diverged."""
    trials = [make_trial(0, accuracy=0.4), diverged(1), make_trial(2, accuracy=0.7)]
    for trial in trials:
        pool.record_asked([trial.proposal], START)
    if request.param == "written now":
        pool.record_finished(trials)
    else:
        pq.write_table(as_before(trials), Path(pool.url, "trials", "e000001-00000009.parquet"))
    pool.record_fits([{"round": 0, "loss": math.nan}, {"round": 1, "loss": 0.5}])
    return pool


def test_the_best_of_a_query_is_the_best(mixed):
    (row,) = mixed.sql(README_QUERY).to_dict("records")
    assert row == {"round": 0, "trials": 3, "best": 0.7}
    ordered = mixed.sql("select trial_id from trials where valid_accuracy is not null order by valid_accuracy desc")
    assert ordered["trial_id"].tolist() == [2, 0]
    counts = ", ".join(f"count({name})" for name in FIGURES)
    (given,) = mixed.sql(
        f"select [{counts}] as given, max(list_max(curve)) as top from trials where trial_id = 1"
    ).values
    assert (list(given[0]), given[1]) == ([0] * len(FIGURES), 0.1)
    assert mixed.sql("select max(loss) as loss from fits")["loss"][0] == 0.5


def test_every_reader_finds_null(mixed):
    new = Tail(mixed._storage, "trials", ["trial_id", "valid_accuracy", "curve"]).read().sort_by("trial_id")
    assert new["valid_accuracy"].to_pylist() == [0.4, None, 0.7]
    assert new["curve"].to_pylist()[1] == [0.1, None]
    trial = mixed.log()[1]
    assert (trial.measurement.valid_accuracy, trial.measurement.num_params) == (None, 7)
    assert trial.measurement.curve[0] == 0.1
    assert trial.failure_message == "score is nan"
    assert mixed.best(2)["trial_id"].tolist() == [2, 0]


def test_plain_databases_find_null(pool, lease):
    pool.record_asked([diverged(0).proposal], START)
    pool.record_finished([diverged(0), make_trial(1, accuracy=0.2)])
    found = duckdb.sql(f"select max(valid_accuracy) from '{pool.url}/trials/*.parquet'").fetchall()
    assert found == [(0.2,)]
    data = pq.read_table(Path(pool.url, "trials"))
    assert sorted(data["curve"].to_pylist(), key=str) == [[0.1, 0.2], [0.1, None]]
    events = pq.read_table(Path(pool.url, "events"))
    assert events["predicted_score"].to_pylist() == [None]


def test_a_final_row_is_no_exception():
    row = {"name": "a", "test_accuracy": 0.5, "valid_loss": math.nan, "curve": [1.0, math.nan]}
    (back,) = rows.table([row], rows.FINAL).to_pylist()
    assert (back["test_accuracy"], back["valid_loss"], back["curve"]) == (0.5, None, [1.0, None])
