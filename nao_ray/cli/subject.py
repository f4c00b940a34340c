"""An architecture that a command line names, and the network that is meant by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nao_ray.cli.source import find_space, find_trial, names_trial
from nao_ray.errors import ConfigError

if TYPE_CHECKING:
    from nao_ray.spaces.base import Genotype, SearchSpace


@dataclass(frozen=True, slots=True)
class Subject:
    """What is described: an architecture, and the network it is counted in."""

    space: SearchSpace[Any]
    genotype: Genotype
    network: str | None
    """None: the first of its skeleton's."""
    num_classes: int | None
    sizes: Mapping[str, Any]
    """By name; the others are as published."""
    in_channels: int | None = None
    recorded: dict[str, Any] = field(default_factory=dict)
    """What a pool says of it."""


def find_subject(
    text: str,
    space: str | None,
    dialect: str | None,
    network: str | None,
    num_classes: int | None,
    options: Mapping[str, int | None],
    sizes: Sequence[str],
) -> Subject:
    """What a text names: a genotype, a published architecture, ``POOL:best`` or ``POOL:ID``.

    Args:
        text: the text.
        space: its space; None: a published name brings its own, a trial has it.
        dialect: its notation.
        network: the published shapes; None: the trial's, or the first.
        num_classes: None: the network's.
        options: sizes by name; None: not given.
        sizes: more of them, as ``NAME=NUMBER``.

    Raises:
        InputError: there is no such space, trial or genotype.
    """
    asked = {**{name: value for name, value in options.items() if value is not None}, **_numbers(sizes)}
    if names_trial(text) and space is None:
        return _of_pool(text, network, num_classes, asked)
    home = find_space(space, text)
    return Subject(home, home.parse(text, dialect), network, num_classes, asked)


def _numbers(texts: Sequence[str]) -> dict[str, int]:
    """``NAME=NUMBER``, by name."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, _, number) in zip(texts, pairs, strict=True):
        if not (name.strip() and number.strip().isdecimal()):
            raise ConfigError(f"--size {text}: expected NAME=NUMBER")
    return {name.strip().replace("-", "_"): int(number) for name, _, number in pairs}


def _of_pool(text: str, network: str | None, num_classes: int | None, sizes: Mapping[str, Any]) -> Subject:
    """A trial's architecture, in the network it was trained in unless the options say otherwise."""
    from nao_ray.cli.pool import make_space
    from nao_ray.skeletons.base import skeleton_of

    trial = find_trial(text)
    space = make_space(trial.pool)
    recorded: dict[str, Any] = {"pool": trial.url, "trial_id": trial.trial_id}
    is_as_trained = network is None and num_classes is None and not sizes
    if is_as_trained and trial.integer("macs") is not None:  # counted on the task's images, whose size the row lacks
        recorded["macs"] = trial.integer("macs")
    in_channels = None
    if network is None:  # the task's classes and channels, as is its stem
        network = trial.row["network"] if isinstance(trial.row["network"], str) else None
        num_classes = num_classes or trial.integer("num_classes")
        in_channels = trial.integer("in_channels")
    former = skeleton_of(space).former_sizes if space.skeleton else ()
    sizes = {**{name: value for name, value in trial.size.items() if name not in former}, **sizes}
    return Subject(space, space.parse(trial.genotype), network, num_classes, sizes, in_channels, recorded)


def published_name(space: SearchSpace[Any], genotype: Genotype) -> str | None:
    """The name that an architecture is known by."""
    canonical = space.canonical(genotype)
    homes = {name: space.for_text(name) for name in space.published}
    return next((name for name, home in homes.items() if home.canonical(home.parse(name)) == canonical), None)
