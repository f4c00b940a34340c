"""Several objectives at once: which trials no other one beats, in what order, and how much of the plane they cover.

One trial beats another where it is at least as good in every objective and better in one. Rank 0 is the front: what
nothing beats; rank r is the front of what is left without the ranks below r (Goldberg, 1989; Deb, Pratap, Agarwal,
Meyarivan, NSGA-II, IEEE TEC 2002). The hypervolume is what the front dominates, down to a reference point (Zitzler,
Thiele, IEEE TEC 1999).

Legend: `N` trials, `K` objectives; values are such that more is better (`Aim.signed`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import ConfigError
from nao_ray.metric import Metric

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aim:
    """One objective: a column of the trials, and whether less of it is better."""

    column: str
    less_is_better: bool = False

    @classmethod
    def parse(cls, text: str) -> Aim:
        """``macs`` or ``-macs``, the second for less.

        Raises:
            ConfigError: there is no name.
        """
        name = text.strip()
        less = name.startswith("-")
        name = name.removeprefix("-").strip()
        if not name:
            raise ConfigError(f"objectives: expected the name of a column, with - where less is better, got {text!r}")
        return cls(name, less)

    def signed(self, values: Any) -> Any:  # noqa: ANN401 - a number or an array
        """Such that more is better."""
        return -values if self.less_is_better else values

    def __str__(self) -> str:
        return f"-{self.column}" if self.less_is_better else self.column


def check_objectives(texts: Sequence[str], metric: Metric, others: Sequence[str]) -> None:
    """Refuse objectives of a search that its trials do not have.

    Args:
        texts: as a config has them.
        metric: of the search, whose column is among them.
        others: columns that may be, too.

    Raises:
        ConfigError: one is unknown, there twice or of the wrong sign, or the metric is not among them, or alone.
    """
    aims = [Aim.parse(text) for text in texts]
    own = Aim(metric.column, not metric.more_is_better)
    for aim in aims:
        if aim.column == own.column and aim != own:
            raise ConfigError(f"objectives: {aim} has the wrong sign, expected {own}")
        if aim.column not in (own.column, *others):
            known = ", ".join((own.column, *others))
            raise ConfigError(f"objectives: trials have no {aim.column} that can be aimed at; they have {known}")
    columns = [aim.column for aim in aims]
    if len(set(columns)) < len(columns) or own not in aims or len(aims) < 2:
        raise ConfigError(f"objectives: expected {own} and others, each once, got {', '.join(texts)}")


def front(values: Values) -> NDArray[np.bool_]:
    """``[N]``: the rows of ``[N, K]`` that no other beats; of equal rows all. False where a value is not finite."""
    first: NDArray[np.bool_] = ranks(values, most=1) == 0
    return first


def ranks(values: Values, most: int | None = None) -> NDArray[np.int64]:
    """``[N]``: Pareto ranks of ``[N, K]``, 0 the front; -1 where a value is not finite.

    Args:
        values: more is better.
        most: ranks that are told apart; what comes after them has the rank `most`.
    """
    values = np.asarray(values, dtype=np.float64)
    found = np.full(len(values), -1, dtype=np.int64)
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    if values.shape[1] == 2:
        found[rows] = _ranks_of_two(values[rows], most)
        return found
    rank = 0
    while len(rows):
        if rank == most:
            found[rows] = rank
            break
        is_first = _is_unbeaten(values[rows])
        found[rows[is_first]] = rank
        rows, rank = rows[~is_first], rank + 1
    return found


def _ranks_of_two(values: Values, most: int | None) -> NDArray[np.int64]:
    """In N log N: by the first objective, each row joins the first front whose best second value is below its own."""
    order = np.lexsort((-values[:, 1], -values[:, 0]))
    found = np.empty(len(values), dtype=np.int64)
    tops: list[float] = []  # minus the best second value of each front so far: it falls from front to front
    before: tuple[float, float] | None = None
    rank = 0
    for row, first, second in zip(order.tolist(), *values[order].T.tolist(), strict=True):
        if (first, second) != before:
            rank = bisect_right(tops, -second) if most is None else min(most, bisect_right(tops, -second))
            before = first, second
            if rank == len(tops):
                tops.append(-second)
            else:
                tops[rank] = -second
        found[row] = rank
    return found


def _is_unbeaten(values: Values) -> NDArray[np.bool_]:
    """``[N]``: what nothing beats, for any K; in time N times the front's size."""
    is_open = np.ones(len(values), dtype=bool)
    for row in np.argsort(-values.sum(axis=1), kind="stable"):  # the greatest sums beat the most
        if is_open[row]:
            beaten = (values <= values[row]).all(axis=1) & (values < values[row]).any(axis=1)
            is_open &= ~beaten
    return is_open


def crowding(values: Values) -> Values:
    """``[N]``: how far the neighbours of each row of one front lie apart, infinite at its ends (NSGA-II).

    Each objective counts in spans between its ends; one that is the same everywhere counts nothing.
    """
    values = np.asarray(values, dtype=np.float64)
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if len(order) else 0.0
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def order(values: Values) -> NDArray[np.int64]:
    """Rows of ``[N, K]`` by rank, in a rank by the first objective, ties as they come; without what is not finite."""
    found = ranks(values)
    rows = np.lexsort((-values[:, 0], found)) if len(values) else np.zeros(0, dtype=np.int64)
    return rows[found[rows] >= 0]


def crowded_order(values: Values) -> NDArray[np.int64]:
    """Rows of ``[N, K]`` by rank, in a rank those with the most room first (NSGA-II); what is not finite comes last."""
    found = ranks(values)
    room = np.zeros(len(values))
    for rank in range(found.max(initial=-1) + 1):
        room[found == rank] = crowding(values[found == rank])
    return np.lexsort((-room, np.where(found < 0, len(values), found)))


def worst(values: Values) -> Values:
    """``[K]``: the least of each objective in ``[N, K]``, the usual reference point of a search; NaN without rows."""
    finite = values[np.isfinite(values).all(axis=1)]
    return finite.min(axis=0) if len(finite) else np.full(values.shape[1], np.nan)


def hypervolume(values: Values, reference: Sequence[float] | Values) -> float:
    """What ``[N, K]`` dominate above the reference point ``[K]``, in the product of the objectives' units."""
    above = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    above = above[np.isfinite(above).all(axis=1)]
    return _volume(np.unique(above[(above > 0).all(axis=1)], axis=0))


def _volume(points: Values) -> float:
    """Of positive points above the origin: slices along the last objective, each of one objective less."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[_is_unbeaten(points)] if points.shape[1] > 2 else points
    points = points[np.argsort(-points[:, -1], kind="stable")]
    if points.shape[1] == 2:
        widths = np.maximum.accumulate(points[:, 0])
        return float((widths * (points[:, 1] - np.append(points[1:, 1], 0.0))).sum())
    lower = np.append(points[1:, -1], 0.0)
    heights = points[:, -1] - lower
    return float(sum(h * _volume(points[: i + 1, :-1]) for i, h in enumerate(heights) if h > 0))


def gains(candidates: Values, known: Values, reference: Sequence[float] | Values) -> Values:
    """``[M]``: what each of ``[M, K]`` alone would add to the hypervolume of ``[N, K]``."""
    reference = np.asarray(reference, dtype=np.float64)
    if candidates.shape[1] != 2:
        volume = hypervolume(known, reference)
        return np.array([hypervolume(np.vstack([known, row]), reference) - volume for row in candidates])
    above = known[front(known)] - reference
    above = np.unique(above[(above > 0).all(axis=1)], axis=0)  # a staircase: the first ascends, the second descends
    edges = np.append(above[:, 0], np.inf)
    heights = np.append(above[:, 1], 0.0)
    x, y = (np.clip(candidates - reference, 0, None)).T[..., None]
    widths = np.clip(np.minimum(x, edges) - np.append(0.0, edges[:-1]), 0, None)
    total: Values = (widths * np.clip(y - heights, 0, None)).sum(axis=1)
    return total


def hypervolumes(values: Values, reference: Sequence[float] | Values) -> Values:
    """``[N]``: the hypervolume after each of ``[N, K]`` in their order; what is not finite adds nothing."""
    reference = np.asarray(reference, dtype=np.float64)
    values = np.asarray(values, dtype=np.float64)
    gains = _gains_of_two(values - reference) if values.shape[1] == 2 else _gains(values, reference)
    return np.cumsum(np.fromiter(gains, dtype=np.float64, count=len(values)))


def _gains(values: Values, reference: Values) -> Iterator[float]:
    kept, volume = values[:0], 0.0
    for row in values:
        gain = 0.0
        if np.isfinite(row).all() and not (kept >= row).all(axis=1).any():
            kept = np.vstack([kept[~(kept <= row).all(axis=1)], row])
            after = hypervolume(kept, reference)
            gain, volume = after - volume, after
        yield gain


def _gains_of_two(above: Values) -> Iterator[float]:
    """The front is a staircase, by the first objective ascending and the second descending: a row changes its part."""
    xs: list[float] = []
    ys: list[float] = []  # descending, kept as they are
    for x, y in above.tolist():
        if not (np.isfinite(x) and np.isfinite(y)) or min(x, y) <= 0:
            yield 0.0
            continue
        right = bisect_left(xs, x)  # the first that reaches as far
        floor = ys[right] if right < len(ys) else 0.0
        if floor >= y:
            yield 0.0
            continue
        left = right
        while left > 0 and ys[left - 1] <= y:
            left -= 1
        end = right + (right < len(xs) and xs[right] == x)
        gain, height, edge = 0.0, floor, x
        for i in range(right - 1, left - 1, -1):  # from the right: the strip that each old step leaves free
            gain += (edge - xs[i]) * (y - height)
            height, edge = ys[i], xs[i]
        start = xs[left - 1] if left else 0.0
        gain += (edge - start) * (y - height)
        xs[left:end], ys[left:end] = [x], [y]
        yield gain


@dataclass(frozen=True, slots=True)
class Front:
    """What the trials of a pool cover."""

    objectives: tuple[Aim, ...]
    trials: tuple[int, ...]
    """Ids of those that none beats, the best by the first objective first."""
    hypervolume: float
    """Above `reference`, in the product of the objectives' units."""
    reference: tuple[float, ...]
    """The worst of each objective among the trials, in its own unit, by `objectives`."""

    @classmethod
    def of(cls, trial_ids: NDArray[np.int64], values: Values, objectives: tuple[Aim, ...]) -> Front:
        """Of ``[N]`` trials with ``[N, K]`` values of which more is better."""
        placed = ranks(values)
        rows = [row for row in order(values) if placed[row] == 0]
        least = worst(values)
        reference = tuple(float(aim.signed(value)) for aim, value in zip(objectives, least, strict=True))
        volume = hypervolume(values, least) if len(rows) else 0.0
        return cls(objectives, tuple(int(trial_ids[row]) for row in rows), volume, reference)

    def __str__(self) -> str:
        pairs = zip(self.objectives, self.reference, strict=True)
        point = ", ".join(f"{aim.column} {value:,.6g}" for aim, value in pairs)
        what = ", ".join(map(str, self.objectives))
        how_many = "1 trial" if len(self.trials) == 1 else f"{len(self.trials)} trials"
        text = f"{how_many} that none beats in {what}; hypervolume {self.hypervolume:,.4g}, above the worst of each"
        return f"{text} ({point})"

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "objectives": [str(aim) for aim in self.objectives],
            "trials": list(self.trials),
            "hypervolume": self.hypervolume,
            "reference": {
                aim.column: value if np.isfinite(value) else None
                for aim, value in zip(self.objectives, self.reference, strict=True)
            },
        }
