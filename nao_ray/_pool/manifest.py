"""The frozen manifest: run.yaml, what it says, and what may differ on resume."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any

from nao_ray import yaml_text
from nao_ray._pool.faults import READING, patient, unreadable
from nao_ray._pool.rows import SCHEMA_VERSION
from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolError
from nao_ray.metric import PERPLEXITY, Metric, from_plain
from nao_ray.pareto import Aim

NAME = "run.yaml"
_VERSION = "pool_schema_version"
_VERSION_LINE = re.compile(rf"""(?m)^(["']?{_VERSION}["']?[ \t]*:[ \t]+)\d+""")
_ABSENT = "absent"


def to_text(manifest: Mapping[str, Any]) -> str:
    """The YAML of a manifest.

    Raises:
        ValueError: it holds something that YAML cannot give back.
    """
    if _VERSION in manifest:
        raise ValueError(f"a manifest has no key {_VERSION}: it is the pool's own")
    try:
        return yaml_text.HEAD + yaml_text.dump({_VERSION: SCHEMA_VERSION, **manifest})
    except ValueError as error:
        raise ValueError(f"the manifest is {error}") from None


def from_text(text: str, where: str) -> dict[str, Any]:
    """The manifest in a run.yaml.

    Raises:
        PoolError: it is not one, or of a newer nao_ray.
    """
    try:
        data = yaml_text.load_document(text)
    except yaml_text.YamlTextError as error:
        raise PoolError(f"{where} is not YAML: {error}") from None
    version = data.pop(_VERSION, None) if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise PoolError(f"{where} is not the manifest of a pool: it has no {_VERSION}")
    if version > SCHEMA_VERSION:
        raise PoolError(
            f"{where}: the pool has schema version {version}, this nao_ray reads up to {SCHEMA_VERSION}; update nao_ray"
        )
    return dict(data)


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest of a pool.

    Raises:
        PoolError: there is no pool, it cannot be read, or it is of a newer nao_ray.
    """
    where = storage.path(NAME)
    try:
        text = patient(lambda: storage.read(NAME), merged=False).decode()
    except (FileNotFoundError, NotADirectoryError):
        _refuse_dangling(storage)
        raise PoolError(f"there is no pool at {storage.url}: {where} is missing") from None
    except READING as error:
        raise unreadable(where, error, "it says what was searched; restore it from a copy") from None
    return from_text(text, where)


def renew(storage: Storage, guard: Guard) -> None:
    """Let the manifest of an earlier pool have our schema version, so that an earlier nao_ray leaves it alone.

    Raises:
        FencedError: another driver has taken over.
        PoolError: where its version stands is not clear.
        PoolReadError: it cannot be read.
        PoolWriteError: it was not written.
    """
    try:
        text = storage.read(NAME).decode()
    except READING as error:
        raise unreadable(storage.path(NAME), error, "it says what was searched; restore it from a copy") from None
    said = _said(text) or {}
    new = _VERSION_LINE.sub(rf"\g<1>{SCHEMA_VERSION}", text, count=1)
    if _said(new) != {**said, _VERSION: SCHEMA_VERSION}:
        raise PoolError(
            f"{storage.path(NAME)}: the pool is of an earlier nao_ray, and its version is not found in a line "
            f"`{_VERSION}: {said.get(_VERSION)}`; write `{_VERSION}: {SCHEMA_VERSION}` there, then try again"
        )
    if new != text:
        storage.write(NAME, new.encode(), guard)


def _said(text: str) -> Any:  # noqa: ANN401
    """What a document says; None where it is none."""
    try:
        return yaml_text.load_document(text)
    except yaml_text.YamlTextError:
        return None


def _refuse_dangling(storage: Storage) -> None:
    target = storage.link_to_nothing()
    if target is not None:
        raise PoolError(
            f"{storage.url} is a link to {target}, where there is nothing: mount or make it, or remove the link"
        )


def component(manifest: Mapping[str, Any], kind: str) -> str | None:
    """Name of the `strategy` or `task` in the manifest's `config` (a mapping or YAML text), or at its top."""
    config = manifest.get("config", manifest)
    if isinstance(config, str):
        try:
            config = yaml_text.load_document(config)
        except yaml_text.YamlTextError:
            return None
    section = config.get(kind) if isinstance(config, Mapping) else None
    name = section.get("name") if isinstance(section, Mapping) else section
    return name if isinstance(name, str) else None


def metric(manifest: Mapping[str, Any], *, negative: bool = False) -> Metric:
    """What the trials of a pool are measured by.

    Args:
        manifest: a pool that is older than metrics says nothing.
        negative: it has scores below zero, which then are perplexities, not accuracies.
    """
    return PERPLEXITY if negative and "metric" not in manifest else from_plain(manifest.get("metric"))


def objectives(manifest: Mapping[str, Any]) -> tuple[Aim, ...]:
    """What its search aims at, the column of its metric among them; () where that is all."""
    config = manifest.get("config")
    given = config.get("objectives") if isinstance(config, Mapping) else None
    return tuple(Aim.parse(str(text)) for text in given or ())


def rungs(manifest: Mapping[str, Any]) -> tuple[int, ...]:
    """Epochs of its search's ladder of fidelities, ascending; (): it has none."""
    config = manifest.get("config")
    ladder = config.get("fidelity") if isinstance(config, Mapping) else None
    return tuple(ladder["epochs"]) if isinstance(ladder, Mapping) else ()


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], free: Set[str] = frozenset()) -> None:
    """Check that two manifests differ in nothing but keys under the dotted prefixes `free`, e.g. `config.budget`.

    Raises:
        PoolError: names each other key that differs, with both values.
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    differing = [
        f"{key} was {before.get(key, _ABSENT)!r}, is {after.get(key, _ABSENT)!r}"
        for key in sorted({*before, *after})
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and not any(key == prefix or key.startswith(prefix + ".") for prefix in free)
    ]
    if differing:
        raise PoolError(f"the pool is of another search: {'; '.join(differing)}; restore it, or start another pool")


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key; lists whole, tuples as lists, empty mappings as themselves."""
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, name + ".")
        else:
            yield name, list(value) if isinstance(value, tuple) else value


def refuse_other_files(storage: Storage, folders: Collection[str], marker: str, files: Collection[str] = ()) -> None:
    """Refuse a place that is neither missing nor empty nor a pool whose creation was interrupted.

    Raises:
        PoolError: it holds other files than `files`, and `folders` with nothing but the `marker` in them.
    """
    _refuse_dangling(storage)
    try:
        there = storage.entries()
        found = [name for name in there if name not in (*folders, *files) and not name.startswith(".")]
        for folder in set(folders) & set(there):
            names = [name for name in storage.entries(folder) if name != marker and not name.startswith(".")]
            found += [f"{folder}/{name}" for name in names]
    except NotADirectoryError:
        raise PoolError(f"{storage.url} cannot be a pool: it is a file; give a new or an empty folder") from None
    except OSError as error:
        raise unreadable(storage.url, error, "give a new or an empty folder") from None
    if found:
        raise PoolError(f"{storage.url} holds other files ({found[0]}); give a new or an empty folder")
