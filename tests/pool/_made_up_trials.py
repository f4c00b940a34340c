"""Made-up trials, and how a driver dies."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray._pool import rows
from nao_ray.pool import PoolWriter
from nao_ray.spaces.base import Genotype
from nao_ray.trial import FailureKind, Fidelity, Measurement, Proposal, Trial

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MANIFEST = {"config": {"name": "t", "seed": 3, "strategy": {"name": "nao", "rounds": 2}, "task": {"name": "digits"}}}


def make_proposal(k: int) -> Proposal:
    return Proposal(
        genotype=Genotype("nao_cnn", f"{k} 5 1 6"),
        embedding=(0.1 * k, -1.0 / 3.0),
        predicted_score=0.3,
        source_trial_id=k - 1 if k else None,
        source_step_size=10.0,
        round=k // 4,
        trial_id=k,
        seed=2**31 - 1 - k,
        fidelity=Fidelity(epochs=8, size=(("channels", 16),), data_share=0.5),
        tokens=(k + 1, 2, 3),
        asked_after=k // 2,
    )


def make_trial(k: int, *, accuracy: float | None = None, log_index: int | None = None) -> Trial:
    """Trial k, completed; the fifth, tenth, ... FAILED."""
    trial = Trial(
        proposal=make_proposal(k),
        attempt=1,
        log_index=k if log_index is None else log_index,
        node="node-1",
        asked_at=START,
        started_at=START + timedelta(seconds=k),
        finished_at=START + timedelta(seconds=k + 1),
    )
    if k % 5 == 4 and accuracy is None:
        return trial.fail(FailureKind.ERROR, "ValueError: bad")
    score = 0.5 + (k * 37 % 100) / 250 if accuracy is None else accuracy
    measured = Measurement(valid_accuracy=score, valid_loss=0.7, curve=(0.1, score), num_params=1000 + k, device="cpu")
    return trial.complete(measured)


def record(pool: PoolWriter, first: int, count: int) -> list[Trial]:
    """Ask and finish `count` trials, one part each."""
    trials = [make_trial(k) for k in range(first, first + count)]
    for trial in trials:
        pool.record_asked([trial.proposal], START)
        pool.record_attempts([(trial.trial_id, 1, "node-1", START)])
        pool.record_finished([trial])
    return trials


def die(pool: PoolWriter) -> None:
    """Leave the pool as its driver's death would: no release, no heartbeat, its process gone."""
    lease = pool._lease
    assert lease is not None
    lease._stop.set()
    lease._thread.join()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    edit_holder(pool, pid=gone.pid)


def edit_holder(pool: PoolWriter, **changes: object) -> None:
    path = Path(pool.url) / "lease" / "holder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes).ljust(1023) + "\n")


def as_before(part: bytes) -> bytes:
    """A part as the first nao_ray wrote it: without the columns that came later."""
    data = pq.read_table(pa.BufferReader(part))
    data = data.drop_columns([name for name in data.column_names if name in rows.LATER])
    sink = pa.BufferOutputStream()
    pq.write_table(data.replace_schema_metadata({**data.schema.metadata, b"schema_version": b"1"}), sink)
    return sink.getvalue().to_pybytes()
