"""The section `workers` of a configuration: who trains, and for how long; and who trains one network together."""

from __future__ import annotations

import getpass
import math
import re
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from nao_ray.settings import Settings

_LEAST = 1e-4
"""Of a CPU or a GPU that Ray can divide off."""


class Crew(NamedTuple):
    """How many workers train one network together."""

    least: int
    most: int

    @classmethod
    def of(cls, text: str) -> Crew:
        """Of a text as `crew_text` gives it."""
        least, _, most = text.partition("..")
        return cls(int(least), int(most or least))


def login() -> str:
    """Who is logged in; ``unknown`` where the machine does not say, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def crew_text(value: Any) -> Any:  # noqa: ANN401
    """The one text of a number of workers, or of a range of them: ``4``, ``2..4``.

    Raises:
        ValueError: it is neither.
    """
    text = "" if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[1-9]\d{0,4}(\.\.[1-9]\d{0,4})?", text) is None or (crew := Crew.of(text)).least > crew.most:
        raise ValueError("expected a number of workers, or a range of them such as 2..4")
    return str(crew.most) if crew.least == crew.most else text


class Workers(Settings):
    """Who trains."""

    count: int | Literal["auto"] = "auto"
    """Worker actors at most; `auto`: as many as the cluster holds, and may grow to hold where it has an autoscaler.
    There are never more than there is work for."""
    cpus: float = Field(default=1, ge=_LEAST, le=1e6)
    """CPUs per trial; also torch's threads."""
    gpus: float | Literal["auto"] = 0.0
    """GPUs per trial; a fraction puts several on one device. `auto`: trials share a GPU, beginning with one: one more
    where that was measured to bring a tenth more trials an hour, and its memory holds it by what they have used so far;
    a whole one where weights are shared; none where a trial does not train, or does on a CPU (`evaluator.device`), and
    where, when the search starts, no node has a GPU and none can be added."""
    max_per_gpu: int = Field(default=8, ge=1)
    """Trials on one GPU at most, where `gpus` is `auto`."""
    mps: Literal["auto", "off"] = "auto"
    """Trials that share a GPU compute there at the same time, under an NVIDIA MPS daemon that is the search's own and
    ends with it. Where there is none, or `off`, they take turns."""
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Of this search's share of a cluster that others search on: with 2 beside 1 two thirds of what both would use.
    Workers go from one to the other between two trials; no trial is ended for it."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Before searches of a lower one it gets all workers that it has work for."""
    user: str | None = Field(default=None, min_length=1, max_length=100)
    """Whose search it is, a label of its metrics; by default who is logged in where it was started or handed in."""
    max_gpus: float | None = Field(default=None, gt=0)
    """GPUs of all its workers together at most."""
    timeout_seconds: float | Literal["auto", "none"] | None = "auto"
    """A trial that takes longer is FAILED as `timeout`; its worker's start and the loading of data do not count.
    `auto`: 10 times the median of what trials of its fidelity took, at least 10 minutes, once three have ended.
    `none`: any time."""
    silent_seconds: float = Field(default=180, ge=2)
    """A worker that says nothing for this long, although it is asked, is lost and replaced: stopped, or on a machine
    that hangs. More than the longest stretch in which a trial lets no other thread of its process run."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a trial whose worker was lost is tried, over all drivers of the pool. What was under way when a driver
    died counts as tried, up to three times at least."""
    retry: tuple[Literal["error", "nan", "out_of_memory", "timeout"], ...] = ()
    """Failure kinds besides `lost` that are tried again."""
    checkpoint_seconds: float | None = Field(default=300, gt=0)
    """A trial that takes longer keeps its state in the pool, at the end of an epoch and so long after the last one:
    another worker goes on with it where this one is lost, to the same result. Null: it begins anew. What a rung of
    `fidelity` pauses with is always kept."""
    notice_seconds: float | None = Field(default=None, gt=0)
    """How long before the driver is killed it gets SIGTERM, or SIGUSR1, e.g. 120 on spot machines, in Kubernetes' grace
    or from Slurm: what runs may end within it, nothing further begins. Null: SIGTERM ends the search at once, SIGUSR1
    once what runs has ended."""
    patience_seconds: float = Field(default=1800, gt=0)
    """What is no architecture's fault (data, device, installation, disk, permissions) pauses the search, is tried again
    with growing waits, and after so long without a completed trial ends it, resumable, its trials open; after a tenth
    of that before the first trial."""

    @field_validator("timeout_seconds", mode="before")
    @classmethod
    def _some_seconds(cls, value: Any) -> Any:  # noqa: ANN401
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value not in ("auto", "none", None) and not (is_number and 0 < value < math.inf):
            raise ValueError("expected a finite number above 0, auto or none")
        return value

    @field_validator("count", mode="before")
    @classmethod
    def _some_workers(cls, value: Any) -> Any:  # noqa: ANN401
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1e6):
            raise ValueError("expected a whole number that is 1 or more, or auto")
        return value

    @field_validator("gpus", mode="before")
    @classmethod
    def _some_gpus(cls, value: Any) -> Any:  # noqa: ANN401
        if value == "auto":
            return value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (value == 0 or _LEAST <= value <= 1 or (1 < value <= 1e6 and value == int(value))):
            raise ValueError("expected 0, a fraction up to 1, a whole number, or auto")
        return value
