"""What is in a pool on object storage, in few requests.

One listing tells all parts (`names.py`: which of them count), the lease and their changes. The newest parts, a row or
two each, are read out of a digest: a file that the driver writes anew every few parts, and that holds the rows of all
parts since the last merge. It is nothing but a copy: parts that it lacks are read themselves, and what it says of parts
that are merged by now is left out, so that it may be old or missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from zlib import crc32

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nao_ray._pool import names
from nao_ray._pool.groups import aligned, columns_of, open_part
from nao_ray._pool.rows import EVENTS, TRIALS, is_current
from nao_ray._pool.storage import Tag

if TYPE_CHECKING:
    from nao_ray._pool.objects import ObjectStorage

T = TypeVar("T")
S = TypeVar("S")

DIGEST = "recent.digest"
FOLDERS = {"trials": TRIALS, "rungs": TRIALS, "events": EVENTS}
FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Of parts: bits that have flipped are an error, not other numbers."""

_LISTED = ("events", "fits", "lease", DIGEST, "rungs", "trials")  # in the order of their names
_WORTH = 3  # parts that are read themselves rather than out of the digest
_READERS = 8  # requests at once
_END = 2**17  # bytes; longer footers take a request more
_KEPT = 4 * 2**20  # bytes; a larger part is rather read again


class Listed(NamedTuple):
    """What a listing says of a file."""

    tag: Tag
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The rows of the newest parts."""

    rows: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    """By folder: names of parts, in order, and the number of their rows."""
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    old: frozenset[str] = frozenset()
    """Folders of whose parts it was made by an earlier nao_ray."""

    def to_bytes(self) -> bytes:
        """A line with the checksum of all that follows, a line of JSON, then a Parquet file for each folder."""
        files = {folder: _parquet(data) for folder, data in self.tables.items()}
        head = {folder: {"bytes": len(file), "parts": self.rows[folder]} for folder, file in files.items()}
        body = b"".join([json.dumps(head).encode(), b"\n", *files.values()])
        return b"%08x\n" % crc32(body) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Digest:
        """Raises ValueError if it is none."""
        checksum, _, body = data.partition(b"\n")
        if checksum != b"%08x" % crc32(body):
            raise ValueError("its checksum does not fit")
        line, _, rest = body.partition(b"\n")
        rows, tables, old = {}, {}, set()
        try:
            for folder, about in json.loads(line).items():
                rows[folder] = [(str(name), int(count)) for name, count in about["parts"]]
                file = rest[: about["bytes"]]
                tables[folder] = pq.read_table(pa.BufferReader(file), schema=FOLDERS[folder])
                if is_old(file, folder):
                    old.add(folder)
                rest = rest[about["bytes"] :]
        except (KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise ValueError(str(error)) from None
        return cls(rows, tables, frozenset(old))

    def take(self, folder: str, wanted: Iterable[str]) -> dict[str, pa.Table]:
        """The rows of those parts that it has."""
        found, start, chosen = {}, 0, set(wanted)
        for name, count in self.rows.get(folder, ()):
            if name in chosen:
                found[name] = self.tables[folder].slice(start, count)
            start += count
        return found


def _parquet(data: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink, compression="zstd", write_page_checksum=True, write_statistics=False)
    return bytes(sink.getvalue())


class Catalogue:
    """Looks at the parts of one pool."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._moment: dict[str, Listed] | None = None
        self._depth = 0
        self._digest: tuple[Tag | None, Digest] = (None, Digest())
        self._parts: dict[str, bytes] = {}  # read in this moment

    @contextmanager
    def moment(self) -> Iterator[None]:
        """A block in which the pool is looked at once: a single listing, and no part is read twice."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.forget()

    def forget(self) -> None:
        """Look again, e.g. because a part that was listed has been merged meanwhile."""
        self._moment = None
        self._parts.clear()

    def note(self, name: str, data: bytes) -> None:
        """A part was written by us in this moment."""
        if self._moment is not None:
            self._moment[name] = Listed((), len(data))
            self._parts[name] = data

    def listing(self) -> Mapping[str, Listed]:
        """Parts and the lease by name, with what tells their changes."""
        if self._moment is not None:
            return self._moment
        found = self._storage.listing(_LISTED)
        if self._depth:
            self._moment = found
        return found

    def names(self, folder: str) -> list[str]:
        """All parts of a folder, those that count no more too."""
        start = f"{folder}/"
        return [name.removeprefix(start) for name in self.listing() if name.startswith(start)]

    def read(self, folder: str, wanted: Sequence[str]) -> list[bytes | pa.Table]:
        """Parts: whole files, or their rows out of the digest.

        Raises:
            FileNotFoundError: one was merged meanwhile; look again.
            OSError: they cannot be read.
        """
        try:
            return self._read(folder, wanted)
        except FileNotFoundError:
            self.forget()
            raise

    def _read(self, folder: str, wanted: Sequence[str]) -> list[bytes | pa.Table]:
        known = self._in_digest(folder, wanted)
        missing = [name for name in wanted if name not in known and f"{folder}/{name}" not in self._parts]
        read = at_once(lambda name: self._storage.read(f"{folder}/{name}"), missing, _READERS)
        files = dict(zip(missing, read, strict=True))
        found = [known.get(name, files.get(name) or self._parts.get(f"{folder}/{name}")) for name in wanted]
        if self._depth:
            self._parts |= {f"{folder}/{name}": data for name, data in files.items() if len(data) <= _KEPT}
        return found

    def _in_digest(self, folder: str, wanted: Sequence[str]) -> dict[str, pa.Table]:
        small = [name for name in wanted if names.merged(name) is None]
        known = self._digest[1].take(folder, small)
        now = self.listing().get(DIGEST)
        if len(small) - len(known) >= _WORTH and now is not None and now.tag != self._digest[0]:
            self._read_digest()
            known = self._digest[1].take(folder, small)
        return known

    def _read_digest(self) -> None:
        try:
            data, tag = self._storage.look(DIGEST)
            self._digest = tag, Digest.from_bytes(data)
        except FileNotFoundError:
            self._digest = None, Digest()
        except ValueError:  # a copy of what is elsewhere: do without
            self._digest = tag, Digest()

    def size(self, folder: str, name: str) -> int:
        """Bytes of a part."""
        return self.listing()[f"{folder}/{name}"].size

    def digested(self, folder: str) -> frozenset[str]:
        """Parts that the digest has, as far as it was read."""
        return frozenset(name for name, _ in self._digest[1].rows.get(folder, ()))

    def tables(self, folder: str, wanted: Sequence[str]) -> list[pa.Table]:
        """Parts, each as a table; raises as `read`."""
        schema = FOLDERS[folder]
        found = self.read(folder, wanted)
        return [part if isinstance(part, pa.Table) else _table(part, schema) for part in found]

    def has_old(self, folder: str, wanted: Sequence[str]) -> bool:
        """Whether one of these parts, each of few rows, is of an earlier schema; raises as `read`."""
        found = self.read(folder, wanted)
        is_digest_old = folder in self._digest[1].old
        return any(is_digest_old if isinstance(part, pa.Table) else is_old(part, folder) for part in found)

    def old(self, folder: str, wanted: Sequence[str]) -> list[str]:
        """Those of these merged parts that are of an earlier schema, by their ends.

        Raises:
            OSError: one cannot be read.
        """
        ends = at_once(lambda name: self._end(f"{folder}/{name}", _END), wanted, _READERS)
        return [name for name, end in zip(wanted, ends, strict=True) if is_old(end, folder)]

    def _end(self, name: str, length: int) -> bytes:
        """The last bytes of a part, with its whole footer."""
        size = self.listing()[name].size
        end = self._storage.read_end(name, size, min(length, size))
        footer = int.from_bytes(end[-8:-4], "little") + 8
        return end if footer <= len(end) else self._storage.read_end(name, size, min(footer, size))

    def dataset(self, folder: str, wanted: Sequence[str]) -> ds.Dataset:
        """Parts as a dataset in memory; raises as `read`."""
        schema = FOLDERS[folder]
        found: list[ds.Dataset] = []
        for is_table, parts in groupby(self.read(folder, wanted), lambda part: isinstance(part, pa.Table)):
            if is_table:
                found.append(ds.InMemoryDataset(pa.concat_tables(parts).combine_chunks(), schema))  # a fragment a chunk
            else:
                found.append(_files(parts, schema))
        return ds.UnionDataset(schema, found)


def is_old(part: bytes, folder: str) -> bool:
    """Whether a part, of which the end will do, is of an earlier schema."""
    return not is_current(pq.read_schema(pa.BufferReader(part)), FOLDERS[folder])


def at_once(request: Callable[[T], S], what: Sequence[T], most: int) -> list[S]:
    """What comes of a request for each, at most so many on their way at a time; one alone waits for no thread."""
    if len(what) < 2:
        return [request(one) for one in what]
    with ThreadPoolExecutor(most) as pool:
        return list(pool.map(request, what))


def _table(part: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a part that was read whole, also of an older schema; a dataset takes twice as long."""
    with open_part(pa.BufferReader(part)) as file:
        return aligned(file.read(columns_of(file, schema), use_threads=False), schema)


def _files(parts: Iterable[bytes], schema: pa.Schema) -> ds.Dataset:
    return ds.FileSystemDataset([FORMAT.make_fragment(pa.BufferReader(part)) for part in parts], schema, FORMAT)
