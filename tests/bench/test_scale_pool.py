"""The made-up pool is one that the pool itself finds sound, and is read in full."""

import pyarrow.parquet as pq
import pytest

from nao_ray import registry
from nao_ray._pool.rows import TRIALS
from nao_ray.bench import _scale_pool
from nao_ray.bench._scale_pool import make_pool, measure, trial_rows
from nao_ray.errors import RunError
from nao_ray.pool import PoolReader
from nao_ray.spaces.base import Genotype


def test_the_pool_is_sound_merged_and_holds_every_column(tmp_path, monkeypatch):
    monkeypatch.setattr(_scale_pool, "_PART_ROWS", 100)
    make_pool(tmp_path / "p", 450, seed=1)
    pool = PoolReader.open(tmp_path / "p")
    assert pool.check() == []
    assert len(list((tmp_path / "p" / "trials").glob("*.parquet"))) == 1
    frame = pool.trials()
    assert frame["trial_id"].tolist() == list(range(450))
    assert 0 < (frame["state"] == "FAILED").sum() < 45
    unused = [name for name in frame.columns if frame[name].isna().all()]
    assert unused == [
        *(
            "origin",
            "file_row",
            "settings",
            "retry_of",
            "parent_trial_id",
            "heard_trial_ids",
            "heard_epochs",
            "heard_scores",
            "phase",
            "layers",
            "hidden",
            "embedding_width",
            "own_size",
            "data_share",
            "weights_version",
        ),
        *("valid_share", "valid_perplexity", "valid_score"),
        *("goal", "derived_genotype", "derived_score", "derived_rank", "alphas", "alpha_eigenvalue", "supernet_score"),
        "execution",
        "latency_ms",
    ]
    space = registry.load("space", "nao_cnn")()
    for row in frame.head(20).itertuples():
        cells = space.ops_by_cell(Genotype("nao_cnn", row.genotype))
        assert (tuple(row.normal_ops), tuple(row.reduction_ops)) == (cells["normal"], cells["reduction"])
    log = pool.log()
    assert log[449].measurement is None or len(log[449].measurement.curve) == 8
    assert log[0].proposal.embedding is None
    assert len(log[449].proposal.embedding) == 64


def test_genotypes_are_of_the_space_and_their_tokens_are_theirs():
    cls = registry.load("space", "nao_cnn")
    space = cls(cls.Config())
    data = trial_rows(30, 20, 100, seed=1)
    for text, tokens in zip(data["genotype"].to_pylist(), data["tokens"].to_pylist(), strict=True):
        genotype = Genotype("nao_cnn", text)
        space.validate(genotype)
        assert space.encode(genotype).tolist() == tokens
    assert len(set(data["genotype"].to_pylist())) == 20


def test_rows_follow_from_the_seed():
    assert trial_rows(0, 10, 100, seed=1).equals(trial_rows(0, 10, 100, seed=1))
    assert not trial_rows(0, 10, 100, seed=1).equals(trial_rows(0, 10, 100, seed=2))
    assert trial_rows(0, 10, 100, seed=1).schema == TRIALS


@pytest.mark.usefixtures("forked")
def test_it_is_read_by_pandas_and_from_the_shell():
    rows = {row.measurement: row for row in measure(trials=300, shell_trials=200, repeats=1)}
    assert list(rows) == [
        "large pool: on disk",
        "large pool: pandas, six columns",
        "large pool: pandas, all columns",
        "large pool: nao-ray pool POOL best",
        "large pool: nao-ray pool POOL sql",
    ]
    (times,) = rows["large pool: pandas, six columns"].data["times"]
    assert times["rows"] == 300
    assert 0 < times["read"] < rows["large pool: pandas, six columns"].data["seconds"]
    assert rows["large pool: nao-ray pool POOL sql"].data["seconds"] > 0


@pytest.mark.usefixtures("forked")
def test_rows_that_are_missing_are_no_measurement(tmp_path):
    make_pool(tmp_path / "p", 20, seed=1)
    with pytest.raises(RunError, match="20 of 30 trials"):
        _scale_pool._read(tmp_path / "p", 30, 1)
    (part,) = (tmp_path / "p" / "trials").glob("*.parquet")
    assert pq.read_metadata(part).num_rows == 20
    part.write_bytes(b"PAR1")
    with pytest.raises(RunError, match="ended with 1"):
        _scale_pool._read(tmp_path / "p", 20, 1)
