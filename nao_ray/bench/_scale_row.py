"""What every part of ``nao-ray bench scale`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure."""

    measurement: str
    setting: str
    """What it was measured with: workers, trials, strategy."""
    figure: str
    """With its unit, as a reader is to see it."""
    data: dict[str, object] = field(default_factory=dict)
    """The single measurements behind it, JSON-able."""
