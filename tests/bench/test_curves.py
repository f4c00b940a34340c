"""Anytime curves: what is averaged over which searches, and the band around it."""

import numpy as np
import pytest

from nao_ray.bench._curves import band, draw, over_hours, over_queries


def row(valid, hours, found=None, label="x", max_queries=6):
    curves = {f"curve_{name}": valid for name in ("valid", "test", "oracle_test")} | {"curve_hours": hours}
    return curves | {
        "table": "t",
        "label": label,
        "workers": 1,
        "queries_to_optimum": found,
        "max_queries": max_queries,
    }


FOUND = row([0.2, 0.9], [1.0, 2.0], found=2)
LONG = row([0.1, 0.1, 0.3, 0.3, 0.3, 0.5], [2.0, 3.0, 4.0, 5.0, 6.0, 8.0])


def test_a_search_that_found_the_optimum_keeps_it():
    queries, values = over_queries([FOUND, LONG], "curve_valid")
    np.testing.assert_array_equal(queries, np.arange(1, 7))
    np.testing.assert_array_equal(values, [[0.2, 0.9, 0.9, 0.9, 0.9, 0.9], LONG["curve_valid"]])


def test_a_search_cut_short_has_no_later_value():
    _, values = over_queries([LONG, row([0.1], [1.0])], "curve_valid")
    assert np.isnan(values[1, 1:]).all()
    assert np.isfinite(values[0]).all()


def test_time_goes_from_the_first_result_to_the_first_search_that_gave_up():
    hours, values = over_hours([FOUND, LONG], "curve_valid")
    assert hours[0] == pytest.approx(1)
    assert hours[-1] == pytest.approx(8)
    for at, mine, its in zip(hours, *values, strict=True):
        assert mine == (0.2 if at < 2 else 0.9)
        assert np.isnan(its) if at < 2 else its == LONG["curve_valid"][np.sum(np.array(LONG["curve_hours"]) <= at) - 1]


def test_the_band_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(400, 3))
    mean, low, high = band(values)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(high - low, 2 * 1.96 * 2 / np.sqrt(400), rtol=0.15)
    assert ((low < mean) & (mean < high)).all()
    values[0, 1] = np.nan
    assert np.isnan(band(values)[0]).tolist() == [False, True, False]


def test_the_picture_is_the_same_for_the_same_rows(tmp_path):
    rows = [FOUND, LONG, *[{**each, "label": "y"} for each in (FOUND, LONG)]]
    (first,) = draw(rows, tmp_path / "a")
    (second,) = draw(rows, tmp_path / "b")
    text = first.read_text()
    assert text == second.read_text()
    assert "x (n = 2)" in text
    assert "simulated device hours" in text
