"""Pictures in tar files, as WebDataset has them: `key.jpg` beside `key.cls`, in shards named after their split.

A shard is listed once, without its pictures; the list is kept in the user's cache folder by the file's identity, and a
picture is then read from its offset: any order may be asked for, which a library that reads shards from one end to the
other cannot give. Compressed shards have no offsets and are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from nao_ray.errors import DataError
from nao_ray.tasks.images.folder import KINDS
from nao_ray.tasks.images.labels import Labels
from nao_ray.tasks.images.sources import Reader, Source
from nao_ray.tasks.parts import layouts
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role, Wanted

_VERSION = 1


@dataclass(frozen=True)
class _Listed:
    """The samples of a shard, in their order there."""

    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    names: NDArray[np.bytes_]
    """Of the pictures' members."""
    labels: NDArray[np.bytes_]

    @classmethod
    def joined(cls, lists: list[_Listed]) -> _Listed:
        return cls(*(np.concatenate(parts) for parts in zip(*(_arrays(each) for each in lists), strict=True)))


def _arrays(listed: _Listed) -> tuple[NDArray[np.generic], ...]:
    return (listed.offsets, listed.lengths, listed.names, listed.labels)


@dataclass(frozen=True)
class _Members(Reader):
    """Members of shards, by their offsets."""

    paths: tuple[str, ...]
    shard_of: NDArray[np.int64]
    listed: _Listed

    def picture(self, index: int) -> tuple[str, bytes]:
        path, length = self.paths[self.shard_of[index]], int(self.listed.lengths[index])
        where = f"{path}, {os.fsdecode(self.listed.names[index])}"
        try:
            with open(path, "rb") as file:
                file.seek(int(self.listed.offsets[index]))
                content = file.read(length)
        except OSError as error:
            raise DataError(f"{where}: cannot be read: {error.strerror}") from None
        if len(content) < length:
            raise DataError(f"{where}: the shard ends within it; fetch it again")
        return where, content


class Shards(Source):
    """A tar file, or a folder of them.

    Raises:
        DataError: there is none, or their names are not understood.
    """

    def __init__(self, path: str, splits: Wanted, label_ending: str = "cls") -> None:
        self.path, self._ending = path, label_ending
        root = Path(path).expanduser()
        if "://" in path or not root.exists():
            raise DataError(
                f"{path}: no such file or folder of this machine; task.path is a tar file or a folder of them"
            )
        if root.is_file():
            self._root, names = root.parent, [root.name]
        else:
            below = [str(file.relative_to(root)) for file in sorted(root.rglob("*.tar")) if file.is_file()]
            self._root, names = root, layouts.visible(below)
        if not names:
            raise DataError(f"{path}: the folder has no *.tar files")
        layout = layouts.split_files(names, splits, path) if root.is_dir() else layouts.Layout()
        self._notes, self._named = layout.notes, layout.files or {"train": names}
        self._is_split = bool(layout.files)
        self._lists: dict[Role, tuple[_Listed, NDArray[np.int64]]] = {}

    def labels(self, role: Role) -> Labels | None:
        if role not in self._named:
            return None
        texts, codes = np.unique(self._read(role)[0].labels, return_inverse=True)
        values = [text.decode() for text in texts.tolist()]
        if all(text.isdecimal() for text in values):
            numbers = sorted({int(text) for text in values})  # 007 and 7 are one
            codes = np.array([numbers.index(int(text)) for text in values], dtype=np.int64)[codes]
            return Labels(codes, tuple(numbers))
        return Labels(codes.astype(np.int64), tuple(values))

    def reader(self, role: Role) -> Reader:
        listed, shard_of = self._read(role)
        return _Members(tuple(str(self._root / name) for name in self._named[role]), shard_of, listed)

    def sizes(self, roles: tuple[Role, ...]) -> Iterable[tuple[str, int]]:
        names = [name for role in roles for name in self._named.get(role, ())]
        return [(name, _identity(self._root / name).size) for name in names]

    def files(self, roles: tuple[Role, ...]) -> list[FileIdentity] | None:
        return [_identity(self._root / name) for role in roles for name in self._named.get(role, ())]

    def told(self) -> tuple[str, tuple[str, ...]]:
        counts = [(role, len(self._named[role])) for role in layouts.ROLES if role in self._named]
        if self._is_split:
            return ", ".join(f"{role}: {count} shard{'s' * (count > 1)}" for role, count in counts), self._notes
        count = counts[0][1]
        return f"{count} shard{'s' * (count > 1)} without splits, all pictures train and validate", self._notes

    def _read(self, role: Role) -> tuple[_Listed, NDArray[np.int64]]:
        """The samples of a split, and of which of its shards each is."""
        if role not in self._lists:
            lists = [_listed(self._root / name, self._ending, self._cache) for name in self._named[role]]
            shard_of = np.repeat(np.arange(len(lists)), [len(each.offsets) for each in lists])
            self._lists[role] = (_Listed.joined(lists), shard_of)
        return self._lists[role]

    @cached_property
    def _cache(self) -> Path:
        return user_cache_path("nao_ray", appauthor=False) / "shards"


def _identity(path: Path) -> FileIdentity:
    try:
        return FileIdentity.of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _listed(path: Path, ending: str, cache: Path) -> _Listed:
    """The list of a shard that was kept, or one that is made and kept."""
    what = {"version": _VERSION, "ending": ending, "file": asdict(_identity(path))}
    place = cache / f"{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()}.npz"
    try:
        with np.load(place, allow_pickle=False) as kept:
            return _Listed(*(kept[name] for name in ("offsets", "lengths", "names", "labels")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none, or not one of ours
        listed = _list(path, ending)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, prefix=".", delete=False) as file:
            np.savez(file, **listed.__dict__)
        os.replace(file.name, place)
    except OSError:  # then it is made again
        pass
    return listed


def _list(path: Path, ending: str) -> _Listed:
    pictures: dict[str, tuple[int, int, str]] = {}
    labels: dict[str, str] = {}
    for key, member_ending, member, content in _members(path, ending):
        if member_ending == ending:
            labels[key] = content
        elif f".{member_ending}" in KINDS:
            if key in pictures:
                raise DataError(f"{path}: {key} has two pictures, {pictures[key][2]} and {member.name}; expected one")
            pictures[key] = (member.offset_data, member.size, member.name)
    without = [key for key in pictures if not labels.get(key)]
    if without or not pictures:
        what = f"{without[0]} has no .{ending}" if without else f"no pictures; expected {', '.join(KINDS)}"
        raise DataError(f"{path}: {what}; a shard holds key.jpg beside key.{ending}, a number or a name (label_ending)")
    offsets, lengths, names = zip(*pictures.values(), strict=True)
    return _Listed(
        np.array(offsets, dtype=np.int64),
        np.array(lengths, dtype=np.int64),
        np.array([os.fsencode(name) for name in names], dtype=np.bytes_),
        np.array([labels[key].encode() for key in pictures], dtype=np.bytes_),
    )


def _members(path: Path, ending: str) -> Iterator[tuple[str, str, tarfile.TarInfo, str]]:
    """(key, ending in small letters, member, what it says where it is a label) of the files of a shard."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                stem, _, kind = file.partition(".")
                if not member.isfile() or layouts.is_hidden(member.name.removeprefix("./")):
                    continue
                content = (shard.extractfile(member) or io.BytesIO()).read() if kind.lower() == ending else b""
                yield f"{folder}/{stem}", kind.lower(), member, content.decode().strip()
            _check_end(path, shard.offset)
    except (tarfile.TarError, UnicodeDecodeError, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a tar file that is not compressed: {error}") from None


def _check_end(path: Path, offset: int) -> None:
    """What a library that is content with less leaves unseen: the blocks of zeros with which a tar file ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path}: ends without a tar file's end; it was cut off, fetch it again")
