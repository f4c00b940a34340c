"""Limits of a search: bounds on what a network costs, which are met before it is trained.

A limit is text, ``<= 3.3e6``: one of <=, <, >=, >, and a number, which may end with k, M or G.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nao_ray.errors import ConfigError, InputError

_TEXT = re.compile(r"\s*(<=|>=|<|>)\s*([-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*([kMG]?)\s*")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
MEASURED = "latency_ms"
"""What is known where a network would be trained, and nowhere before."""
_EXAMPLES = {"macs": "<= 600e6", MEASURED: "<= 5"}


class LimitError(InputError):
    """A network is outside of the constraints of its search: it is not trained."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one figure."""

    sign: str
    value: float

    @classmethod
    def parse(cls, text: object, name: str) -> Limit:
        """Of the figure `name`.

        Raises:
            ConfigError: it is not of that form.
        """
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            example = _EXAMPLES.get(name, "<= 3.3e6")
            raise ConfigError(
                f'constraints.{name}: expected a text like "{example}", got {text!r}', f"constraints.{name}"
            )
        return cls(match[1], float(match[2]) * _UNITS[match[3]])

    def keeps(self, value: float) -> bool:
        """Whether a figure is within; NaN is not."""
        return {
            "<=": value <= self.value, "<": value < self.value, ">=": value >= self.value, ">": value > self.value,
        }[self.sign]  # fmt: skip

    def excess(self, value: float) -> float:
        """How far a figure is outside, 0 within; to compare."""
        return 0.0 if self.keeps(value) else abs(value - self.value) if math.isfinite(value) else math.inf

    def __str__(self) -> str:
        return f"{self.sign} {figure(self.value)}"


class Limits:
    """The limits of a search by the name of the figure, all of which are to be kept."""

    def __init__(self, texts: Mapping[str, object]) -> None:
        """Raises ConfigError: a text is no limit."""
        self.by_name = {name: Limit.parse(text, name) for name, text in texts.items()}

    def __bool__(self) -> bool:
        return bool(self.by_name)

    @property
    def texts(self) -> dict[str, str]:
        """In one notation, whatever they were written in."""
        return {name: f"{limit.sign} {limit.value:.17g}" for name, limit in self.by_name.items()}

    @property
    def known(self) -> tuple[str, ...]:
        """Figures that are known without a device."""
        return tuple(name for name in self.by_name if name != MEASURED)

    def broken(self, figures: Mapping[str, float]) -> str | None:
        """What of the figures is outside, in words; None: nothing is. Limits of others are not looked at."""
        said = [
            f"{name} is {figure(figures[name])}, the constraint is {limit}"
            for name, limit in self.by_name.items()
            if name in figures and not limit.keeps(figures[name])
        ]
        return "; ".join(said) or None

    def refuse(self, figures: Mapping[str, float]) -> None:
        """Raise LimitError where one of the figures is outside."""
        if reason := self.broken(figures):
            raise LimitError(reason)

    def check_names(self, known: Collection[str], whose: str) -> None:
        """Raise ConfigError where a limit is of nothing that is known."""
        for name in self.by_name:
            if name not in known:
                hint = f"it knows {', '.join(known)}" if known else "it knows nothing of a network before"
                key = f"constraints.{name}"
                raise ConfigError(f"{key}: {whose} does not know it before it evaluates; {hint}", key)

    def __str__(self) -> str:
        return ", ".join(f"{name} {limit}" for name, limit in self.by_name.items())


def figure(value: float) -> str:
    """A number as people write it: whole ones with commas."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"
