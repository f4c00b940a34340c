"""Many searches, over the processes of this machine; those whose rows are on disk are not done again."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from nao_ray.bench._study import Row, Search, open_table, perform, read_row, write_row
from nao_ray.errors import NaoRayError, RunError

T = TypeVar("T")

_LINES = 10
"""Lines of progress where there is no terminal; fewer searches pass in silence."""


def gather(searches: Sequence[Search], folder: Path | None, processes: int) -> list[Row]:
    """The rows of all searches, in their order; those in `folder` are read, the others are made and written there.

    Raises:
        ConfigError: a setting is not what it should be; said before any search starts.
        DataError: a table or a row on disk is not what it should be.
        RunError: a search failed.
    """
    for search in {(search.label, search.table): search for search in searches}.values():
        search.config().make_strategy()
    hashes, lines = {}, []
    for search in {search.table: search for search in searches}.values():
        table, hashes[search.table] = open_table(search)  # many of them do not stay open together
        lines.append(table.facts().line)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in dict.fromkeys(lines):
        console.print(f"bench: {line}", markup=False)
    paths = [None if folder is None else folder / search.file_name(hashes[search.table]) for search in searches]
    found = [read_row(path, search) if path else None for path, search in zip(paths, searches, strict=True)]
    rows: dict[int, Row] = {number: row for number, row in enumerate(found) if row is not None}
    left = sorted(set(range(len(searches))) - rows.keys(), key=lambda number: (searches[number].seed, number))
    todo = {number: (searches[number], paths[number]) for number in left}  # searches of a seed share what they pretrain
    rows |= made(_make, todo, processes)
    return [rows[number] for number in sorted(rows)]


def made(work: Callable[[T], Row], todo: Mapping[int, T], processes: int) -> dict[int, Row]:
    """What `work`, a function of a module, makes of each, over so many processes of one thread each; shows progress."""
    return dict(_shown(_made(work, todo, processes), len(todo)))


def _shown(made: Iterator[tuple[int, Row]], total: int) -> Iterator[tuple[int, Row]]:
    """The same, with a bar on the terminal, or ten lines where there is none."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(made, "bench", total=total, console=console, transient=True)
        return
    for done, item in enumerate(made, start=1):
        if total >= _LINES and done * _LINES // total > (done - 1) * _LINES // total:
            console.print(f"bench: {done}/{total} done")
        yield item


def _made(work: Callable[[T], Row], todo: Mapping[int, T], processes: int) -> Iterator[tuple[int, Row]]:
    if processes == 1 or len(todo) < 2:
        for number, item in todo.items():
            yield number, work(item)
        return
    context = multiprocessing.get_context("forkserver")  # which loads what they all need once
    context.set_forkserver_preload([work.__module__, "torch"])
    with ProcessPoolExecutor(min(processes, len(todo)), context, initializer=_begin) as pool:
        numbers = {pool.submit(work, item): number for number, item in todo.items()}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make(search_and_path: tuple[Search, Path | None]) -> Row:
    search, path = search_and_path
    try:
        row = perform(search)
    except NaoRayError as error:
        raise RunError(f"{search.label} on {search.table}, seed {search.seed}: {error}") from error
    if path is not None:
        write_row(path, row)
    return row


def _begin() -> None:
    """One thread; and no process outlives the measurement, whatever ended that."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
