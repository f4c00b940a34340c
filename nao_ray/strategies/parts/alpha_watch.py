"""What is watched of a search by alphas: whether its cells fill up with skip connections, and what says so early.

Three rules, each with what the search would have returned at its word:

- ``skips``, DARTS+ (Liang, Zhang, Sun, He, Huang, Zhuang, Li, arXiv 1909.06035): a normal cell has more than so many
  skip connections; returned is the last cell before, with as many at most. Recurrent cells have none: an edge of
  `identity` has weights and a gate like any other.
- ``eigenvalue``, R-DARTS (Zela, Elsken, Saikia, Marrakchi, Brox, Hutter, ICLR 2020, arXiv 1909.09656, section 4.3): the
  largest eigenvalue of the validation Hessian in the alphas, a mean over `WINDOW` epochs, has grown so much in as many
  that the mean before is less than such a share of it; returned is the cell of `WINDOW` epochs before.
- ``none``, ours: `none` has more than such a share of a cell's mean edge; returned is the last cell before.
  Where it may be derived (`nas_bench_201`), cells fall apart by it; where it may not, they are chosen by what is left.

Legend: `E` edges of a cell, `O` operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.spaces.parts.relaxed import NONE, SKIP, softmax

WINDOW = 5
"""Epochs of the rule of eigenvalues: k of the paper."""
_TINY = 1e-300
_LOWERED, _RECURRENT = "identity", "recurrent"
"""What a skip connection is in an arch graph, and the role of cells without any."""
_SHORT = {"normal": "normal", "reduction": "reduce"}


@dataclass(frozen=True)
class Rules:
    """When an alarm is given."""

    skips: int = 2
    """Most skip connections of a normal cell."""
    eigenvalue: float = 0.75
    """Least share that the mean eigenvalue of before is of the mean one."""
    none: float | None = None
    """Largest mean mass on `none` in a cell; None: any."""


@dataclass(frozen=True)
class Alarm:
    """A rule that fired."""

    rule: str
    index: int
    """Of the epoch in the course whose cell it returns."""


@dataclass(frozen=True)
class Seen:
    """An epoch of a search."""

    genotype: Genotype
    alphas: Sequence[Any]
    """``[E, O]`` per role of the space's `alpha_edges`, before the softmax; ``[E, O + 1]`` with those of edges."""
    eigenvalue: float | None = None
    supernet_score: float | None = None
    derived_score: float | None = None
    """Of the genotype, in a table."""
    derived_rank: int | None = None
    """Likewise, 1 the best."""


def split(space: SearchSpace[Any], flat: Sequence[float]) -> list[Any]:
    """Alphas ``[E, O]`` per role, or ``[E, O + 1]`` with those of edges, from all of them in a row."""
    width = len(flat) // sum(space.alpha_edges.values())
    sizes = [edges * width for edges in space.alpha_edges.values()]
    parts = np.split(np.asarray(flat, dtype=np.float64), np.cumsum(sizes)[:-1])
    return [part.reshape(-1, width) for part in parts]


def has_skips(space: SearchSpace[Any]) -> bool:
    """Whether cells that alphas come to may have skip connections."""
    return not space.primitives or SKIP in space.primitives


def skips(space: SearchSpace[Any], genotype: Genotype) -> dict[str, int]:
    """Skip connections of each cell by its role; empty where there are none.

    Recurrent cells have weights wherever they read, at an `identity` too.
    """
    if not has_skips(space):
        return {}
    return {role: ops.count(_LOWERED) for role, ops in space.ops_by_cell(genotype).items() if role != _RECURRENT}


def figures(space: SearchSpace[Any], seen: Seen) -> dict[str, float | int | None]:
    """Per role the skip connections of the cell, the mean mass on `none`, and the mean entropy of an edge, in nats."""
    shares = zip(space.alpha_edges, _shares(space, seen), strict=True)
    roles = [(_SHORT.get(role, role), found) for role, found in shares]
    skipping = skips(space, seen.genotype)
    found: dict[str, float | int | None] = {f"skips_{_SHORT.get(role, role)}": n for role, n in skipping.items()}
    if NONE in space.primitives:
        column = space.primitives.index(NONE)
        found |= {f"none_{name}": float(shares[:, column].mean()) for name, shares in roles}
    found |= {f"entropy_{name}": float(-(s * np.log(np.maximum(s, _TINY))).sum(axis=1).mean()) for name, s in roles}
    found |= {"alpha_eigenvalue": seen.eigenvalue, "supernet_score": seen.supernet_score}
    return {**found, "derived_score": seen.derived_score, "derived_rank": seen.derived_rank}


def _shares(space: SearchSpace[Any], seen: Seen) -> list[Any]:
    """Per role ``[E, O]``, of sum 1 each: without the alphas of edges, where there are such."""
    return [softmax(np.asarray(alphas)[:, : len(space.primitives)]) for alphas in seen.alphas]


def alarms(space: SearchSpace[Any], course: Sequence[Seen], rules: Rules, warmup: int = 0) -> list[Alarm]:
    """The rules that fire at the last epoch of a course, of at least one; they see nothing of its first `warmup`."""
    course = course[warmup:]
    if not course:
        return []
    found = {
        "skips": _last_before(course, lambda seen: _has_few_skips(space, seen, rules.skips)),
        "eigenvalue": _too_sharp(course, rules.eigenvalue),
        "none": _last_before(course, lambda seen: _has_little_of_none(space, seen, rules.none)),
    }
    return [Alarm(rule, index + warmup) for rule, index in found.items() if index is not None]


def _has_few_skips(space: SearchSpace[Any], seen: Seen, most: int) -> bool:
    return all(count <= most for role, count in skips(space, seen.genotype).items() if role != "reduction")


def _has_little_of_none(space: SearchSpace[Any], seen: Seen, most: float | None) -> bool:
    if most is None or NONE not in space.primitives:
        return True
    column = space.primitives.index(NONE)
    return all(float(shares[:, column].mean()) <= most for shares in _shares(space, seen))


def _last_before(course: Sequence[Seen], obeys: Callable[[Seen], bool]) -> int | None:
    """The last epoch that obeys a rule, or else this one; None: it does itself."""
    last = len(course) - 1
    if obeys(course[last]):
        return None
    return next((index for index in range(last, -1, -1) if obeys(course[index])), last)


def _too_sharp(course: Sequence[Seen], least: float) -> int | None:
    values = [seen.eigenvalue for seen in course[-2 * WINDOW :] if seen.eigenvalue is not None]
    if len(values) < 2 * WINDOW:
        return None
    before, now = np.mean(values[:WINDOW]), np.mean(values[WINDOW:])
    return len(course) - 1 - WINDOW if before < least * now else None
