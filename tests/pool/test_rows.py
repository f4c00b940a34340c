"""Trials and proposals go through Parquet unchanged."""

import math
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial
from hypothesis import given, settings
from hypothesis import strategies as st

from nao_ray._pool import rows
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.spaces.base import Genotype
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.trial import FailureKind, Fidelity, Interim, Measurement, Phase, Proposal, Trial, TrialState

ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
points = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def maybe(strategy):
    return st.none() | strategy


fidelities = st.builds(
    Fidelity,
    epochs=maybe(ints),
    size=st.dictionaries(st.sampled_from(["cells_per_stage", "channels", "layers", "width", "Größe"]), ints).map(
        lambda named: tuple(sorted(named.items()))
    ),
    data_share=maybe(floats),
    weights_version=maybe(texts),
    valid_share=maybe(floats),
)
phases = st.builds(
    Phase,
    version=texts,
    source=maybe(texts),
    first_epoch=ints,
    last_epoch=ints,
    genotypes=st.lists(texts, max_size=3).map(tuple),
    sampling=st.sampled_from(["uniform", "size", "given"]),
    kind=texts,
    seed=maybe(ints),
    num_params=maybe(st.lists(ints, max_size=3).map(tuple)),
)
proposals = st.builds(
    Proposal,
    phase=maybe(phases),
    heard=st.lists(st.builds(Interim, ints, ints, floats), max_size=3).map(tuple),
    genotype=st.builds(Genotype, texts, texts),
    embedding=maybe(st.lists(points, max_size=5).map(tuple)),
    predicted_score=maybe(floats),
    predicted_spread=maybe(floats),
    source_trial_id=maybe(ints),
    source_step_size=maybe(floats),
    round=maybe(ints),
    trial_id=ints,
    seed=ints,
    fidelity=fidelities,
    tokens=maybe(st.lists(ints, max_size=5).map(tuple)),
    asked_after=ints,
)
measurements = st.builds(
    Measurement,
    valid_accuracy=floats,
    valid_perplexity=maybe(floats),
    valid_loss=maybe(floats),
    valid_score=maybe(floats),
    goal=maybe(st.sampled_from(["maximize", "minimize"])),
    train_loss=maybe(floats),
    derived_genotype=maybe(texts),
    derived_score=maybe(floats),
    derived_rank=maybe(ints),
    alphas=maybe(st.lists(floats, max_size=4).map(tuple)),
    alpha_eigenvalue=maybe(floats),
    supernet_score=maybe(floats),
    curve=maybe(st.lists(floats, max_size=4).map(tuple)),
    num_params=maybe(ints),
    macs=maybe(ints),
    wall_seconds=maybe(floats),
    device_seconds=maybe(floats),
    peak_memory_bytes=maybe(ints),
    device=maybe(texts),
    shapes=st.sampled_from([{}, {"network": "text", "num_classes": 4}, {"network": "a", "in_channels": 3}]).map(
        lambda named: tuple(named.items())
    ),
)
trials = st.builds(
    Trial,
    proposal=proposals,
    state=st.sampled_from([TrialState.COMPLETED, TrialState.FAILED]),
    attempt=ints,
    measurement=maybe(measurements),
    failure_kind=maybe(st.sampled_from(FailureKind)),
    failure_message=maybe(texts),
    log_index=ints,
    node=maybe(texts),
    asked_at=maybe(times),
    started_at=maybe(times),
    finished_at=maybe(times),
)


def bits(value):
    """The value with each float as its bits, so that equal means bit for bit."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, tuple):
        return tuple(bits(item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: bits(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def through_parquet(row, schema):
    sink = pa.BufferOutputStream()
    pq.write_table(rows.table([row], schema), sink)
    (back,) = rows.dicts(pq.read_table(pa.BufferReader(sink.getvalue())))
    return back


@settings(max_examples=60, deadline=None)
@given(trials)
def test_a_trial_comes_back_bit_for_bit(trial):
    back = rows.trial_from(through_parquet(rows.trial_row(trial, "nao", "digits"), rows.TRIALS))
    assert bits(back) == bits(trial)


@settings(max_examples=60, deadline=None)
@given(proposals, ints, times)
def test_a_proposal_comes_back_bit_for_bit(proposal, seq, at):
    row = through_parquet(rows.asked_row(seq, proposal, at), rows.EVENTS)
    assert bits(rows.proposal_from(row)) == bits(proposal)
    assert (row["seq"], row["kind"], row["trial_id"], row["at"]) == (seq, "asked", proposal.trial_id, at)


def test_every_field_has_a_column():
    """A field added to a proposal, fidelity or measurement needs a column, or the pool would lose it."""
    for cls in (Fidelity, Measurement):
        assert {*cls.__dataclass_fields__} - {"size", "shapes"} <= {*rows.TRIALS.names}
    for shapes in (ImageShapes(1, 8, 8, 2, "small"), TokenShapes(4)):
        assert {*shapes.recorded} <= {*rows.TRIALS.names}
    for schema in (rows.TRIALS, rows.EVENTS):
        assert {*Proposal.__dataclass_fields__} - {"genotype", "fidelity", "heard"} <= {*schema.names} - {"genotype"}
        assert {f"heard_{name}s" for name in ("trial_id", "epoch", "score")} <= {*schema.names}
    assert {*Trial.__dataclass_fields__} - {"proposal", "measurement", "ends"} <= {
        *rows.TRIALS.names
    }  # that is the events'


def test_a_score_that_is_no_number_comes_back_as_none():
    failed = make_trial(0, accuracy=math.nan)
    back = rows.trial_from(through_parquet(rows.trial_row(failed, None, None), rows.TRIALS))
    assert back.failure_kind is FailureKind.NAN
    assert back.failure_message == "score is nan"
    assert back.measurement.valid_accuracy is None
    assert back.measurement.num_params == 1000


def test_times_are_stored_in_utc_and_need_a_zone():
    east = START.astimezone(timezone(timedelta(hours=5)))
    row = rows.asked_row(0, make_proposal(0), east)
    assert row["at"].utcoffset() == timedelta(0)
    assert row["at"] == START
    with pytest.raises(ValueError, match="no time zone"):
        rows.asked_row(0, make_proposal(0), START.replace(tzinfo=None))


def test_an_unfinished_trial_has_no_row():
    with pytest.raises(ValueError, match="not finished"):
        rows.trial_row(Trial(proposal=make_proposal(0)), None, None)
    with pytest.raises(ValueError, match="log_index None"):
        rows.trial_row(replace(make_trial(0), log_index=None), None, None)


def test_text_that_is_no_unicode_does_not_lose_the_trial():
    trial = replace(make_trial(4), failure_message="cannot open \udce9.png")
    back = rows.trial_from(through_parquet(rows.trial_row(trial, None, None), rows.TRIALS))
    assert back.failure_message == "cannot open ?.png"


def test_a_pool_from_before_scores_of_any_unit_reads_and_is_sound(tmp_path):
    pool = PoolWriter.create(tmp_path / "p", MANIFEST)
    with pool.acquire():
        pool.record_asked([make_proposal(0), make_proposal(1)], START)
        pool.record_finished([make_trial(0, accuracy=0.5), make_trial(1, accuracy=0.75)])
    before = pool.log()
    for folder, schema in (("trials", rows.TRIALS), ("events", rows.EVENTS)):
        old = pa.schema([field for field in schema if field.name not in rows.LATER], metadata=schema.metadata)
        for part in (tmp_path / "p" / folder).glob("*.parquet"):
            pq.write_table(pq.read_table(part).select(old.names).cast(old), part)
    assert PoolReader.open(pool.url).log() == before
    assert pool.retries() == {}
    assert pool.check() == []
    assert pool.best()["trial_id"].tolist() == [1, 0]
    with pool.acquire():
        pool.record_asked([make_proposal(2)], START)
        pool.record_finished([make_trial(2, accuracy=0.6)])
        pool.compact()
    assert (len(pool.log()), pool.check()) == (3, [])
