"""Trials and proposals as rows of Parquet, and back: the only place that knows the columns.

A row is a dict by column name. Finite numbers keep their bits, so that a proposal read from the pool equals the one
that was asked; a figure that is no finite number is null (`finite.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from nao_ray._pool.finite import finite_rows
from nao_ray.metric import DEFAULT, PERPLEXITY
from nao_ray.spaces.base import Genotype
from nao_ray.trial import (
    Attempt,
    FailureKind,
    Fidelity,
    Interim,
    Measurement,
    Phase,
    Proposal,
    Sizes,
    Trial,
    TrialState,
)

SCHEMA_VERSION = 2
"""1: pools whose networks had no sizes but `cells_per_stage` and `channels`."""

Row = dict[str, Any]
Ops = Callable[[Genotype], Mapping[str, Sequence[str]]]
"""The operations of a genotype by the role of their cell: `SearchSpace.ops_by_cell`."""

_INT, _FLOAT, _TEXT = pa.int64(), pa.float64(), pa.string()
_INTS, _FLOATS, _TEXTS = pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.string())
_TIME = pa.timestamp("us", tz="UTC")

_SIZES = ("cells_per_stage", "channels", "layers", "hidden", "embedding_width")
"""Sizes of networks that are columns, null where a network has none of this name."""
OWN_SIZE = "own_size"
"""Column with the others, those of the user's own skeletons: JSON by name."""
_SIZE = (*((name, _INT) for name in _SIZES), (OWN_SIZE, _TEXT))
_THOROUGHNESS = (
    ("data_share", _FLOAT),
    ("weights_version", _TEXT),
    ("valid_share", _FLOAT),
)
_FIDELITY = (("epochs", _INT), *_SIZE, *_THOROUGHNESS)
_HEARD = (("heard_trial_ids", _INTS), ("heard_epochs", _INTS), ("heard_scores", _FLOATS))
"""Of `Interim`, each a list."""
_PROPOSAL = (
    ("space", _TEXT),
    ("genotype", _TEXT),
    ("tokens", _INTS),
    ("embedding", _FLOATS),
    ("predicted_score", _FLOAT),
    ("predicted_spread", _FLOAT),
    ("source_trial_id", _INT),
    ("source_step_size", _FLOAT),
    ("round", _INT),
    ("origin", _TEXT),
    ("file_row", _INT),
    ("settings", _TEXT),
    ("retry_of", _INT),
    ("parent_trial_id", _INT),
    *_HEARD,
    ("phase", _TEXT),
    *_FIDELITY,
)
_SHAPES = (("network", _TEXT), ("num_classes", _INT), ("in_channels", _INT))
"""What the network had to fit, as pools have it from before there was more than one family of tasks."""
_MEASURED = (
    (DEFAULT.column, _FLOAT),  # this one and the next two have stood here since version 1
    (PERPLEXITY.column, _FLOAT),
    ("valid_loss", _FLOAT),
    ("valid_score", _FLOAT),
    ("goal", _TEXT),
    ("train_loss", _FLOAT),
    ("derived_genotype", _TEXT),
    ("derived_score", _FLOAT),
    ("derived_rank", _INT),
    ("alphas", _FLOATS),
    ("alpha_eigenvalue", _FLOAT),
    ("supernet_score", _FLOAT),
    ("curve", _FLOATS),
    ("num_params", _INT),
    ("macs", _INT),
    ("wall_seconds", _FLOAT),
    ("device_seconds", _FLOAT),
    ("peak_memory_bytes", _INT),
    ("device", _TEXT),
    ("execution", _TEXT),
    ("latency_ms", _FLOAT),
)
_MEASUREMENT = (*_MEASURED, *_SHAPES)
_OPS = {"normal_ops": "normal", "reduction_ops": "reduction"}
"""Columns with the operations of a cell, by its role."""
_REQUIRED = {"trial_id", "attempt", "seed", "asked_after", "log_index", "seq", "space", "genotype", "state", "kind"}


def metadata(gaps: list[str]) -> Any:  # noqa: ANN401 - what pyarrow takes differs by call
    """Metadata of a schema; makes pandas read the integer columns `gaps` as `Int64` instead of floats."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
        for name in gaps
    ]
    pandas = {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "3.0.0"}
    return {"schema_version": str(SCHEMA_VERSION), "pandas": json.dumps(pandas)}


def _schema(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    gaps = [name for name, kind in columns if kind == _INT and name not in _REQUIRED]
    return pa.schema([pa.field(name, kind) for name, kind in columns], metadata=metadata(gaps))


def is_current(found: pa.Schema, own: pa.Schema) -> bool:
    """Whether a part has all columns and metadata that it would have now; those of earlier versions do not."""
    return bool(found.equals(own)) and found.metadata == own.metadata


def is_earlier(found: pa.Schema, own: pa.Schema) -> bool:
    """Whether a part is of an earlier version, all of whose columns there are still."""
    version = (found.metadata or {}).get(b"schema_version", b"").decode("utf-8", "replace")
    if not version.isdecimal() or int(version) > SCHEMA_VERSION or is_current(found, own):
        return False
    known = {field.name: field.type for field in own}
    return all(known.get(field.name) == field.type for field in found)


TRIALS = _schema(
    ("trial_id", _INT),
    ("attempt", _INT),
    ("strategy", _TEXT),
    *_PROPOSAL,
    *((name, _TEXTS) for name in _OPS),
    ("task", _TEXT),
    ("state", _TEXT),
    ("failure_kind", _TEXT),
    ("failure_message", _TEXT),
    *_MEASUREMENT,
    ("node", _TEXT),
    ("seed", _INT),
    ("asked_at", _TIME),
    ("started_at", _TIME),
    ("finished_at", _TIME),
    ("asked_after", _INT),
    ("log_index", _INT),
)
"""One row per finished trial."""

LOGGED = tuple(name for name in TRIALS.names if name not in ("strategy", "task", *_OPS))
"""The columns that `trial_from` needs."""

_LATER_MEASURED = (
    "valid_score", "goal", "derived_genotype", "derived_score", "derived_rank", "alphas", "alpha_eigenvalue",
    "supernet_score", "execution", "latency_ms", *dict(_SHAPES),
)  # fmt: skip
_LATER_SIZES = ("layers", "hidden", "embedding_width", OWN_SIZE)
_LATER_ASKED = ("origin", "file_row", "settings", "retry_of", "parent_trial_id", *dict(_HEARD))
LATER = frozenset({"message", *_LATER_ASKED, *_OPS, *_LATER_MEASURED, *_LATER_SIZES})
"""Columns that parts of earlier pools lack; they are read as nulls."""

EVENTS = _schema(
    ("seq", _INT),
    ("kind", _TEXT),
    ("trial_id", _INT),
    ("attempt", _INT),
    ("node", _TEXT),
    ("at", _TIME),
    *_PROPOSAL,
    ("seed", _INT),
    ("asked_after", _INT),
    ("message", _TEXT),
)
"""One row per proposal asked (kind `asked`, attempt 0), per attempt started (kind `attempt`; `message`: how the one
before ended) and per attempt that ended in order with its driver (kind `left`), in order of `seq`."""

FINAL = _schema(
    ("name", _TEXT),
    ("trial_id", _INT),
    ("space", _TEXT),
    ("genotype", _TEXT),
    ("task", _TEXT),
    ("recipe", _TEXT),
    ("epochs", _INT),
    *_SIZE,
    ("data", _TEXT),
    ("seed", _INT),
    (DEFAULT.test_column, _FLOAT),
    ("test_loss", _FLOAT),
    (DEFAULT.column, _FLOAT),
    ("valid_loss", _FLOAT),
    ("train_loss", _FLOAT),
    ("curve", _FLOATS),
    ("num_params", _INT),
    ("macs", _INT),
    ("wall_seconds", _FLOAT),
    ("device", _TEXT),
    ("node", _TEXT),
    ("checkpoint", _TEXT),
    ("started_at", _TIME),
    ("finished_at", _TIME),
    (PERPLEXITY.test_column, _FLOAT),
    (PERPLEXITY.column, _FLOAT),
    ("test_score", _FLOAT),
    ("valid_score", _FLOAT),
    ("goal", _TEXT),
    ("test_top5", _FLOAT),
    ("peak_memory_bytes", _INT),
    ("latency_ms_1", _FLOAT),
    ("latency_ms_128", _FLOAT),
    ("latency_device", _TEXT),
    ("latency_threads", _INT),
)
"""One row per full training."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of events/ without the proposal it may hold."""

    kind: str
    trial_id: int
    attempt: int
    node: str | None
    at: datetime


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; a column that a row lacks is null, and so is a figure that is no finite number."""
    found = pa.array(finite_rows(rows, schema), pa.struct(list(schema)))  # a fifth of an array for each column
    return pa.Table.from_struct_array(found).replace_schema_metadata(schema.metadata)


def dicts(data: pa.Table) -> Iterator[Row]:
    """The rows of a table, a batch at a time."""
    for batch in data.to_batches(max_chunksize=1024):
        columns = [_values(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(data.column_names, values, strict=True))


def _values(column: pa.Array[Any]) -> list[Any]:
    """As `to_pylist`, but lists, which are most of a row, ten times as fast."""
    if not isinstance(column, pa.ListArray):
        return list(column.to_pylist())
    flat = column.flatten().to_numpy(zero_copy_only=False).tolist()
    found: list[Any] = []
    start = 0
    for length in column.value_lengths().to_pylist():
        found.append(None if length is None else flat[start : start + length])
        start += length or 0
    return found


def utc(moment: datetime | None) -> datetime | None:
    """The same moment in UTC.

    Raises:
        ValueError: the time has no time zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"time {moment} has no time zone; give one in UTC")
    return moment.astimezone(UTC)


def _text(value: str | None) -> str | None:
    """Text that Parquet can hold: what is not Unicode, as in some paths, becomes `?`."""
    return None if value is None else value.encode("utf-8", "replace").decode("utf-8")


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


# -- to rows ----------------------------------------------------------------------------------------------


def size_columns(size: Sizes) -> Row:
    """The columns of a network's size."""
    found: Row = {name: value for name, value in size if name in _SIZES}
    own = {name: value for name, value in size if name not in _SIZES}
    return found | ({OWN_SIZE: json.dumps(own)} if own else {})


def proposal_row(proposal: Proposal) -> Row:
    """A proposal's columns."""
    row: Row = {name: getattr(proposal, name) for name in _OWN}
    fidelity = proposal.fidelity
    row |= {"epochs": fidelity.epochs, **{name: getattr(fidelity, name) for name, _ in _THOROUGHNESS}}
    row |= size_columns(fidelity.size)
    if proposal.heard:
        row |= dict(zip(dict(_HEARD), map(list, zip(*proposal.heard, strict=True)), strict=True))
    phase = None if proposal.phase is None else json.dumps(asdict(proposal.phase))
    return row | {"space": proposal.genotype.space, "genotype": proposal.genotype.key, "phase": phase}


def trial_row(trial: Trial, strategy: str | None, task: str | None, ops: Ops | None = None) -> Row:
    """A finished trial's columns; with `ops` also those of its operations.

    Raises:
        ValueError: the trial is not finished, or has no place in the log.
    """
    if trial.state is TrialState.RUNNING or trial.log_index is None:
        raise ValueError(f"trial {trial.trial_id} is {trial.state} with log_index {trial.log_index}: not finished")
    row = proposal_row(trial.proposal)
    if trial.measurement is not None:
        row |= {name: getattr(trial.measurement, name) for name, _ in _MEASURED} | dict(trial.measurement.shapes)
        row["device"] = _text(trial.measurement.device)
    if ops is not None and trial.proposal.phase is None:
        found = ops(trial.genotype)
        row |= {name: found.get(role) for name, role in _OPS.items()}
    return row | {
        "attempt": trial.attempt,
        "strategy": strategy,
        "task": task,
        "state": trial.state.value,
        "failure_kind": None if trial.failure_kind is None else trial.failure_kind.value,
        "failure_message": _text(trial.failure_message),
        "node": _text(trial.node),
        "asked_at": utc(trial.asked_at),
        "started_at": utc(trial.started_at),
        "finished_at": utc(trial.finished_at),
        "log_index": trial.log_index,
    }


def asked_row(seq: int, proposal: Proposal, at: datetime) -> Row:
    """The event that a proposal was asked."""
    return proposal_row(proposal) | {"seq": seq, "kind": "asked", "attempt": 0, "at": utc(at)}


def attempt_row(seq: int, attempt: Attempt, kind: str = "attempt") -> Row:
    """The event that an attempt at a trial was started, or left."""
    row: Row = {"seq": seq, "kind": kind, "trial_id": attempt.trial_id, "attempt": attempt.number}
    return row | {"node": _text(attempt.node), "at": utc(attempt.at), "message": _text(attempt.before)}


# -- from rows --------------------------------------------------------------------------------------------

_OWN = [item.name for item in fields(Proposal) if item.name not in ("genotype", "fidelity", "heard", "phase")]
_COPIED = [name for name in _OWN if name not in ("tokens", "embedding")]


def proposal_from(row: Mapping[str, Any]) -> Proposal:
    """The proposal in a row of trials/ or of events/."""
    return Proposal(
        genotype=Genotype(row["space"], row["genotype"]),
        fidelity=Fidelity(epochs=row["epochs"], size=size_from(row), **{name: row[name] for name, _ in _THOROUGHNESS}),
        tokens=_tuple(row["tokens"]),
        embedding=_tuple(row["embedding"]),
        heard=tuple(map(Interim._make, zip(*(row[name] or () for name in dict(_HEARD)), strict=True))),
        phase=_phase(row["phase"]),
        **{name: row[name] for name in _COPIED},
    )


def size_from(row: Mapping[str, Any]) -> Sizes:
    """The size of the network in a row, by name."""
    found = {name: row[name] for name in _SIZES if row.get(name) is not None}
    return tuple(sorted({**found, **json.loads(row.get(OWN_SIZE) or "{}")}.items()))


def _phase(text: str | None) -> Phase | None:
    if text is None:
        return None
    given = json.loads(text)
    return Phase(**{**given, **{name: _tuple(given.get(name)) for name in ("genotypes", "num_params")}})


def trial_from(row: Mapping[str, Any]) -> Trial:
    """The finished trial in a row of trials/."""
    values = {name: row[name] for name, _ in _MEASURED}
    shapes = tuple((name, row[name]) for name, _ in _SHAPES if row[name] is not None)
    measured = bool(shapes) or any(value is not None for value in values.values())
    values |= {name: _tuple(values[name]) for name in ("curve", "alphas")} | {"shapes": shapes}
    return Trial(
        proposal=proposal_from(row),
        state=TrialState(row["state"]),
        attempt=row["attempt"],
        measurement=Measurement(**values) if measured else None,
        failure_kind=None if row["failure_kind"] is None else FailureKind(row["failure_kind"]),
        failure_message=row["failure_message"],
        log_index=row["log_index"],
        node=row["node"],
        asked_at=row["asked_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
