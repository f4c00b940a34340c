"""Pictures in folders of classes: `class/picture.png`, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError
from nao_ray.tasks.images.labels import Labels
from nao_ray.tasks.images.sources import Reader, Source
from nao_ray.tasks.parts import layouts
from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role, Wanted

KINDS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of a picture's name."""


@dataclass(frozen=True)
class _Samples:
    """The pictures of a split; of a million of them a few dozen megabytes."""

    names: NDArray[np.bytes_]
    """``[n]``, below the folder of the split."""
    codes: NDArray[np.int64]
    """``[n]``, indices into `classes`."""
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Files(Reader):
    """Files below a folder."""

    root: str
    names: NDArray[np.bytes_]

    def picture(self, index: int) -> tuple[str, bytes]:
        path = os.path.join(self.root, os.fsdecode(self.names[index]))
        try:
            with open(path, "rb") as file:
                return path, file.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class Folder(Source):
    """Pictures below a folder.

    Raises:
        DataError: it is not there, or holds both splits and classes.
    """

    def __init__(self, path: str, splits: Wanted) -> None:
        self.path = path
        self._root = Path(path).expanduser().absolute()
        if "://" in path or not self._root.is_dir():
            raise DataError(f"{path}: not a folder of this machine; task.path is one of class/picture.png")
        parts = self._find_splits(splits)
        self._parts: dict[Role, Path] = {"train": self._root} if parts is None else parts
        self._samples: dict[Role, _Samples] = {}
        self._ignored: Counter[str] = Counter()

    def labels(self, role: Role) -> Labels | None:
        if role not in self._parts:
            return None
        samples = self._read(role)
        used, codes = np.unique(samples.codes, return_inverse=True)  # a folder of a class may be empty
        return Labels(codes.astype(np.int64), tuple(samples.classes[code] for code in used))

    def reader(self, role: Role) -> Reader:
        return _Files(str(self._parts[role]), self._read(role).names)

    def sizes(self, roles: tuple[Role, ...]) -> Iterator[tuple[str, int]]:
        start = len(os.path.join(self._root, ""))
        for role in roles:
            if role in self._parts:
                for path in self._paths(role):
                    yield path[start:], _stat(path).st_size

    def files(self, roles: tuple[Role, ...]) -> list[FileIdentity] | None:
        try:
            return [FileIdentity.of(path) for role in roles if role in self._parts for path in self._paths(role)]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    def _paths(self, role: Role) -> Iterator[str]:
        for name in self._read(role).names:
            yield os.path.join(self._parts[role], os.fsdecode(name))

    def told(self) -> tuple[str, tuple[str, ...]]:
        odd = [f"{count} left out: {what}" for what, count in sorted(self._ignored.items())]
        if self._is_split:
            return ", ".join(f"{role}: {place.name}/" for role, place in self._parts.items()), tuple(odd)
        return "without splits, all pictures train and validate", tuple(odd)

    @property
    def _is_split(self) -> bool:
        return self._parts.get("train") != self._root

    def _find_splits(self, splits: Wanted) -> dict[Role, Path] | None:
        """The folders of splits: those whose names say so and that hold folders, of classes, themselves; None: none do.

        One that is listed as unused may hold anything.
        """
        folders = [place for place in sorted(self._root.iterdir()) if place.is_dir() and place.name[0] not in "._"]
        deep = [place for place in folders if any(inner.is_dir() for inner in place.iterdir())]
        names = {place.name: place for place in deep}
        if not deep:
            return None
        shallow = [place for place in folders if place not in deep and any(place.iterdir())]
        flat = next((place for place in shallow if place.name not in splits.unused), None)
        if flat is not None:
            raise DataError(
                f"{self.path}: {deep[0].name}/ holds folders and {flat.name}/ does not; expected class/picture.png "
                "everywhere, or split/class/picture.png"
            )
        meaning = layouts.assign(list(names), splits, self.path)
        if not any(meaning.values()):
            raise DataError(f"{self.path}: every folder, {', '.join(sorted(names))}, is among unused_splits")
        found = {role: names[name] for name, role in meaning.items() if role is not None}
        return {role: found[role] for role in layouts.ROLES if role in found}

    def _read(self, role: Role) -> _Samples:
        """Every picture of a split, in torchvision's order."""
        if role not in self._samples:
            self._samples[role] = self._list(self._parts[role], allow_empty=role != "train")
        return self._samples[role]

    def _list(self, place: Path, *, allow_empty: bool) -> _Samples:
        classes = sorted(inner.name for inner in place.iterdir() if inner.is_dir() and inner.name[0] not in "._")
        if not classes:
            raise DataError(f"{place}: no folders of classes; expected class/picture.png")
        loose = sum(file.is_file() and file.suffix.lower() in KINDS for file in place.iterdir())
        self._ignored += Counter({f"beside the folders of {place.name}/": loose})
        start = len(os.path.join(place, ""))
        found = [[os.fsencode(path[start:]) for path in self._pictures(place, name)] for name in classes]
        empty = [name for name, names in zip(classes, found, strict=True) if not names]
        if empty and not allow_empty:
            raise DataError(f"{place}: no picture of class {', '.join(empty)}; expected {', '.join(KINDS)}")
        codes = np.repeat(np.arange(len(classes)), [len(names) for names in found])
        return _Samples(np.array([name for names in found for name in names], dtype=np.bytes_), codes, tuple(classes))

    def _pictures(self, place: Path, name: str) -> Iterator[str]:
        """Paths of a class, also from folders within its own; what else lies there is counted."""
        for folder, _, files in sorted(os.walk(place / name, followlinks=True)):
            for file in sorted(files):
                path = os.path.join(folder, file)
                kind = os.path.splitext(file)[1].lower()
                if layouts.is_hidden(path[len(str(place)) :]):
                    continue
                if kind in KINDS:
                    yield path
                else:
                    self._ignored[f"of type {kind or 'none'}"] += 1


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
