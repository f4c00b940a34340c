"""What a search bears before it gives something up: an attempt, itself, a result that cannot be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from nao_ray.search.tries import Retry
from nao_ray.search.trouble import Limits
from nao_ray.search.writing import Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Of trials, of their surroundings, of the pool."""

    retry: Retry = field(default_factory=Retry)
    """Which attempts are repeated."""
    limits: Limits = field(default_factory=Limits)
    """When to give up a search in which nothing succeeds."""
    patience: Patience = field(default_factory=Patience)
    """How long to bear a pool that cannot be written."""
