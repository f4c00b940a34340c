"""The columns that the page draws are those of the pool, come once, and later come alone."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nao_ray import registry, rng
from nao_ray.bench._scale_pool import trial_rows
from nao_ray.cli.pool import make_space
from nao_ray.metric import ACCURACY, PERPLEXITY
from nao_ray.page import columns, frames
from nao_ray.page.columns import READ, Columns
from nao_ray.page.live import LivePool
from nao_ray.pool import EVENTS, TRIALS, PoolWriter
from nao_ray.report.labels import op_label


def test_a_frame_is_read_as_it_was_written():
    sent = {"a": np.arange(3, dtype=np.uint8), "b": np.array([0.5, np.nan, -1]), "c": np.array([1, 2, 3], np.int16)}
    data = frames.encode({"labels": {"c": ["ü", "x"]}}, sent)
    header, found = frames.decode(data)
    assert header["labels"] == {"c": ["ü", "x"]}
    assert [told["offset"] % 8 for told in header["columns"]] == [0, 0, 0]
    assert (8 + int.from_bytes(data[4:8], "little")) % 8 == 0
    for name, values in sent.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with pytest.raises(ValueError, match="one length"):
        frames.encode({}, {"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="type bool"):
        frames.encode({}, {"a": np.zeros(2, np.bool_)})
    with pytest.raises(ValueError, match="expected b'NRC1'"):
        frames.decode(b"PAR1" + data[4:])


def test_columns_are_those_of_the_pool(made_up, made):
    header, found = frames.decode(made.columns())
    rows = pd.read_parquet(made_up / "trials").sort_values("log_index")
    assert (header["since"], header["total"], header["rows"]) == (0, 300, 300)
    for name in ("trial_id", "log_index", "round", "epochs", "num_params", "macs"):
        np.testing.assert_array_equal(found[name], rows[name])
    for name, column in (("value", "valid_accuracy"), ("predicted", "predicted_score"), ("wall_seconds",) * 2):
        np.testing.assert_allclose(found[name], rows[column].to_numpy(np.float64), rtol=1e-6)
    np.testing.assert_array_equal(found["state"], rows["state"] == "FAILED")
    np.testing.assert_allclose(found["finished"], rows["finished_at"].astype("int64") / 1e6, rtol=1e-15)
    for name in ("node", "failure_kind"):
        labels = np.array([*header["labels"][name], None], object)
        assert labels[found[name]].tolist() == rows[name].astype(object).where(rows[name].notna(), None).tolist()
    np.testing.assert_array_equal(found["source"], rows["source_trial_id"].fillna(-1))
    same = pd.Series(found["architecture"]).groupby(rows["genotype"].to_numpy()).nunique()
    assert (same == 1).all()
    assert len(np.unique(found["architecture"])) == rows["genotype"].nunique()
    assert "latency_ms" not in found
    assert "origin" not in found  # all missing


def test_operations_are_counted_as_people_call_them(made_up, made):
    _, found = frames.decode(made.columns())
    rows = pd.read_parquet(made_up / "trials").sort_values("log_index")
    counted = {name: values for name, values in found.items() if name.startswith("op:")}
    assert "op:conv 1\N{MULTIPLICATION SIGN}7+7\N{MULTIPLICATION SIGN}1" in counted
    np.testing.assert_array_equal(sum(values.astype(int) for values in counted.values()), 20)
    expected = [
        sum(op_label(op) == "identity" for op in (*a, *b)) for a, b in rows[["normal_ops", "reduction_ops"]].values
    ]
    np.testing.assert_array_equal(counted["op:identity"], expected)


def _rows(space_name, count, **changes):
    """Rows of a space whose cells are no normal and reduction one, so that they do not tell their operations."""
    space = registry.load("space", space_name)()
    genotypes = [space.sample(rng.child(0, "columns", k)).key for k in range(count)]
    made = trial_rows(0, count, count, 0).to_pylist()
    rows = [
        {**row, "normal_ops": None, "reduction_ops": None, "genotype": g}
        for row, g in zip(made, genotypes, strict=True)
    ]
    for name, values in changes.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    return space, pa.Table.from_pylist(rows, TRIALS).select(READ)


def test_operations_that_rows_do_not_tell_are_those_of_the_genotype(monkeypatch):
    monkeypatch.setattr(columns, "PARSED", 3)
    space, data = _rows("nas_bench_201", 5, phase=['{"version": "x"}', None, None, None, None])
    asked = []

    def count(text):
        asked.append(text)
        return [op for ops in space.ops_by_cell(space.parse(text)).values() for op in ops]

    folded = Columns(ACCURACY, count)
    folded.add(data)
    found, _ = folded.since(0)
    counts = np.array([values for name, values in found.items() if name.startswith("op:")], int)
    assert counts[:, 1:4].sum(axis=0).tolist() == [6, 6, 6]
    assert (counts[:, [0, 4]] == columns.UNKNOWN).all()  # a training of shared weights; one too many
    assert asked == data["genotype"].to_pylist()[1:4]


def test_what_is_minimised_keeps_its_sign_and_a_prediction_gets_it():
    _, data = _rows(
        "nas_bench_201", 4, valid_perplexity=[90.0, 80.0, None, 70.0], predicted_score=[-85.0, None, -3.0, -4.0]
    )
    folded = Columns(PERPLEXITY, lambda text: ["x"])
    folded.add(data)
    found, _ = folded.since(0)
    np.testing.assert_array_equal(found["value"], [90, 80, np.nan, 70])
    np.testing.assert_array_equal(found["predicted"], [85, np.nan, 3, 4])


def test_a_trial_that_trains_shared_weights_has_no_value():
    _, data = _rows("nas_bench_201", 2, phase=['{"version": "x"}', None], valid_accuracy=[0.9, 0.5])
    folded = Columns(ACCURACY, lambda text: ["x"])
    folded.add(data)
    found, _ = folded.since(0)
    np.testing.assert_array_equal(found["value"], [np.nan, 0.5])
    assert found["is_phase"].tolist() == [1, 0]


def test_of_a_ladder_each_rung_is_a_row_that_names_what_it_goes_on_from(climbed, made):
    _, found = frames.decode(LivePool(str(climbed), make_space).columns())
    assert found["parent"].tolist() == [-1] * 60 + [*range(36, 60), 60, 61, 62]
    assert found["rung"].tolist() == [-1] * 60 + [4] * 24 + [8] * 3
    assert "parent" not in frames.decode(made.columns())[1]


def test_only_what_is_new_is_read_and_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("nao_ray.page.live._LOOK", 0.0)
    config = {"config": {"name": "growing", "space": "nao_cnn", "strategy": "nao"}}
    pool = PoolWriter.create(tmp_path / "pool", config)
    parts = []
    real = Columns.add
    monkeypatch.setattr(Columns, "add", lambda self, data: (parts.append(data.num_rows), real(self, data))[1])

    with pool.acquire():
        pool.record_tables(trial_rows(0, 30, 100, 0), EVENTS.empty_table())
        live = LivePool(str(tmp_path / "pool"), make_space)
        first, _ = frames.decode(live.columns())
        pool.record_tables(trial_rows(30, 7, 100, 0), EVENTS.empty_table())
        second, found = frames.decode(live.columns(30, first["series"]))
        assert parts == [30, 7]
        assert (second["since"], second["rows"], second["total"]) == (30, 7, 37)
        assert found["trial_id"].tolist() == list(range(30, 37))
        pool.compact()  # rows come again, in one part
        third, _ = frames.decode(live.columns(37, first["series"]))
        assert (third["since"], third["rows"], third["total"]) == (37, 0, 37)
    for stale in (("other", 37), (first["series"], 38)):  # of a server before this one
        header, _ = frames.decode(live.columns(stale[1], stale[0]))
        assert (header["since"], header["rows"]) == (0, 37)


def test_a_pool_without_a_trial_has_no_columns(tmp_path):
    PoolWriter.create(tmp_path / "pool", {"config": {"name": "young", "space": "nao_cnn", "strategy": "nao"}})
    live = LivePool(str(tmp_path / "pool"), make_space)
    header, found = frames.decode(live.columns())
    assert (header["total"], header["rows"], found) == (0, 0, {})
    header, found = frames.decode(live.map())
    assert header["rows"] == 0
    assert live.report()["best"] == []
    assert live.status()["completed"] == 0


def test_the_columns_that_are_read_are_those_of_a_pool():
    assert set(READ) <= set(TRIALS.names)
    assert not {"embedding", "tokens", "curve", "alphas"} & set(READ)
