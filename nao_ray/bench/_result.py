"""What a measurement returns: a table to print, notes, and the figures behind it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """The result of one ``nao-ray bench NAME``."""

    name: str
    columns: list[str]
    rows: list[list[object]]
    """One cell per column; floats are shown with three significant digits."""
    notes: list[str] = field(default_factory=list)
    """What was compared with what, n, and the machine."""
    data: dict[str, object] = field(default_factory=dict)
    """The single measurements, JSON-able."""
    wrong: list[str] = field(default_factory=list)
    """What must not be, one line each: the result is printed, then the command fails."""

    @property
    def table(self) -> str:
        """The rows as an aligned Markdown table, the notes below it."""
        cells = [self.columns, *([_text(value) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
        lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        return "\n".join([*lines, "", *self.notes]).rstrip()


def show_row(columns: Sequence[str], row: Sequence[object], *, first: bool) -> None:
    """On standard error, as it comes: a measurement that takes minutes may be ended."""
    lines = [columns, ["---"] * len(columns)] if first else []
    for cells in [*lines, [_text(value) for value in row]]:
        print("| " + " | ".join(cells) + " |", file=sys.stderr, flush=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> str:
    """The machine in one line: CPU model, cores, GPU if any, versions; no host name."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [f"{_cpu_model()}, {cores} cores"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    parts.append(f"torch {torch.__version__}, Python {platform.python_version()}")
    return ", ".join(parts)


def _cpu_model() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name"))
    return next(models, platform.machine())
