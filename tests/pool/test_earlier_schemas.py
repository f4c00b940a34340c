"""A pool of an earlier nao_ray, taken up by this one: whoever reads it meets one schema at any moment."""

import math
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from _made_up_trials import MANIFEST, as_before, record

from nao_ray._pool import compaction, groups, object_journal
from nao_ray._pool.final import Finals
from nao_ray._pool.rows import EVENTS, FINAL, SCHEMA_VERSION, TRIALS
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter

BEFORE = Path(__file__).parent / "pool_of_before"
VERSION_1 = Path(__file__).parent / "pool_of_version_1"


def _best(where: str) -> list[float]:
    found = duckdb.sql(f"SELECT max(valid_accuracy) FROM '{where}/*.parquet'").fetchall()
    return [value for row in found for value in row]


PLAIN = {
    "pandas": lambda where: pd.read_parquet(where)["trial_id"].tolist(),
    "pyarrow": lambda where: ds.dataset(where).to_table()["trial_id"].to_pylist(),
    "polars": lambda where: pl.read_parquet(f"{where}/*.parquet")["trial_id"].to_list(),
    "duckdb": lambda where: [
        row[0] for row in duckdb.sql(f"SELECT trial_id, seed FROM '{where}/*.parquet'").fetchall()
    ],
}


def plain(folder: Path, count: int) -> None:
    """All read the same rows."""
    for name, read in PLAIN.items():
        assert sorted(read(f"{folder}/trials")) == list(range(count)), name
        assert len(read(f"{folder}/events")) > 0, name


@pytest.fixture
def before(tmp_path):
    """A copy of a pool of six trials in three parts, with a NaN among their scores, of a schema version before all."""
    folder = shutil.copytree(BEFORE, tmp_path / "before")
    text = (folder / "run.yaml").read_text()
    (folder / "run.yaml").write_text(text.replace("pool_schema_version: 1", "pool_schema_version: 0"))
    return folder


def test_parts_of_before_are_rewritten_before_the_first_new_one(before):
    assert math.isnan(_best(before / "trials")[0])
    plain(before, 6)
    pool = PoolWriter.open(before)
    for _ in range(2):
        with pool.acquire():
            plain(before, 6)
            names = {folder: sorted((before / folder).iterdir()) for folder in ("trials", "events")}
            assert [len(found) for found in names.values()] == [1, 1]
            assert [pq.read_schema(found[0]).names for found in names.values()] == [TRIALS.names, EVENTS.names]
    assert f"pool_schema_version: {SCHEMA_VERSION}" in (before / "run.yaml").read_text()
    with pool.acquire():
        record(pool, 6, 2)
        plain(before, 8)
    assert _best(before / "trials") == [pool.trials()["valid_accuracy"].max()]
    assert pool.check() == []


@pytest.mark.parametrize("line", ["{}: 0", "{}: 0\r", "{}:  0  # by hand", '"{}": 0'])
def test_the_version_is_renewed_however_its_line_is_written_and_as_open_to_others_as_before(before, line):
    manifest = before / "run.yaml"
    text = manifest.read_text().replace("pool_schema_version: 0", line.format("pool_schema_version"))
    manifest.write_bytes(text.encode())
    manifest.chmod(0o664)
    with PoolWriter.open(before).acquire():
        pass
    assert manifest.read_bytes().decode() == text.replace("0", str(SCHEMA_VERSION), 1)
    assert manifest.stat().st_mode & 0o777 == 0o664


def test_a_version_that_cannot_be_renewed_leaves_the_parts_as_they_are(before):
    manifest = before / "run.yaml"
    manifest.write_text(manifest.read_text().replace("pool_schema_version: 0", "pool_schema_version: !!int 0"))
    parts = sorted((before / "trials").glob("*.parquet"))
    with pytest.raises(PoolError, match=f"run.yaml: .*pool_schema_version: {SCHEMA_VERSION}"):
        PoolWriter.open(before).acquire()
    assert sorted((before / "trials").glob("*.parquet")) == parts


def test_none_is_kept_for_its_size_or_for_being_alone(before, monkeypatch):
    monkeypatch.setattr(compaction, "MAX_ROWS", 2)
    for part in sorted((before / "events").glob("*.parquet"))[1:]:
        part.unlink()
    with PoolWriter.open(before).acquire():
        for folder, schema in (("trials", TRIALS), ("events", EVENTS)):
            found = [pq.read_schema(path).names for path in (before / folder).iterdir()]
            assert found == [schema.names] * len(found)
            assert found


def test_one_larger_than_any_part_may_be_now_is_rewritten_whole(before, monkeypatch):
    first, *others = sorted((before / "trials").glob("*.parquet"))
    data = pa.concat_tables([pq.ParquetFile(part).read() for part in (first, *others)])
    pq.write_table(data, first)
    for part in others:
        part.unlink()
    monkeypatch.setattr(compaction, "MAX_ROWS", 4)
    monkeypatch.setattr(groups, "GROUP_ROWS", 2)
    with PoolWriter.open(before).acquire():
        plain(before, 6)
    assert [path.name for path in (before / "trials").iterdir()] == [first.name]


def test_without_room_for_that_nothing_new_stands_beside_them(before, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    pool = PoolWriter.open(before)
    with monkeypatch.context() as patch:
        patch.setattr(compaction._Part, "write", full)
        with pytest.raises(PoolWriteError, match="No space left"):
            pool.acquire()
    plain(before, 6)
    with pool.acquire():
        record(pool, 6, 1)
        plain(before, 7)


@pytest.mark.parametrize("merged", [False, True])
def test_on_object_storage_too(url, tmp_path, merged, monkeypatch):
    import boto3

    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 4)
        if merged:
            made.compact()
            record(made, 4, 2)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")

    def keys() -> list[str]:
        return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]

    for key in keys():
        if key.endswith(".parquet"):
            body = as_before(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            s3.put_object(Bucket=bucket, Key=key, Body=_with_nan(body) if "/trials/" in key else body)
        elif key.endswith("digest"):
            s3.delete_object(Bucket=bucket, Key=key)
    count = 6 if merged else 4
    log = PoolReader.open(url).log()
    with PoolWriter.open(url).acquire():
        _download(s3, bucket, prefix, keys(), tmp_path / "held")
        plain(tmp_path / "held", count)
    assert math.isfinite(_best(tmp_path / "held" / "trials")[0])
    again = PoolWriter.open(url)
    monkeypatch.setattr(object_journal.ObjectJournal, "_plan", None)  # nothing is left to do
    with again.acquire():
        record(again, count, 1)
        _download(s3, bucket, prefix, keys(), tmp_path / "grown")
    plain(tmp_path / "grown", count + 1)
    assert again.log()[:count] == log
    assert again.check() == []


TRAINED = {"name": "z1", "trial_id": 1, "channels": 4, "layers": 6, "epochs": 1, "test_accuracy": 0.5}


def _read_by_all(final: Path) -> dict[str, list[tuple[str, float | None]]]:
    """What each makes of the name and layers of the rows of full trainings."""
    return {
        "pandas": list(pd.read_parquet(final).astype({"layers": "float"})[["name", "layers"]].itertuples(index=False)),
        "pyarrow": [tuple(row.values()) for row in ds.dataset(final).to_table(columns=["name", "layers"]).to_pylist()],
        "polars": pl.read_parquet(f"{final}/*.parquet").select("name", "layers").rows(),
        "duckdb": duckdb.sql(f"SELECT name, layers FROM '{final}/*.parquet' ORDER BY name").fetchall(),
    }


def test_rows_of_full_trainings_are_given_its_columns_before_the_first_new_one(tmp_path):
    copy = shutil.copytree(VERSION_1, tmp_path / "copy")
    (old,) = (copy / "final").iterdir()
    finals = Finals(copy)
    before = finals.row(old.stem)
    (copy / "final" / "damaged.parquet").write_bytes(b"PAR1")
    finals.add(TRAINED)
    (copy / "final" / "damaged.parquet").unlink()
    assert finals.row(old.stem)["num_params"] == before["num_params"]
    for name, found in _read_by_all(copy / "final").items():
        (first, none), second = map(tuple, found)
        assert (first, second) == (old.stem, ("z1", 6)), name
        assert none is None or math.isnan(none), name
    inode = old.stat().st_ino
    finals.add({**TRAINED, "name": "z2"})
    assert old.stat().st_ino == inode, "once is enough"


def test_a_file_that_is_no_row_of_ours_stays_beside_them(tmp_path):
    (tmp_path / "final").mkdir()
    strange = {
        "newer": pa.table({"name": ["a"]}, metadata={"schema_version": str(SCHEMA_VERSION + 1)}),
        "other": pa.table({"name": ["a"]}),
        "wider": pa.table({"name": ["a"], "mine": [1]}, metadata={"schema_version": "1"}),
    }
    for name, data in strange.items():
        pq.write_table(data, tmp_path / "final" / f"{name}.parquet")
    Finals(tmp_path).add(TRAINED)
    for name, data in strange.items():
        assert pq.ParquetFile(tmp_path / "final" / f"{name}.parquet").read().schema.names == data.schema.names


def test_rows_of_full_trainings_on_object_storage_too(url):
    import boto3

    (old,) = (VERSION_1 / "final").iterdir()
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    s3, key = boto3.client("s3"), f"{prefix}/final/{old.name}"
    s3.put_object(Bucket=bucket, Key=key, Body=old.read_bytes())
    Finals(url).add(TRAINED)
    found = pq.read_schema(pa.BufferReader(s3.get_object(Bucket=bucket, Key=key)["Body"].read()))
    assert (found.names, found.metadata) == (FINAL.names, FINAL.metadata)


def _with_nan(part: bytes) -> bytes:
    """Every failed trial has a score that is none, as it was once written."""
    data = pq.read_table(pa.BufferReader(part))
    place = data.schema.get_field_index("valid_accuracy")
    scores = [math.nan if score is None else score for score in data["valid_accuracy"].to_pylist()]
    sink = pa.BufferOutputStream()
    pq.write_table(data.set_column(place, data.schema.field(place), pa.array(scores, pa.float64())), sink)
    return sink.getvalue().to_pybytes()


def _download(s3, bucket, prefix, keys, folder):
    for key in keys:
        path = folder / key.removeprefix(prefix + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(path))
