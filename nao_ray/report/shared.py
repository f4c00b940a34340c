"""What a report says of shared weights: their scores round by round, and the audit, which tells what those are worth.

Legend: `n` architectures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nao_ray.metric import Metric
from nao_ray.report.tables import Floats, floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the shared scores of a random sample agree with those of the same architectures trained alone."""

    tau: float | None
    low: float | None
    high: float | None
    count: int
    """Random architectures that tau is about; 0 where nothing was audited."""
    size_tau: float | None = None
    """The same of their numbers of parameters, the more the better, which cost nothing; None: they are not known."""

    @property
    def figures(self) -> str:
        """``Kendall's tau 0.36, 95 % interval -0.50 to 1.00, n = 8; of the numbers of parameters 0.21``."""
        if self.tau is None or self.low is None or self.high is None:
            return f"Kendall's tau cannot be computed, n = {self.count}"
        sizes = "" if self.size_tau is None else f"; of the numbers of parameters {self.size_tau:.2f}"
        return f"Kendall's tau {self.tau:.2f}, 95 % interval {self.low:.2f} to {self.high:.2f}, n = {self.count}{sizes}"

    @property
    def meaning(self) -> str:
        """One plain sentence, and what to do."""
        if self.tau is None or self.low is None or self.high is None:
            return "Nothing can be said of the shared scores: it takes three architectures with scores that differ."
        if self.high < 0:
            return (
                "The shared score is worse than worthless: architectures that it ranks higher were worse on their own. "
                "Believe the scores of those trained alone."
            )
        if self.low <= 0:
            return (
                "The shared score is worthless as far as this audit can tell: the interval includes 0. Believe the "
                "scores of those trained alone; more audited ones (strategy.audited) tell more."
            )
        if self.size_tau is not None and self.size_tau >= self.tau:
            return (
                "The shared score is worthless: it ranks no better than the number of parameters does, which costs "
                "nothing. Believe the scores of those trained alone."
            )
        share = round(50 * (1 + self.tau))
        return (
            f"The shared scores tell good from bad: of two architectures, the one with the better shared score was "
            f"the better one on its own in about {share} % of the pairs."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Agreement):
    """With the scores that it is made from."""

    shared: Floats
    """``[n]``: of all that were trained alone."""
    alone: Floats
    """``[n]``"""
    is_audited: np.ndarray[Any, np.dtype[np.bool_]]
    """``[n]``: drawn at random; the others were chosen, as finalists are."""


def agreement(fits: pd.DataFrame) -> Agreement | None:
    """What the audit has found; None where the search has not come to it, or audits nothing."""
    found = _audit_row(fits)
    return None if found is None else Agreement(**_agreement(found))


def _audit_row(fits: pd.DataFrame) -> pd.Series[Any] | None:
    rows = fits[fits["audited"].notna()] if "audited" in fits else fits.head(0)
    return None if rows.empty else rows.iloc[-1]


def _agreement(row: pd.Series[Any]) -> dict[str, Any]:
    names = {"tau": "audit_tau", "low": "audit_tau_low", "high": "audit_tau_high", "size_tau": "audit_tau_params"}
    return {"count": int(row["audited"]), **{name: _number(row.get(column)) for name, column in names.items()}}


def is_shared(trials: pd.DataFrame) -> bool:
    """Whether the search trained shared weights to score with: those that are trained beside alphas never do."""
    return bool((_phases(trials) & ~_of_alphas(trials)).any())


def _phases(trials: pd.DataFrame) -> pd.Series[bool]:
    return trials["phase"].notna()


def _of_alphas(trials: pd.DataFrame) -> pd.Series[bool]:
    return trials["phase"].astype(object).str.contains('"kind": "alphas', regex=False).fillna(False).astype(bool)


def scores_of_versions(done: pd.DataFrame) -> pd.DataFrame:
    """Completed trials that were scored with shared weights."""
    return done[done["weights_version"].notna()]


def trained_alone(done: pd.DataFrame) -> pd.DataFrame:
    """Completed trials of networks with weights of their own."""
    return done[done["weights_version"].isna()].reset_index(drop=True)


def by_round(done: pd.DataFrame, metric: Metric) -> dict[int, tuple[float, float]]:
    """Per round the mean and the best of the shared scores."""
    shared = scores_of_versions(done)
    rounds = {int(index): floats(group[metric.column]) for index, group in shared.groupby(shared["round"].astype(int))}
    best = np.max if metric.more_is_better else np.min
    return {index: (float(values.mean()), float(best(values))) for index, values in rounds.items()}


def audit(done: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> Audit | None:
    """The audit that ends a search; None where it has not come to that."""
    row = _audit_row(fits)
    if row is None:
        return None
    alone = trained_alone(done).drop_duplicates("genotype")
    last = scores_of_versions(done).sort_values("trial_id").drop_duplicates("genotype", keep="last")
    both = alone.merge(last[["genotype", metric.column]], on="genotype", suffixes=("", "_shared"))
    audited = {int(word) for word in str(row.get("audit_trials") or "").split()}
    return Audit(
        **_agreement(row),
        shared=floats(both[f"{metric.column}_shared"]),
        alone=floats(both[metric.column]),
        is_audited=both["trial_id"].isin(audited).to_numpy(dtype=bool),
    )


def other_fits(fits: pd.DataFrame) -> pd.DataFrame:
    """The strategy's rows without the audit's."""
    if "audited" not in fits:
        return fits
    return fits[fits["audited"].isna()].drop(columns=[name for name in fits if str(name).startswith("audit")])


def _number(value: float | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
