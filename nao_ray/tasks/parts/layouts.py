"""Which files of a folder, and which values of a column, are of which split.

A split is named in a file's path below the folder: by a folder (``train/0000.parquet``, ``split=train/``,
``cifar10-train/``) or by the file itself (``train-00000-of-00002.parquet``). Known names are those of `NAMES`, in any
case, and those that the config gives. Apart from the split's name and the shard's number all paths have to be alike:
what lies in two folders, or has two other names, is two tables, two configs or two revisions of one, and is refused.
Nothing is guessed: a name that is of no split is refused too, unless the config lists it as unused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from nao_ray.errors import DataError

Role = Literal["train", "validation", "test"]
ROLES: tuple[Role, ...] = ("train", "validation", "test")
NAMES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What people call the splits."""

_MANIFEST = "run.yaml"
"""Lies in a pool, beside its tables."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NUMBER = re.compile(r"(part|shard|chunk|c)?\d+|(?=[a-f]*\d)[0-9a-f]{8,}", re.IGNORECASE)
"""A word of a file's name that only tells shards apart: a number, or a hash."""
_OF = re.compile(r"(\d+)-of-(\d+)")
_MARK = "*"  # stands for the split's name in a path
_SHOWN = 4


@dataclass(frozen=True)
class Wanted:
    """What the config calls the splits."""

    train: str = "train"
    validation: str | None = None
    """None: any of `NAMES`."""
    test: str = "test"
    unused: tuple[str, ...] = ()
    """Splits that are there and are not to be read."""

    def name(self, role: Role) -> str | None:
        """The configured name of a split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[role]


@dataclass(frozen=True)
class Layout:
    """The files of each split."""

    files: dict[Role, list[str]] = field(default_factory=dict)
    """Without an entry: no file is named so. Without any: no name says anything, and all are shards of one table."""
    notes: tuple[str, ...] = ()
    """What is odd, in words."""


def is_hidden(path: str) -> bool:
    """Whether a path below a folder has a part that is nobody's data: ``.cache``, ``_tmp``, ``._x.parquet``."""
    return any(part[0] in "._" for part in path.split("/") if part)


def visible(paths: Collection[str]) -> list[str]:
    """Of the files below a folder, as ``a/b.parquet``, those that may be data: neither hidden, nor of a pool there."""
    pools = tuple(path.removesuffix(_MANIFEST) for path in paths if path.endswith(f"/{_MANIFEST}"))
    return [path for path in paths if not is_hidden(path) and not path.startswith(pools)]


def assign(names: Collection[str], wanted: Wanted, where: str) -> dict[str, Role | None]:
    """The split that each name means; None: it is listed as unused.

    Args:
        names: values of a column, or what files are called; not empty.
        wanted: the config's names, which come first; one of `NAMES` stands for its others.
        where: begins the message.

    Raises:
        DataError: a name is of no split, or two are of one.
    """
    meaning: dict[str, Role | None] = {name: None for name in names if name in wanted.unused}
    meaning |= {name: role for role in ROLES for name in names if name == wanted.name(role)}
    given = set(meaning.values())
    for name in names:
        role = _known(name)
        if name in meaning or role is None or role in given:
            continue
        if wanted.name(role) is None or _known(str(wanted.name(role))) == role:
            meaning[name] = role
    left = sorted(name for name in names if name not in meaning)
    twice = [role for role, count in Counter(meaning.values()).items() if role is not None and count > 1]
    if left or twice:
        what = f"{_list(map(repr, left))} is none of train, validation and test" if left else f"two are of {twice[0]}"
        raise DataError(
            f"{where}: the splits {_list(sorted(map(repr, names)))} are not understood: {what}; name them "
            "by train_split, valid_split and test_split, or leave them out by unused_splits (settings of the task)"
        )
    return meaning


def split_files(paths: Sequence[str], wanted: Wanted, where: str) -> Layout:
    """The files of each split, by their paths below a folder (with `/`, hidden ones left out already).

    Raises:
        DataError: the names are not understood, or are those of several tables; says what was found.
    """
    found = {path: _names_in(path, wanted) for path in paths}
    if vague := [path for path, names in found.items() if len(names) > 1]:
        raise DataError(f"{where}: {vague[0]} is named after {' and '.join(sorted(found[vague[0]]))}; rename it")
    named = {path: next(iter(names)) for path, names in found.items() if names}
    if named and len(named) < len(paths):
        other = next(path for path in paths if path not in named)
        raise DataError(
            f"{where}: {next(iter(named))} is named after a split and {other} is not; rename or remove one of them, or "
            "point task.path at one table"
        )
    _refuse_several({path: _likeness(path, named.get(path)) for path in paths}, bool(named), where)
    if not named:
        return Layout(notes=_shard_notes(paths, "file", where))
    meaning = assign(set(named.values()), wanted, where)
    files: dict[Role, list[str]] = {}
    for path, name in named.items():
        if (role := meaning[name]) is not None:
            files.setdefault(role, []).append(path)
    notes = [note for role in ROLES if role in files for note in _shard_notes(files[role], f"{role} file", where)]
    return Layout(files=files, notes=tuple(notes))


def _known(name: str) -> Role | None:
    """The split that people call so."""
    return next((role for role in ROLES if name.lower() in NAMES[role]), None)


def _pattern(wanted: Wanted) -> re.Pattern[str]:
    """Finds the name of a split between other letters' bounds."""
    own = [name for name in (wanted.train, wanted.validation, wanted.test, *wanted.unused) if name]
    parts = [re.escape(name) for name in sorted(own, key=len, reverse=True)]
    parts += [f"(?i:{name})" for role in ROLES for name in sorted(NAMES[role], key=len, reverse=True)]
    return re.compile(rf"(?<![A-Za-z])(?:{'|'.join(parts)})(?![A-Za-z])")


def _names_in(path: str, wanted: Wanted) -> set[str]:
    return set(_pattern(wanted).findall(str(PurePosixPath(path).with_suffix(""))))


def _likeness(path: str, name: str | None) -> tuple[str, ...]:
    """What two files of one table have in common: all but the split's name and the shard's number."""
    pure = PurePosixPath(path)
    *folders, stem = [
        part if name is None else re.sub(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", _MARK, part)
        for part in (*pure.parent.parts, pure.stem)
    ]
    before, mark, after = stem.rpartition(_MARK)
    words = [word for word in re.split(r"[^A-Za-z0-9]+", _UUID.sub("", after)) if word and not _NUMBER.fullmatch(word)]
    return (
        *(folder for folder in folders if folder != _MARK),
        before if mark else "",
        *(w for w in words if w != "of"),
    )


def _refuse_several(alike: dict[str, tuple[str, ...]], is_named: bool, where: str) -> None:
    examples = {likeness: path for path, likeness in reversed(alike.items())}
    if len(examples) > 1:
        hint = (
            "" if is_named else "; name files of one table after their splits, train-* and test-*, or by number alone"
        )
        raise DataError(
            f"{where}: {len(alike)} files that are not one table: {_list(sorted(examples.values()))}; point task.path "
            f"at one table (two configs or revisions are never joined){hint}"
        )


def _shard_notes(paths: Iterable[str], what: str, where: str) -> tuple[str, ...]:
    """How many of the shards that the names promise are there.

    Raises:
        DataError: a shard is there twice, or the names promise different numbers: two revisions.
    """
    shards = [match.groups() for path in paths if (match := _OF.search(path.rpartition("/")[2]))]
    if not shards:
        return ()
    promised = sorted({int(of) for _, of in shards})
    if len(promised) > 1 or len({int(number) for number, _ in shards}) < len(shards):
        raise DataError(
            f"{where}: {len(shards)} {what}s that are not one table: a shard is there twice, or they are "
            f"{' and '.join(f'of {of}' for of in promised)}; keep one revision"
        )
    return () if len(shards) == promised[0] else (f"{len(shards)} of {promised[0]} {what}s are there",)


def _list(texts: Iterable[str]) -> str:
    """The first few, and how many more."""
    items = list(texts)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
