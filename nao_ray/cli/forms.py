"""The objects that ``--json`` prints, command by command: what a program that runs `nao-ray` can count on.

Fields are added, never renamed or given another meaning. `nao-ray schema COMMAND` prints the JSON Schema of one.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Literal, get_type_hints

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from nao_ray.pool import SCHEMAS, Column, View, columns


class Form(BaseModel):
    """One printed object; no field is missing, and there is none besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Error(Form):
    """Printed to stderr, as its last line, by any command that was given ``--json`` and fails."""

    error: str
    """Kind: `ConfigError`, `DataError`, ... (`nao_ray.errors`), `UsageError`, or another exception's name."""
    message: str
    exit_code: Literal[1, 2]
    """1: the run failed; 2: the input is at fault."""


class Failures(Form):
    """Failed trials of one kind."""

    kind: str
    count: int
    retried: int
    """So many of them the user has asked for again."""
    cured: int
    """So many were completed then."""
    trial_id: int
    """The newest."""
    message: str
    """The commonest."""


class Covered(Form):
    """What the trials of a search with several objectives cover."""

    objectives: list[str]
    """The metric's column first; with - where less is better."""
    trials: list[int]
    """Those that none beats, the best by the metric first."""
    hypervolume: float
    """Above the reference point, in the product of the objectives' units."""
    reference: dict[str, float | None]
    """By column the worst among the trials; null where there is none."""


class Pool(Form):
    """``pool POOL``."""

    pool: str
    asked: int
    completed: int
    failed: int
    best_score: float | None
    """More is better: of a measure that is minimised its negative."""
    best_trial_id: int | None
    failures: list[Failures]
    front: Covered | None
    """Null where the metric is all that the search aims at."""
    rungs: dict[int, int]
    """Of a ladder of epochs the finished trials by theirs, failed ones too; {} where there is none."""


class Check(Form):
    """``pool POOL check``; exit code 1 where there are problems."""

    pool: str
    problems: list[str]


class Merged(Form):
    """``pool POOL compact``."""

    pool: str
    trials: int


class Imported(Form):
    """``pool import``."""

    pool: str
    rows: int
    """Of the table."""
    trials: int
    architectures: int
    """Different ones."""
    taken: list[str]
    """Columns that were, beside genotype and score."""
    ignored: list[str]
    """Columns that were not."""
    left_out: list[str]
    """Rows that could not be read, a line each."""


class Searched(Form):
    """``search``, ``resume``, ``finalists``: how it stands at the end."""

    pool: str
    report: str | None
    """Where it is; null: none was written."""
    asked: int
    completed: int
    failed: int
    best_score: float | None
    """More is better: of a measure that is minimised its negative."""
    best_trial_id: int | None


class Files(Form):
    """``report``, ``film``, ``export``: what was written."""

    files: list[str]


class Described(BaseModel):
    """``describe``; besides, sizes of the network, and of the pool's trial, by their columns."""

    model_config = ConfigDict(extra="allow", frozen=True)
    genotype: str
    canonical: str
    space: str
    published: str | None
    """Name of the published architecture that it is."""
    network: str | None
    num_classes: int | None
    num_params: int | None
    """Without the auxiliary head, as `macs`; null where the space has no networks."""
    num_params_auxiliary: int | None
    macs: int | None
    normal_ops: list[str] | None
    reduction_ops: list[str] | None
    ops: dict[str, list[str]]
    """By the role of their cell."""
    loose_ends: dict[str, list[int]]
    """By the role of a cell, the nodes that its output concatenates."""
    notations: dict[str, str]


class Evaluated(BaseModel):
    """``evaluate``: besides, the test columns of ``pool POOL columns`` (`test_accuracy`, `test_loss`, ...)."""

    model_config = ConfigDict(extra="allow", frozen=True)
    genotype: str
    test_loss: float


class Answer(Form):
    """``budget``, ``cancel``, ``stop --drain``: what the driver of a pool has answered."""

    pool: str
    answer: str


class Submitted(Form):
    """``submit``; what the job says goes to stderr meanwhile."""

    job: str
    address: str
    pool: str
    """Folder or URL of the pool, or of the training."""
    carries: list[str]
    exit_code: int | None
    """Of the job; null with --no-follow, and where it goes on unwatched."""


class Job(Form):
    """A row of ``status``; null where its pool cannot be read from here."""

    job: str
    status: str
    exit_code: int | None
    detached: Literal["yes", "no"]
    started_at: str | None
    """UTC."""
    ended_at: str | None
    trials: str | None
    """Finished, of how many; of a search."""
    epochs: str | None
    """Done, of how many; of a full training."""
    best: str | None
    left: str | None
    pool: str | None


class Stopped(Form):
    """``stop`` of a job."""

    job: str
    ending: str


class Log(Form):
    """``logs``."""

    job: str
    log: str


# -- rows of Parquet ------------------------------------------------------------------------------------------

_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): int,
    pa.float64(): float,
    pa.string(): str,
    pa.list_(pa.int64()): list[int],
    pa.list_(pa.float64()): list[float],
    pa.list_(pa.string()): list[str],
}


@cache
def row_form(table: str, *more: tuple[str, Any]) -> type[BaseModel]:
    """The form of a row of `trials` or `final`: a column a field; `more`: fields beside them, with their types."""
    meanings = {each.name: each.meaning for each in columns() if each.table == table}
    fields: dict[str, Any] = {
        field.name: (_TYPES.get(field.type, datetime) | None, Field(description=meanings[field.name]))
        for field in SCHEMAS[table]
    }
    fields |= {name: (kind, ...) for name, kind in more}
    return create_model(f"Row of {table}", __base__=Form, **fields)


class Training(Form):
    """A full training, when its last checkpoint was kept; scores in the metric's own unit."""

    name: str
    epochs_done: int
    epochs: int
    train_loss: float
    """Nats, the mean over the last epoch."""
    metric: str
    valid: float | None
    """After the last epoch; null where nothing validates."""
    best_valid: float | None
    test: float | None
    """Null before it has ended."""
    seconds_left: float


def _watched() -> Any:  # noqa: ANN401 - a union, made of a class and of a dataclass's fields
    """``watch --once``: a `View` of the search, how many trials have finished, and full trainings; or these alone."""
    trainings = (list[Training], ...)
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in get_type_hints(View).items()}
    fields |= {"finished": (int, ...), "trainings": trainings}
    alone = create_model("Trainings", __base__=Form, trainings=trainings)
    return create_model("Watched", __base__=Form, **fields) | alone


def forms() -> dict[str, TypeAdapter[Any]]:
    """By command, with its action where it has some, what it prints.

    Others print what the user asks for: `pool POOL sql`, `bench`, `recipes`, `table audit`.
    """
    final = row_form("final")
    ranked = row_form("trials", ("pareto_rank", int | None))
    shown = row_form("trials", ("logs", list[str]), ("retried_as", int | None))
    found: dict[str, Any] = {
        "errors": Error,
        "search": Searched,
        "watch": _watched(),
        "resume": Searched,
        "finalists": Searched,
        "pool": Pool,
        "pool best": list[ranked],  # type: ignore[valid-type]  # made of the schema
        "pool show": list[shown],  # type: ignore[valid-type]
        "pool check": Check,
        "pool compact": Merged,
        "pool columns": list[Column],
        "pool import": Imported,
        "describe": Described,
        "train": final,
        "evaluate": Evaluated,
        "report": Files,
        "film": Files,
        "export": Files,
        "submit": Submitted,
        "status": list[Job],
        "stop": Stopped | Answer,
        "logs": Log,
        "budget": Answer,
        "cancel": Answer,
    }
    return {name: TypeAdapter(form) for name, form in found.items()}
