"""What a command line names an architecture by: a text, a published name, or a trial of a pool."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nao_ray.errors import ConfigError, GenotypeError, PoolError

if TYPE_CHECKING:
    from nao_ray.pool import PoolReader
    from nao_ray.spaces.base import SearchSpace

_OF_POOL = re.compile(r"(.+):(best|\d+)")


@dataclass(frozen=True, slots=True)
class PoolTrial:
    """A trial of a pool that was named as ``POOL:best`` or ``POOL:ID``."""

    url: str
    pool: PoolReader
    row: Mapping[str, Any]
    """Its row in trials/."""

    @property
    def trial_id(self) -> int:
        """Its number."""
        return int(self.row["trial_id"])

    @property
    def genotype(self) -> str:
        """Its genotype."""
        return str(self.row["genotype"])

    def integer(self, name: str) -> int | None:
        """An integer column of its row."""
        import pandas as pd

        value = self.row[name]
        return None if pd.isna(value) else int(value)

    @property
    def size(self) -> dict[str, int]:
        """That of the network that was trained, by name."""
        import pandas as pd

        from nao_ray.pool import size_from

        row = {name: value for name, value in self.row.items() if pd.api.types.is_scalar(value) and not pd.isna(value)}
        return {name: int(value) for name, value in size_from(row)}


def names_trial(text: str) -> bool:
    """Whether a text is ``POOL:best`` or ``POOL:ID``."""
    return _OF_POOL.fullmatch(text) is not None


def find_trial(text: str) -> PoolTrial:
    """The trial that ``POOL:best`` or ``POOL:ID`` names; the best is none of a random control.

    Raises:
        PoolError: there is no such pool, or it has no such trial.
        ConfigError: the trial is no architecture: it trained shared weights.
    """
    from nao_ray.pool import PoolReader
    from nao_ray.report.control import best_found

    url, _, which = text.rpartition(":")
    pool = PoolReader.open(url)
    if which == "best":
        rows = best_found(pool, 1)
        if rows.empty:
            raise PoolError(f"{url} has no completed trial, so no best one")
    else:
        rows = pool.trials(ids=[int(which)])
        if rows.empty:
            raise PoolError(f"{url} has no finished trial {which}")
        if isinstance(rows["phase"].iloc[0], str):
            raise ConfigError(
                f"{text}: this trial trained shared weights and is no architecture; nao-ray pool {url} best"
            )
    return PoolTrial(url, pool, {str(name): column.iloc[0] for name, column in rows.items()})


def find_space(name: str | None, genotype: str) -> SearchSpace[Any]:
    """The named space, or, without a name, that of a published architecture, or of a notation seen to be its own.

    Raises:
        ConfigError: no such space, or no name although the genotype needs one.
        GenotypeError: the genotype is a published architecture of another space, or nearly one.
    """
    from nao_ray import registry

    text = genotype.strip()
    home = _published_home(text)
    if name is None:
        name = home or next((each for each in registry.names("space") if _sees_its_own(each, text)), None)
        if name is None:
            raise _without_space(text)
    space: SearchSpace[Any] = registry.load("space", name).for_text(genotype)
    if home is not None and text not in space.published:
        raise GenotypeError(f"{text} is not in space {name}: it belongs to {home}; use --space {home}")
    return space


def _sees_its_own(space: str, text: str) -> bool:
    from nao_ray import registry

    return registry.load("space", space).dialect_of(text) is not None


def _published_home(text: str) -> str | None:
    """The space that a published name belongs to; None for any other text."""
    return _published().get(text)


def _published() -> dict[str, str]:
    """Every published name, and its space."""
    from nao_ray import registry

    return {name: space for space in registry.names("space") for name in registry.load("space", space).published}


def _without_space(text: str) -> ConfigError | GenotypeError:
    from nao_ray import registry

    if Path(text, "run.yaml").is_file():
        return ConfigError(f"{text} is a pool: name one of its trials, {text}:best or {text}:ID")
    names = {name.lower(): name for name in _published()}
    close = get_close_matches(text.lower(), names, n=1)
    if close:
        return GenotypeError(f"no published architecture is named {text!r}; did you mean {names[close[0]]}?")
    return ConfigError(f"--space is missing: one of {', '.join(registry.names('space'))}")
