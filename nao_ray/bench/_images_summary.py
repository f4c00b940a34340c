"""What searches on images came to, beside the noise of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import kendalltau

from nao_ray.bench._noise import Noise, pooled
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench._study import Row
from nao_ray.bench._summary import Floats, mean_and_error, metric_of, of_revisions, spread
from nao_ray.evaluators.tabular import Tabular
from nao_ray.spaces.base import Genotype

_CONTROL = "random_search"
_SHARES = (1 / 3, 2 / 3, 1)
"""Of the trials of a search, after which its best so far is shown."""


@dataclass(frozen=True)
class Judge:
    """A table of what the space's architectures are worth when others train them in full."""

    table: Tabular
    column: str

    @cached_property
    def _worth(self) -> Floats:
        """``[N]``, more is better, best first."""
        scores = [self.score(genotype.key) for genotype in self.table.genotypes()]
        return -np.sort(-np.array(scores))

    def score(self, genotype: str) -> float:
        return self.table.config.measure.score(self.table.valid(Genotype(self.table.space.name, genotype)))

    def rank(self, genotype: str) -> int:
        """1: the best of all."""
        return 1 + int((self._worth > self.score(genotype)).sum())

    @property
    def size(self) -> int:
        """Of the table, equal architectures once."""
        return len(self._worth)


def ordered(row: Row) -> list[tuple[str, float]]:
    """Each architecture of a search with its value, the best first; those that failed are left out."""
    score = metric_of(row).score
    pairs = [(key, value) for key, value in zip(row["genotypes"], row["values"], strict=True) if value == value]
    return list(dict(sorted(pairs, key=lambda pair: -score(pair[1]))).items())


def summary(
    rows: Sequence[Row],
    noise: Sequence[Row],
    trainings: Sequence[Row],
    *,
    finalists: int,
    after: int,
    judge: Judge | None,
) -> BenchResult:
    """A line per strategy; of the noise alone, one per architecture."""
    anew: dict[str, list[Row]] = {}
    for training in trainings:
        anew.setdefault(training["genotype"], []).append(training)
    table = _Table(anew, finalists, after, judge)
    groups: dict[str, dict[int, Row]] = {}
    for row in rows:
        groups.setdefault(row["label"], {})[row["seed"]] = row
    lines = [table.line(group, groups.get(_CONTROL, {})) for group in groups.values()]
    columns = (
        table.columns(rows) if rows else ["architecture", "n", "validation", *(["table", "rank"] if judge else [])]
    )
    notes = [*_noise_notes(noise, judge), *(table.notes(rows, trainings) if rows else []), machine()]
    notes += of_revisions((*rows, *noise))
    return BenchResult(
        name="images",
        columns=columns,
        rows=lines if rows else _architectures(noise, judge),
        notes=notes,
        data={"searches": list(rows), "noise": list(noise), "trainings": list(trainings)},
    )


@dataclass(frozen=True)
class _Table:
    """How searches become lines."""

    anew: Mapping[str, Sequence[Row]]
    """Trainings for longer, by genotype."""
    finalists: int
    after: int
    judge: Judge | None

    def columns(self, rows: Sequence[Row]) -> list[str]:
        """Of the table."""
        most = len(rows[0]["values"])
        first = ["strategy", "n", *(f"best@{round(share * most)}" for share in _SHARES), f"mean after {self.after}"]
        longer = ["longer: validation", "test", "better"] if self.anew else []
        return [
            *first,
            *longer,
            *([f"table, after {self.after}", "of the best", "rank"] if self.judge else []),
            "CPU s",
            "of it strategy",
        ]

    def line(self, group: Mapping[int, Row], control: Mapping[int, Row]) -> list[object]:
        """Of the searches of one strategy, by seed."""
        rows = list(group.values())
        curves = np.stack([best_so_far(row) for row in rows])
        at = [round(share * curves.shape[1]) - 1 for share in _SHARES]
        means = np.array([np.nanmean(row["values"][self.after :]) for row in rows])
        found: list[object] = [*(spread(curves[:, index], 3) for index in at), spread(means, 3)]
        if self.anew:
            found += [spread(np.array([self._longer(row, name) for row in rows]), 3) for name in ("valid", "test")]
            found.append(self._better(group, control))
        if self.judge:
            best = [ordered(row)[0][0] for row in rows]
            later = [[self.judge.score(key) for key in row["genotypes"][self.after :]] for row in rows]
            found.append(spread(100 * np.array([np.mean(scores) for scores in later]), 2))
            found.append(spread(100 * np.array([self.judge.score(key) for key in best]), 2))
            found.append(", ".join(str(self.judge.rank(key)) for key in best))
        costs = [float(np.mean([row[name] for row in rows])) for name in ("cpu_children", "cpu_strategy")]
        return [rows[0]["label"], len(rows), *found, round(sum(costs)), round(costs[1])]

    def _longer(self, row: Row, name: str) -> float:
        """Mean over the finalists of a search, and over the trainings of each."""
        best = [key for key, _ in ordered(row)[: self.finalists]]
        return float(np.mean([np.mean([training[name] for training in self.anew[key]]) for key in best]))

    def _better(self, group: Mapping[int, Row], control: Mapping[int, Row]) -> str:
        """By how much on the test split than random search with the same seed."""
        pairs = [(row, control[seed]) for seed, row in group.items() if seed in control and control[seed] is not row]
        if not pairs:
            return ""
        score = metric_of(pairs[0][0]).score
        gains = np.array([score(self._longer(mine, "test") - self._longer(its, "test")) for mine, its in pairs])
        return mean_and_error(gains, 3)

    def notes(self, rows: Sequence[Row], trainings: Sequence[Row]) -> list[str]:
        """What the columns mean."""
        metric = metric_of(rows[0])
        notes = [
            f"{metric.label.capitalize()}, mean over n seeds ± standard deviation. best@k: the best of the first k "
            f"trials; mean after {self.after}: of all that was proposed later. CPU s: of a search, its children "
            "and its strategy."
        ]
        if trainings:
            within = pooled([[one["test"] for one in group] for group in self.anew.values()])
            noise = f"; trainings of one differ by {within:.4f} (standard deviation)" if within == within else ""
            notes.append(
                f"longer: the {self.finalists} best of each search by its validation, trained anew for "
                f"{trainings[0]['epochs']} epochs, {len(trainings) // len(self.anew)} times each, validated, and read "
                f"on the test split{noise}. better: on test than {_CONTROL}, seed by seed, ± standard error."
            )
        if self.judge:
            notes.append(
                f"table: {self.judge.column}, percent, of all that was proposed later, and of the best by the search's "
                f"own validation; rank: of that one, seed by seed, among {self.judge.size:,} (1 is the best)."
            )
        return notes


def best_so_far(row: Row) -> Floats:
    """Of a search, after each trial; NaN before the first that has a value."""
    score = metric_of(row).score
    scores = np.array([score(value) for value in row["values"]])
    curve: Floats = np.fmax.accumulate(scores)
    return np.array([score(value) for value in curve])


def _architectures(noise: Sequence[Row], judge: Judge | None) -> list[list[object]]:
    """A line for each that the noise was measured on, the best first."""
    if not noise:
        return []
    values, score = np.array([row["values"] for row in noise]).T, metric_of(noise[0]).score  # [A, S]
    pairs = sorted(zip(noise[0]["genotypes"], values, strict=True), key=lambda pair: -score(pair[1].mean()))
    return [
        [key, len(mine), spread(mine, 4), *([f"{100 * judge.score(key):.2f}", judge.rank(key)] if judge else [])]
        for key, mine in pairs
    ]


def _noise_notes(noise: Sequence[Row], judge: Judge | None) -> list[str]:
    """What a child's score is worth."""
    if not noise:
        return []
    found = Noise(np.array([row["values"] for row in noise]))
    seeds, architectures = found.values.shape
    told = f"Noise: {architectures} random architectures, {seeds} trainings each, mean {found.values.mean():.4f}"
    if seeds > 1:
        told += (
            f"; standard deviation over trainings of one {found.within:.4f}, between architectures {found.between:.4f}"
            " without that"
        )
    if judge is not None:
        worth = [judge.score(key) for key in noise[0]["genotypes"]]
        taus = [kendalltau(row, worth).statistic for row in found.values]
        told += f"; Kendall's tau of one training with the table {spread(np.array(taus), 2)}"
    seconds = np.mean([row["seconds"] for row in noise])
    return [f"{told}; {seconds:.1f} CPU seconds a training."]
