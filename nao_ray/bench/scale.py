"""How far one driver goes: thousands of workers, a hundred thousand trials, a pool of a million rows.

    nao-ray bench scale parts=virtual virtual.workers=1000 virtual.trials=3000 virtual.strategy=nao
    nao-ray bench scale parts=memory,pool

The parts: `virtual`, the busy share of 1,000 and 10,000 simulated workers beside a real strategy, the loop and a pool,
by made-up and by recorded training times; `fleet`, the real executor over thousands of workers that are no processes;
`real`, the cost of a trial on real Ray workers; `memory`, that of the driver over 100,000 trials; `resume`, that of one
that takes them up again and reports; `pool`, opening and querying a large one. ``PART.key=value`` sets an argument of a
part's `measure`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._scale_row import Row
from nao_ray.errors import ConfigError

PARTS = ("virtual", "fleet", "real", "memory", "resume", "pool")
_VIRTUAL = (
    "virtual: trainings last as long as a log-normal of mean 20 min and sigma 1 says, or as the table says; what the "
    "strategy and the loop take is measured and charged to the clock, so it varies with the machine. Workers busy: "
    "from when as many trials had ended as there are workers until the last was started; the first trials are theirs "
    "whoever proposes."
)


def run(parts: str = ",".join(PARTS), **settings: Any) -> BenchResult:  # noqa: ANN401
    """Measure the `parts` named, by commas.

    Args:
        parts: of `PARTS`.
        **settings: ``PART.key``, a setting of one part.

    Raises:
        ConfigError: there is no such part, or it has no such setting.
        RunError: a measurement failed.
    """
    names = [name.strip() for name in parts.split(",")]
    for name in names:
        if name not in PARTS:
            raise ConfigError(f"bench scale parts={parts}: no part {name!r}; known: {', '.join(PARTS)}")
    arguments = _arguments(settings, names)
    work = {name: _measure(name, arguments[name]) for name in names}  # what can be refused is refused at first
    rows = [row for name in names for row in work[name](**arguments[name])]
    return BenchResult(
        name="scale",
        columns=["measurement", "setting", "figure"],
        rows=[[row.measurement, row.setting, row.figure] for row in rows],
        notes=[*([_VIRTUAL] if "virtual" in names else []), machine()],
        data={"rows": [asdict(row) for row in rows]},
    )


def _arguments(settings: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """By part."""
    arguments: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in settings.items():
        part, _, name = key.partition(".")
        if part not in arguments:
            raise ConfigError(f"bench scale {key}: expected PART.key with a PART of {', '.join(names)}")
        arguments[part][name] = value
    return arguments


def _measure(part: str, arguments: Mapping[str, Any]) -> Callable[..., list[Row]]:
    """The `measure` of a part, which has all these arguments."""
    module = f"nao_ray.bench._scale_{part}"
    try:
        measure: Callable[..., list[Row]] = importlib.import_module(module).measure
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(f"bench scale: this nao_ray has no part {part!r}; leave it out of parts") from None
    known = inspect.signature(measure).parameters
    for name in arguments:
        if name not in known:
            raise ConfigError(f"bench scale {part}.{name}: no such setting; {part} has {', '.join(known)}")
    return measure
