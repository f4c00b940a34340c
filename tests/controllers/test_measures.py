"""Measures of rank: those of the libraries."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import kendalltau

from nao_ray.controllers import measures
from nao_ray.controllers.measures import kendall_taus


@pytest.mark.parametrize("size", [2, 3, 8, 24])
@pytest.mark.parametrize("levels", [2, 5, 1000], ids=["nearly constant", "ties", "none"])
def test_taus_of_a_bootstrap_are_scipys(size, levels, monkeypatch):
    monkeypatch.setattr(measures, "_BLOCK", 7)
    draw = np.random.default_rng(size * levels)
    a, b = draw.integers(0, levels, (2, size)) / 7
    picks = draw.integers(0, size, (50, size))
    taus = kendall_taus(a, b, picks)
    constant = [np.ptp(a[pick]) == 0 or np.ptp(b[pick]) == 0 for pick in picks]
    np.testing.assert_array_equal(np.isnan(taus), constant)
    assert taus[~np.isnan(taus)].tolist() == [
        kendalltau(a[pick], b[pick]).statistic for pick, none in zip(picks, constant, strict=True) if not none
    ]


def test_a_bootstrap_of_many_takes_little_memory():
    draw = np.random.default_rng(0)
    a, b = draw.random((2, 300))
    picks = draw.integers(0, 300, (1000, 300))
    tracemalloc.start()
    kendall_taus(a, b, picks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6, "pairs of each row apart would be 360 MB a matrix"
