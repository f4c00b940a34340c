"""What a Ray job of ours is called and what it carries: the package, one config and what that names, nothing else."""

from __future__ import annotations

import hashlib
import os
import shlex
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import psutil

import nao_ray
from nao_ray import yaml_text
from nao_ray.addresses import REMEDY, has_credentials, masked
from nao_ray.config import RunConfig
from nao_ray.config_text import override
from nao_ray.errors import ConfigError, DataError, NaoRayError
from nao_ray.service.hosting.manifest import REVISION, source_revision, storage_id
from nao_ray.training import recipe_file

POOL = "the pool"
UPLOAD_LIMIT = 100 * 2**20
"""Bytes that Ray's job server takes in one upload; beyond, it answers with HTTP 413."""
LEASE_WAIT_SECONDS = 60
"""How long a job waits for the pool: twice as long as a dead driver on another machine holds it."""

_SINCE = (1980, 1, 1, 0, 0, 0)  # equal files make an equal archive, which the cluster then has already


def job_name(config_name: str, pool_url: str) -> str:
    """``digits-1f3a9c02``: one name per config name and pool, whatever number of jobs it takes to finish."""
    return f"{config_name}-{hashlib.sha256(pool_url.encode()).hexdigest()[:8]}"


def next_job_id(name: str, taken: Iterable[str]) -> str:
    """``NAME-1``, or the next number that is free: Ray takes a submission id once."""
    known = set(taken)
    return next(job_id for number in count(1) if (job_id := f"{name}-{number}") not in known)


def shared_pool(url: str) -> str:
    """The address of a pool that does not depend on the folder one stands in.

    Raises:
        ConfigError: it holds credentials, which everyone who sees the job could read.
    """
    if has_credentials(url):
        raise ConfigError(f"the pool's address {masked(url)} holds credentials: {REMEDY}")
    return url.rstrip("/") if "://" in url else os.path.abspath(url)


def refuse_local(given: Mapping[str, str], nodes: Collection[str]) -> None:
    """Refuse paths that the machines of a cluster cannot share.

    Args:
        given: as the user wrote them, by what they are (`the pool`, `task.path`).
        nodes: IP addresses of the cluster's nodes.

    Raises:
        ConfigError: a path is relative to a folder of this machine, and the cluster has others.
        DataError: it is not there, on a machine of the cluster.
    """
    for what, path in given.items():
        if "://" in path:
            continue
        if len(nodes) > 1 and not os.path.isabs(path):
            raise ConfigError(
                f"{what} {path} is relative to a folder of this machine, and the cluster has {len(nodes)} nodes: give "
                "a path that all of them see, from /, or a URL"
            )
        if what != POOL and _is_here(nodes) and not os.path.exists(path):
            raise DataError(f"{what} {os.path.abspath(path)} is not there")


def _is_here(nodes: Collection[str]) -> bool:
    """Whether this machine is one of the nodes."""
    mine = {found.address for addresses in psutil.net_if_addrs().values() for found in addresses}
    return not mine.isdisjoint(nodes)


def known_as(pool_url: str) -> str | None:
    """By what the pool is known that this machine sees in a folder; None: it sees none, or it is the same for all."""
    if "://" in pool_url:
        return None
    from nao_ray.pool import PoolReader  # with pandas: commands that only ask the cluster do without

    try:
        return storage_id(PoolReader.open(pool_url).manifest) if PoolReader.exists(pool_url) else None
    except NaoRayError:
        return None  # whether it can be read over there, the job will say


def entrypoint(
    python: str,
    config: str,
    pool_url: str,
    settings: Sequence[str],
    *,
    detach: bool,
    made_as: str | None = None,
    mark: str | None = None,
) -> str:
    """The command of a job: what one would type on the cluster, and what its pool is known by (`known_as`, `marks`)."""
    words = [python, "-m", "nao_ray", "search", config, "--pool", pool_url, "--wait", str(LEASE_WAIT_SECONDS)]
    for setting in settings:
        words += ["--set", setting]
    if made_as is not None:
        words += ["--made-as", made_as]
    elif mark is not None:
        words += ["--marked-by", mark]
    return shlex.join([*words, "--detach"] if detach else words)


def training(python: str, what: str, recipe: str, options: Mapping[str, str | None], settings: Sequence[str]) -> str:
    """The command of a job that trains in full; options that are None are left out."""
    words = [python, "-m", "nao_ray", "train", what, "--recipe", recipe]
    for name, value in options.items():
        words += [] if value is None else [name, value]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join(words)


def handing_in(config: str, pool_url: str, settings: Sequence[str], address: str, *, detach: bool) -> str:
    """The command that hands a search in again, for whoever watches its pool."""
    words = ["nao-ray", "submit", config, "--pool", pool_url, "--address", address]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join([*words, "--detach"] if detach else words)


def without_files(text: str, settings: tuple[str, ...], config: RunConfig) -> tuple[str, tuple[str, ...]]:
    """What a job gets of a config and its ``--set``: they themselves or, if they name a recipe file, all it comes to.

    Args:
        text: of the config file.
        settings: ``section.key=value``.
        config: made of both.
    """
    data = yaml_text.load(text)
    for item in settings:
        override(data, item)
    return (config.to_yaml(), ()) if recipe_file.named_in(data) else (text, settings)


def pack(
    archive: Path, config: str, name: str, *, package: bool, modules: Iterable[tuple[str, bytes]] = ()
) -> int:  # fmt: skip
    """Write a job's working directory as a zip file; returns its bytes.

    Args:
        archive: where to.
        config: text of a config file; there it is called `name`.
        name: of the config file in the archive.
        package: whether nao_ray itself is in it, with the commit it was taken from.
        modules: the user's own that the config names, paths and contents: they stand beside it.

    Raises:
        ConfigError: it is more than the job server takes.
    """
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        _add(file, name, config.encode())
        for path, content in modules:
            _add(file, path, content)
        for found in _package_files() if package else ():
            _add(file, f"nao_ray/{found.relative_to(_package()).as_posix()}", found.read_bytes())
        if package:
            _add(file, f"nao_ray/{REVISION}", (source_revision() or "").encode())
    size = archive.stat().st_size
    if size > UPLOAD_LIMIT:
        raise ConfigError(
            f"a job carries at most {UPLOAD_LIMIT / 2**20:.0f} MiB, and {_package()} with the config makes "
            f"{size / 2**20:.0f}: take out what is no code, or install nao_ray on the cluster and give --installed"
        )
    return size


def _package() -> Path:
    return Path(nao_ray.__file__).parent


def _package_files() -> Iterator[Path]:
    for path in sorted(_package().rglob("*")):
        parts = path.relative_to(_package()).parts
        if path.is_file() and path.suffix != ".pyc" and not any(p.startswith((".", "__pycache__")) for p in parts):
            yield path


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _SINCE)
    entry.external_attr = 0o644 << 16
    file.writestr(entry, content, zipfile.ZIP_DEFLATED)
