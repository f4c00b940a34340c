"""A folder of pictures, one folder for each class: `class/picture.png`, with or without `train/`, `val/`, `test/`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from nao_ray.errors import DataError
from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images import layouts
from nao_ray.tasks.images.labels import Labels
from nao_ray.tasks.images.layouts import Role, Wanted
from nao_ray.tasks.images.picture_task import PictureConfig, PictureTask
from nao_ray.tasks.images.sources import Index, Source
from nao_ray.tasks.parts.identity import FileIdentity

_KINDS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of a picture's name."""


class ImageFolderConfig(PictureConfig):
    """Where the pictures are, and what their splits are called."""

    path: str
    """The folder of the classes' folders, or of the splits' with those in them."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    hashed: ClassVar[frozenset[str]] = frozenset({"valid_split", "unused_splits"})


class ImageFolder(PictureTask[ImageFolderConfig]):
    """Pictures by class, as torchvision's ImageFolder reads them."""

    Config: ClassVar[type[TaskConfig]] = ImageFolderConfig

    name: ClassVar[str] = "image_folder"

    def _open(self) -> Source:
        return _Folder(self.config.path, self.config.splits)


class _Folder(Source):
    """Pictures below a folder.

    Raises:
        DataError: it is not there, or holds both splits and classes.
    """

    def __init__(self, path: str, splits: Wanted) -> None:
        self.path = path
        self._root = Path(path).expanduser()
        if "://" in path or not self._root.is_dir():
            raise DataError(f"{path}: not a folder of this machine; task.path is one of class/picture.png")
        self._parts: dict[Role, Path] = self._find_splits(splits) or {"train": self._root}
        self._samples: dict[Role, list[tuple[str, str]]] = {}
        self._ignored: Counter[str] = Counter()

    def labels(self, role: Role) -> Labels | None:
        return Labels.of_names([name for _, name in self._read(role)]) if role in self._parts else None

    def pictures(self, role: Role, keep: Index) -> Iterator[tuple[int, str, bytes]]:
        samples = self._read(role)
        for place, index in enumerate(keep):
            path = samples[index][0]
            try:
                yield place, path, Path(path).read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def files(self, roles: tuple[Role, ...]) -> list[FileIdentity] | None:
        paths = [path for role in roles if role in self._parts for path, _ in self._read(role)]
        try:
            return [FileIdentity.of(path) for path in paths]
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    def told(self) -> tuple[str, tuple[str, ...]]:
        odd = [f"{count} left out: {what}" for what, count in sorted(self._ignored.items())]
        if self._is_split:
            return ", ".join(f"{role}: {place.name}/" for role, place in self._parts.items()), tuple(odd)
        return "without splits, all pictures train and validate", tuple(odd)

    @property
    def _is_split(self) -> bool:
        return self._parts.get("train") != self._root

    def _find_splits(self, splits: Wanted) -> dict[Role, Path]:
        """The folders of splits: those whose names say so and that hold folders, of classes, themselves."""
        folders = [place for place in sorted(self._root.iterdir()) if place.is_dir() and place.name[0] not in "._"]
        deep = [place for place in folders if any(inner.is_dir() for inner in place.iterdir())]
        names = {place.name: place for place in deep}
        if not deep:
            return {}
        if len(deep) < len(folders):
            flat = next(place for place in folders if place not in deep)
            raise DataError(
                f"{self.path}: {deep[0].name}/ holds folders and {flat.name}/ does not; expected class/picture.png "
                "everywhere, or split/class/picture.png"
            )
        meaning = layouts.assign(list(names), splits, self.path)
        found = {role: names[name] for name, role in meaning.items() if role is not None}
        if "train" not in found:
            raise DataError(f"{self.path}: has no train folder; there are {', '.join(sorted(names))}")
        return {role: found[role] for role in layouts.ROLES if role in found}

    def _read(self, role: Role) -> list[tuple[str, str]]:
        """(path, class) of every picture of a split, in torchvision's order."""
        if role not in self._samples:
            self._samples[role] = self._list(self._parts[role], allow_empty=role != "train")
        return self._samples[role]

    def _list(self, place: Path, *, allow_empty: bool) -> list[tuple[str, str]]:
        classes = sorted(inner.name for inner in place.iterdir() if inner.is_dir() and inner.name[0] not in "._")
        if not classes:
            raise DataError(f"{place}: no folders of classes; expected class/picture.png")
        loose = sum(file.is_file() and file.suffix.lower() in _KINDS for file in place.iterdir())
        self._ignored += Counter({f"beside the folders of {place.name}/": loose})
        samples = [(path, name) for name in classes for path in self._pictures(place, name)]
        empty = sorted(set(classes) - {name for _, name in samples})
        if empty and not allow_empty:
            raise DataError(f"{place}: no picture of class {', '.join(empty)}; expected {', '.join(_KINDS)}")
        return samples

    def _pictures(self, place: Path, name: str) -> Iterator[str]:
        """Paths of a class, also from folders within its own; what else lies there is counted."""
        for folder, _, files in sorted(os.walk(place / name, followlinks=True)):
            for file in sorted(files):
                path = os.path.join(folder, file)
                kind = Path(file).suffix.lower()
                if layouts.is_hidden(path[len(str(place)) :]):
                    continue
                if kind in _KINDS:
                    yield path
                else:
                    self._ignored[f"of type {kind or 'none'}"] += 1
