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


@dataclass(frozen=True, slots=True)
class Audit:
    """How the shared scores of some architectures agree with those of the same ones trained alone."""

    tau: float | None
    low: float | None
    high: float | None
    count: int
    """Random architectures that tau is about; 0 where nothing was audited."""
    shared: Floats
    """``[n]``: of all that were trained alone."""
    alone: Floats
    """``[n]``"""
    is_audited: np.ndarray[Any, np.dtype[np.bool_]]
    """``[n]``: drawn at random; the others are finalists, chosen for their shared scores."""

    @property
    def figures(self) -> str:
        """``Kendall's tau 0.36, 95 % interval -0.50 to 1.00, n = 8``."""
        if self.tau is None or self.low is None or self.high is None:
            return f"Kendall's tau cannot be computed, n = {self.count}"
        return f"Kendall's tau {self.tau:.2f}, 95 % interval {self.low:.2f} to {self.high:.2f}, n = {self.count}"

    @property
    def meaning(self) -> str:
        """One plain sentence."""
        if self.tau is None or self.low is None or self.high is None:
            return "Nothing can be said of the shared scores: it takes three architectures with scores that differ."
        if self.low > 0:
            share = round(50 * (1 + self.tau))
            return (
                f"The shared scores tell good from bad: of two architectures, the one with the better shared score was "
                f"the better one on its own in about {share} % of the pairs."
            )
        if self.high < 0:
            return "The shared scores mislead: architectures that they rank higher were worse on their own."
        return (
            "The interval includes 0: these architectures do not show that a better shared score means a better "
            "network. Believe the scores of those trained alone; more audited ones (strategy.audited) tell more."
        )


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
    rows = fits[fits["audited"].notna()] if "audited" in fits else fits.head(0)
    if rows.empty:
        return None
    row = rows.iloc[-1]
    alone = trained_alone(done).drop_duplicates("genotype")
    last = scores_of_versions(done).sort_values("trial_id").drop_duplicates("genotype", keep="last")
    both = alone.merge(last[["genotype", metric.column]], on="genotype", suffixes=("", "_shared"))
    audited = {int(word) for word in str(row.get("audit_trials") or "").split()}
    return Audit(
        tau=_number(row.get("audit_tau")),
        low=_number(row.get("audit_tau_low")),
        high=_number(row.get("audit_tau_high")),
        count=int(row["audited"]),
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
