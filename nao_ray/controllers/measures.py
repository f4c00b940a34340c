"""How good a controller is: reconstruction and ranking, as the reference measures them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def hamming(tokens: NDArray[np.int64], decoded: NDArray[np.int64]) -> float:
    """Mean number of differing tokens per row of two ``[N, L]`` arrays; in [0, L]."""
    return float((tokens != decoded).sum(axis=1).mean())


def pairwise_accuracy(scores: Floats, predictions: Floats) -> float:
    """Share of the pairs i < j that both ``[N]`` arrays order alike (both >= or both <); NaN below two values."""
    i, j = np.triu_indices(len(scores), k=1)
    if not len(i):
        return float("nan")
    return float(((scores[i] >= scores[j]) == (predictions[i] >= predictions[j])).mean())


def rank_correlation(scores: Floats, predictions: Floats) -> float:
    """Spearman's rho of two ``[N]`` arrays, ties by their mean rank; NaN where one of them is constant."""
    if len(scores) < 2:
        return float("nan")
    a, b = _ranks(scores), _ranks(predictions)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def kendall_taus(a: Floats, b: Floats, picks: NDArray[np.int64]) -> Floats:
    """Kendall's tau-b of two ``[N]`` arrays at each row of ``[R, n]`` picks: ``[R]``; NaN where one is constant there.

    A bootstrap asks for a thousand of so few values that `scipy.stats.kendalltau` would only check its arguments.
    """
    i, j = np.triu_indices(picks.shape[1], k=1)
    first, second = picks[:, i], picks[:, j]
    signs_a, signs_b = np.sign(a[first] - a[second]), np.sign(b[first] - b[second])
    untied_a, untied_b = np.count_nonzero(signs_a, axis=1), np.count_nonzero(signs_b, axis=1)
    with np.errstate(invalid="ignore"):
        taus: Floats = np.clip((signs_a * signs_b).sum(axis=1) / np.sqrt(untied_a) / np.sqrt(untied_b), -1, 1)
    return taus


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse].astype(np.float64)
    return ranks
