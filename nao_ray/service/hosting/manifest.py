"""What a pool says about the search it holds: enough to repeat it, and to refuse another one."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
from collections.abc import Mapping, Set
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nao_ray import __version__, own_modules, registry, yaml_text
from nao_ray.config import RunConfig
from nao_ray.config_components import make_space
from nao_ray.errors import ConfigError, PoolError
from nao_ray.evaluators.base import Evaluator
from nao_ray.metric import Metric, to_plain
from nao_ray.sizes import Sized
from nao_ray.skeletons.base import skeleton_of

_PACKAGES = ("torch", "ray", "numpy", "pandas", "pyarrow", "pydantic", "scikit-learn")
"""Packages whose version can change a result or a file."""

FREE_ON_RESUME = frozenset({"budget", "workers", "loggers"})
"""Sections of the config that may differ when a search goes on."""


COMMAND = "NAO_RAY_COMMAND"
"""Variable with the command that handed a search in as a job, which goes on with it."""


def make_manifest(config: RunConfig, data_hash: str, planned: int | None, *, data: str | None = None) -> dict[str, Any]:
    """The frozen manifest of a new pool.

    Args:
        config: what is searched.
        data_hash: of the evaluator's data.
        planned: trials that the strategy plans, as it says at the start; None if it says nothing.
        data: what the data are, in words.
    """
    return {
        "config": config.to_data(),
        "metric": to_plain(metric_of(config)),
        "planned": planned,
        "data_hash": data_hash,
        **({"own_modules": own_modules.record(own)} if (own := config.own_components) else {}),
        **({"data": data} if data is not None else {}),
        "storage_id": secrets.token_hex(8),
        **({"command": command} if (command := os.environ.get(COMMAND)) else {}),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "revision": source_revision(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def storage_id(manifest: Mapping[str, Any]) -> str:
    """By which a pool is known on another machine: drawn when it was made; of earlier ones, when that was."""
    return str(manifest.get("storage_id", manifest.get("created_at")))


def config_of(manifest: Mapping[str, Any], where: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    """The config of a pool's manifest.

    Raises:
        PoolError: the manifest holds none, or names modules of the user's own that are not here.
        ConfigError: it is not valid, or an override is not.
    """
    if not isinstance(manifest.get("config"), Mapping):
        raise PoolError(f"{where}/run.yaml has no section config: not the pool of a search")
    own_modules.refuse_missing(manifest.get("own_modules", {}), where)
    text = yaml_text.dump(_completed(manifest["config"]))
    return RunConfig.parse(text, overrides, where=f"{where}/run.yaml")


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a pool that may be older than some settings."""
    completed = dict(config)
    for section in ("evaluator", "strategy"):
        given = config.get(section)
        if not isinstance(given, Mapping) or given.get("name") not in registry.names(section):
            continue
        kind = registry.load(section, str(given["name"])).Config
        completed[section] = {**kind.of_before, **given}
        if issubclass(kind, Sized):
            with suppress(ConfigError, ValidationError, KeyError):  # whoever parses it says what is wrong
                former = skeleton_of(make_space(config["space"])).former_sizes.keys()
                completed[section] = _without(completed[section], former)
    return completed


def _without(settings: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in names}
    return {name: _without(value, names) if isinstance(value, Mapping) else value for name, value in kept.items()}


def settle(config: RunConfig, evaluator: Evaluator[Any], before: RunConfig | None) -> RunConfig:
    """The config with what the data decide; of a search that goes on, with what was decided when it began.

    Args:
        config: what is searched.
        evaluator: made of it.
        before: the config of the pool; None: it is a new one.

    Raises:
        InputError: the data is not what it should be, or a setting does not fit it.
    """
    decided = evaluator.settled()
    settings = config.evaluator.settings
    if before is not None and any(settings.get(name) is None for name in decided.get("evaluator", ())):
        recorded = before.to_data()
        decided = {
            section: {name: recorded[section].get(name, value) for name, value in values.items()}
            for section, values in decided.items()
        }
    return settled(config, decided)


def settled(config: RunConfig, decided: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The config with the settings that the data decide, by section (`Evaluator.settled`)."""
    data = config.model_dump(mode="json")
    return RunConfig(**{**data, **{section: {**data[section], **values} for section, values in decided.items()}})


def metric_of(config: RunConfig) -> Metric:
    """What a search's trials are measured by."""
    evaluator = registry.load("evaluator", config.evaluator.name)
    task = None if config.task is None else config.make_task()
    metric: Metric = evaluator.metric(config.evaluator_config, task)
    return metric


REVISION = "REVISION"
"""File of the package where it is the copy that a job carries: the commit it was taken from."""


@cache
def source_revision() -> str | None:
    """The commit this package is of, with `-dirty` if files differ; None outside a checkout, or a copy, of it.

    A process looks once: what it has loaded stays what it was.
    """
    folder = Path(__file__).parents[2]
    if (folder / REVISION).is_file():
        return (folder / REVISION).read_text(encoding="utf-8").strip() or None
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
