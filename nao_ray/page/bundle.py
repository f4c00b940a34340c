"""The report of a pool: the live page and what it would ask for, in one file that opens from disk and loads nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nao_ray import __version__
from nao_ray.page import frames
from nao_ray.page.live import LivePool
from nao_ray.page.static_files import static_files
from nao_ray.page.trial import Json
from nao_ray.pool import PoolReader
from nao_ray.report.write import FILM, film_page, put_page
from nao_ray.spaces.base import SearchSpace

TRIALS = 30_000
"""Trials whose figures are in the file: all, or evenly many, and the best and starred ones."""
BEST = 1000
TEXTS = 5000
"""Trials whose genotypes are: the best, and the newest."""
PAGES = 20
"""Trials that have a page of their own, beside the starred ones: the best; and the newest failure of each kind. Of a
ladder all their rungs have."""

_STYLE = re.compile(r'<link rel="stylesheet" href="static/([\w.-]+\.css)">\n')
_SCRIPT = re.compile(r'<script src="static/([\w.-]+\.js)" defer></script>\n')
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "script-src {}"
)

Numbers = NDArray[np.int64]


def write_report(pool: PoolReader, space: SearchSpace[Any], out: Path | None = None) -> str:
    """Write the report of a pool, and beside it the film if there is one; returns where the report is.

    Args:
        pool: to report on.
        space: the pool's.
        out: the file, of a report without a film; default: report.html in the pool.

    Raises:
        PoolError: a part of the pool is damaged.
        PoolWriteError: the pool cannot be written.
        RunError: `out` cannot be written.
    """
    film = film_page(pool, space) if out is None else None
    if film is not None:
        put_page(pool, None, FILM, film)
    page = render([LivePool(pool.url, lambda _: space)], FILM if film is not None else None)
    return put_page(pool, out, "report.html", page)


def render(pools: Sequence[LivePool], film: str | None = None) -> str:
    """The page of some pools as one file.

    Args:
        pools: to show.
        film: where that of the first lies, seen from the file.

    Raises:
        PoolError: a part of a pool is damaged.
    """
    told = [{"id": str(number), **pool.described()} for number, pool in enumerate(pools)]
    responses: Json = {"api/pools": {"version": __version__, "live": False, "refresh_seconds": 0, "pools": told}}
    for number, pool in enumerate(pools):
        found = responses_of(pool)
        found["report"] = {**found["report"], "film": film if number == 0 else None}
        responses |= {f"api/pools/{number}/{path}": value for path, value in found.items()}
    made = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    data = json.dumps({"made": made, "responses": responses}, allow_nan=False, default=str)
    return assemble({name: body.decode() for name, (_, body) in static_files().items()}, data)


# -- what the page would ask for ----------------------------------------------------------------------------


def responses_of(pool: LivePool) -> Json:
    """The answers to what the page of one pool asks for, by path.

    Raises:
        PoolError: a part of the pool is damaged.
    """
    columns, labels = pool.whole()
    notes = pool.notes()
    starred = np.array([int(number) for number, note in notes["notes"].items() if note["star"]], np.int64)
    rows = len(columns["trial_id"]) if columns else 0
    kept = _kept(pool, columns, starred) if rows > TRIALS else np.arange(rows)
    header = {"series": "file", "since": 0, "total": rows, "labels": labels}
    report = pool.report()
    best, newest = _best(pool, columns), np.sort(columns.get("trial_id", np.empty(0, np.int32)))[::-1]
    pages = [*(row["trial"] for row in report["best"][:PAGES]), *(row["trial_id"] for row in report["failures"])]
    there = set(newest.tolist())
    named = dict.fromkeys(number for number in (*map(int, pages), *starred.tolist()) if number in there)
    numbers = dict.fromkeys([*named, *_rungs(columns, named)])
    texts = list(dict.fromkeys([*numbers, *best[: TEXTS // 2].tolist(), *newest.tolist()]))[:TEXTS]
    return {
        "columns": _base64(frames.encode(header, {name: column[kept] for name, column in columns.items()})),
        "map": _base64(pool.map()),
        "status": pool.status(),
        "report": report,
        "notes": notes,
        "texts": pool.texts(texts),
        **{f"trials/{details['trial_id']}": details for details in pool.trials(list(numbers))},
    }


def _best(pool: LivePool, columns: Mapping[str, frames.Column]) -> Numbers:
    """Trials with a value, the best first; of a ladder those of higher rungs before."""
    if "value" not in columns:
        return np.empty(0, np.int64)
    values = columns["value"] * pool.metric.score(1.0)
    rungs = columns.get("rung", np.zeros(len(values)))
    known = np.flatnonzero(np.isfinite(values))
    found: Numbers = columns["trial_id"][known[np.lexsort((-values[known], -rungs[known]))]].astype(np.int64)
    return found


def _rungs(columns: Mapping[str, frames.Column], numbers: Collection[int]) -> list[int]:
    """Of a ladder the trials of all rungs of the architectures of these trials: their pages link to each other."""
    if "parent" not in columns:
        return []
    trials, parents = columns["trial_id"], columns["parent"]
    place = np.full(int(max(trials.max(), parents.max())) + 1, -1)
    place[trials] = np.arange(len(trials))
    first = np.arange(len(trials))
    below = np.where(parents < 0, first, place[parents])  # a row's rung below, or itself
    below = np.where(below < 0, first, below)
    while not np.array_equal(first, further := below[first]):
        first = further
    found: list[int] = trials[np.isin(first, first[np.isin(trials, list(numbers))])].tolist()
    return found


def _kept(pool: LivePool, columns: Mapping[str, frames.Column], starred: Numbers) -> Numbers:
    """The rows of a large pool that are in the file."""
    ids = columns["trial_id"]
    always = np.flatnonzero(np.isin(ids, np.concatenate([_best(pool, columns)[:BEST], starred])))
    even = np.linspace(0, len(ids) - 1, max(0, TRIALS - len(always))).astype(np.int64)
    return np.union1d(always, even)


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


# -- one file -----------------------------------------------------------------------------------------------


def assemble(files: Mapping[str, str], data: str) -> str:
    """The page with its styles, scripts and `data` in it, and a policy that lets nothing else run.

    Raises:
        ValueError: `index.html` names a file in another form than `_STYLE` and `_SCRIPT`.
    """
    page = files["index.html"].replace("\r\n", "\n")
    scripts = [_script(files[name]) for name in _SCRIPT.findall(page)]
    page = _STYLE.sub(lambda found: f"<style>\n{files[found[1]]}</style>\n", _SCRIPT.sub("", page))
    if re.search(r'(?:src|href)="static/', page):
        raise ValueError("index.html names a file of static/ in another form than the page's own")
    hashes = " ".join(f"'sha256-{_hash(text)}'" for text in scripts)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(hashes)}">\n'
    packed = base64.b64encode(gzip.compress(data.encode(), 6, mtime=0)).decode()
    body = f'<script type="application/octet-stream" id="nao-ray-data">{packed}</script>\n'
    body += "".join(f"<script>{text}</script>\n" for text in scripts)
    head, meta, rest = page.partition('<meta charset="utf-8">\n')
    before, end, after = rest.rpartition("</body>")
    return f"{head}{meta}{policy}{before}{body}{end}{after}"


def _script(text: str) -> str:
    """A script as it may stand in a page: nothing in it ends it, or begins a comment of the page's."""
    text = text.replace("\r\n", "\n").replace("<!--", r"<\!--")
    return re.sub("</(script)", r"<\\/\1", text, flags=re.IGNORECASE)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def unpacked(page: str) -> Json:
    """What is in a report: when it was `made`, and the `responses` by path.

    Raises:
        ValueError: the page is none.
    """
    found = re.search(r'id="nao-ray-data">([\w+/=]*)</script>', page)
    if found is None:
        raise ValueError("this is no report of a pool: it has no element nao-ray-data")
    data: Json = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return data
