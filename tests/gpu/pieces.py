"""All that needs a CUDA device, in pieces of one call, and one table of what they found: `make test-gpu`.

``bash tests/gpu/all.sh [PIECE...]``; without a name the usual ones, those worth most first. What a piece prints is in
OUT/PIECE.txt (OUT: gpu_out), the table in OUT/table.md, written anew with each row; a call that is ended in the middle
prints it too. Needs nothing beside Python.

Pieces print rows as they come, as Markdown, or at their end JSON with ``rows`` (``nao-ray bench NAME --json``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 480
"""Of a call; a lent machine takes 600 at most, its start left out."""
TAIL = 15  # lines of a piece that failed
WIDTH = 200  # characters of a row
SLOWER = 5  # times as long as a device, a CPU that the script is tried on
GRACE = 5.0  # seconds from being asked to end to being ended


@dataclass(frozen=True)
class Piece:
    """A command with a limit of time."""

    seconds: int
    about: str
    command: Sequence[str]
    tiny: Sequence[str] = ()
    """Further words with which it runs in seconds on a CPU, to try the script itself."""
    usual: bool = False


def _bench(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "nao_ray", "bench", name, "--json", *words]


_SEARCH = """
pool=$(mktemp -d)/pool
timeout --foreground -k 3 $((PIECE_SECONDS - 20)) "$0" -m nao_ray search "$1" --pool "$pool" "${@:2}"; code=$?
"$0" -m nao_ray pool "$pool" sql --json "select trial_id, phase is not null as phase, state, device, execution,
    round(wall_seconds, 2) as wall, round(device_seconds, 2) as device_s, peak_memory_bytes >> 20 as mib,
    round(coalesce(valid_accuracy, train_loss), 3) as score
    from trials where trial_id < 8 or phase is not null order by started_at"
exit $code
"""


def _search(config: str) -> list[str]:
    """On Ray, and in the last seconds what its trials say, however many there are."""
    return ["bash", "-c", _SEARCH, sys.executable, config]


TESTS = ("tests/gpu",)
_PYTEST = ("-m", "pytest", "-q", "-rs", *("-p", "no:cacheprovider"), *("-p", "no:benchmark"), *("-m", "gpu"))
_SMALL = ("cells_per_stage=1", "channels=4", "device=cpu")
_CPU_WORKER = ("--set", "workers.gpus=0", "--set", "evaluator.cells_per_stage=1", "--set", "evaluator.channels=4")
PIECES = {
    "tests": Piece(
        185,
        "the tests marked gpu",
        [sys.executable, *_PYTEST, *TESTS],
        usual=True,
    ),
    "child": Piece(
        85,
        "a child's step, plain and in a graph, two networks; two children beside each other",
        _bench("gpu", "batches=[128]", "processes=[2]", "patience=40", 'variants=["plain", "graph bfloat16"]'),
        ("batches=[4]", *_SMALL, "blocks=1", "steps=1", "seconds=0.1", "mps=false"),
        usual=True,
    ),
    "search": Piece(
        75,
        "a search of five children on Ray",
        _search("tests/gpu/search.yaml"),
        (*_CPU_WORKER, "--set", "task.per_class=20", "--set", "evaluator.epochs=1", "--set", "budget.trials=2"),
        usual=True,
    ),
    "darts": Piece(
        85,
        "DARTS' step with plain PyTorch's",
        _bench("darts", "device=cuda", "repeats=1", "steps=20"),
        ("steps=1", "batch=4", "layers=3", "channels=2"),
        usual=True,
    ),
    "variants": Piece(
        50,
        "what each kernel of ours brings to a child's step",
        [sys.executable, "tests/gpu/variants_of_a_step.py", "25"],
        usual=True,
    ),
    "shared": Piece(
        80,
        "a search with shared weights on Ray",
        _search("tests/gpu/shared.yaml"),
        (
            *_CPU_WORKER,
            *("--set", "evaluator.alone.cells_per_stage=1", "--set", "evaluator.alone.channels=4"),
            *("--set", "task.per_class=20", "--set", "strategy.epochs=1", "--set", "strategy.scored=8"),
        ),
    ),
    "rnn": Piece(
        90,
        "a recurrent cell over a segment with plain PyTorch's",
        _bench("rnn", "device=cuda"),
        ("device=cpu", "cells=[NAO-RNN]", "units=8", "batch=4", "steps=3", "rounds=1", "lengths=[3]", "genotypes=1"),
    ),
    "step": Piece(
        80,
        "a child's step by itself, plain, launched and in a graph, and its gradients",
        _bench("child", "device=cuda"),
        ("batch=4", *_SMALL, "repeats=1"),
    ),
    "supernet": Piece(
        110,
        "the shared supernet's step and scores with plain PyTorch's",
        _bench("supernet", "device=cuda", "pool=40"),
        ("batch=4", *_SMALL, "repeats=1", "pool=2", "pool_batch=4", "memory_batches=[4, 8]"),
    ),
    "bench": Piece(
        300,
        "children per GPU-hour: all batches and variants, up to three processes, with and without MPS",
        _bench("gpu"),
        ("batches=[4]", *_SMALL, "blocks=1", "steps=1", "seconds=0.1", "mps=false", "processes=[2]"),
    ),
}
"""In order of worth."""


def manual() -> str:
    """What there is."""
    lines = [__doc__ or "", "Pieces, with their limits in seconds; * are the usual ones:", ""]
    lines += [f"  {'*' if p.usual else ' '} {name:<9} {p.seconds:>3}  {p.about}" for name, p in PIECES.items()]
    lines += [
        "",
        f"A call takes {SECONDS} seconds at most (LIMIT=SECONDS changes it): pieces that no time is left for are",
    ]
    lines += ["left out, which the table says. TINY=1 tries the script itself on a CPU, in small sizes and no haste."]
    return "\n".join(lines)


# -- the table ------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows of all pieces."""

    folder: Path
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """By piece: what was measured, and what came out."""
    ends: dict[str, str] = field(default_factory=dict)
    """By piece: how it ended."""

    def write(self) -> None:
        """The file anew."""
        temporary = self.folder / "table.md.new"
        temporary.write_text(self.text() + "\n", encoding="utf-8")
        temporary.replace(self.folder / "table.md")

    def text(self) -> str:
        """As Markdown."""
        lines = ["| piece | of | result |", "| --- | --- | --- |"]
        for name, found in self.rows.items():
            lines.append(f"| **{name}** | {PIECES[name].about} | {self.ends.get(name, 'did not end')} |")
            silent = Counter(match[1] for _, result in found if (match := _SILENT.fullmatch(result)))
            told = [(what, result) for what, result in found if not _SILENT.fullmatch(result)]
            for what, result in [*told, *(("others", f"{count} {how}") for how, count in silent.items())]:
                lines.append(f"| {name} | {what} | {result[:WIDTH]} |")
        return "\n".join(lines)


_SILENT = re.compile(r"outcome (passed|skipped), seconds \S+, said -")
"""A test that has nothing to say."""


class Rows:
    """Reads a piece's lines: the rows in them, as they come."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self._last: list[str] = []
        self._header: list[str] = []

    def read(self, line: str) -> bool:
        """Whether there is something new."""
        line = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
        if line.startswith(("{", "[")):
            return self._json(line)
        if not (line.startswith("| ") and line.endswith(" |")):
            return False
        cells = [cell.strip() for cell in line[2:-2].split(" | ")]
        if all(set(cell) == {"-"} for cell in cells):
            self._header = self._last
            return False
        if len(cells) == len(self._header):
            self._add(dict(zip(self._header, cells, strict=True)))
            return True
        self._last = cells
        return False

    def _json(self, line: str) -> bool:
        try:
            told = json.loads(line)
        except ValueError:
            return False
        if isinstance(told, dict) and "rows" in told:
            self.found.clear()  # those that came before are among them
            for row in told["rows"]:
                self._add(row)
            self.found += [("note", str(note)) for note in told.get("notes", [])]
            return True
        rows = [row for row in (told if isinstance(told, list) else [told]) if isinstance(row, dict)]
        for row in rows:
            self._add(row)
        return bool(rows)

    def _add(self, row: dict[str, object]) -> None:
        (_, first), *others = row.items()
        cells = [f"{name} {_short(value)}" for name, value in others if value not in (None, "", "None")]
        self.found.append((str(first), ", ".join(cells)))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -- pieces ---------------------------------------------------------------------------------------------------------


def run(name: str, piece: Piece, seconds: float, table: Table, *, tiny: bool) -> bool:
    """Run it; whether it did what it should."""
    print(f"== {name}: {piece.about}, at most {seconds:.0f} s", flush=True)
    found, lines = Rows(), []
    table.rows[name] = found.found
    command = [*piece.command, *(piece.tiny if tiny else ())]
    began = time.monotonic()
    with open(table.folder / f"{name}.txt", "w", encoding="utf-8") as file:
        for line in _lines(command, seconds):
            file.write(line)
            file.flush()
            lines.append(line)
            if found.read(line):
                print(f"{name}: " + ": ".join(found.found[-1])[:WIDTH], flush=True)
                table.write()
    took, code = time.monotonic() - began, _code(lines)
    late = took >= seconds - GRACE and code
    table.ends[name] = f"{took:.0f} s, " + ("not done in time" if late else "done" if not code else f"exit code {code}")
    table.write()
    if code:
        print("".join(line for line in lines[-TAIL - 1 : -1]), end="", flush=True)
    print(f"== {name}: {table.ends[name]}", flush=True)
    return not code


_ENDED = "exit code "


def _code(lines: Sequence[str]) -> int:
    return int(lines[-1].removeprefix(_ENDED))


def _lines(command: Sequence[str], seconds: float) -> Iterator[str]:
    """What it prints, then its exit code, after at most so many seconds."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "GPU_ROWS": "1", "PIECE_SECONDS": str(int(seconds))},  # tests tell theirs
        text=True,
        errors="replace",
        start_new_session=True,
    )
    asked = threading.Timer(max(seconds - GRACE, 0.0), _signal, (process, signal.SIGTERM))
    ended = threading.Timer(seconds, _signal, (process, signal.SIGKILL))
    asked.start()
    ended.start()
    assert process.stdout is not None
    try:
        with process.stdout:
            yield from process.stdout
        yield f"{_ENDED}{process.wait()}\n"
    finally:
        asked.cancel()
        ended.cancel()
        if process.poll() is None:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    """To it and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main(names: Sequence[str]) -> int:
    """0: every piece did what it should."""
    if "--help" in names or (unknown := [name for name in names if name not in PIECES]):
        print(manual() if "--help" in names else f"no piece is named {unknown[0]}; there are {', '.join(PIECES)}")
        return 0 if "--help" in names else 2
    table = Table(Path(os.environ.get("OUT", "gpu_out")))
    table.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tiny = bool(os.environ.get("TINY"))
    until, good = time.monotonic() + float(os.environ.get("LIMIT", SECONDS)) * (SLOWER if tiny else 1), True
    try:
        for name in names or [name for name, piece in PIECES.items() if piece.usual]:
            seconds = min(PIECES[name].seconds * (SLOWER if tiny else 1), until - time.monotonic())
            if seconds < 2 * GRACE:
                table.rows[name], table.ends[name], good = [], "no time was left", False
                table.write()
            else:
                good = run(name, PIECES[name], seconds, table, tiny=tiny) and good
    finally:
        print(f"\n{table.text()}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
