"""What a report says of shared weights."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nao_ray.metric import ACCURACY
from nao_ray.report import shared, tables
from nao_ray.report.facts import facts
from nao_ray.report.text import best_text


def _audit(shared_trials, fits):
    return shared.audit(tables.completed(shared_trials, ACCURACY), fits, ACCURACY)


def test_the_audit_puts_last_shared_and_own_scores_side_by_side(shared_trials, shared_fits):
    audit = _audit(shared_trials, shared_fits)
    scores = shared_trials["valid_accuracy"]
    assert audit.shared.tolist() == scores[30:40].tolist(), "of the last version, not of the first"
    assert audit.alone.tolist() == scores[50:60].tolist()
    assert audit.is_audited.tolist() == [True] * 8 + [False] * 2
    assert audit.figures == "Kendall's tau 0.36, 95 % interval -0.50 to 1.00, n = 8"


@pytest.mark.parametrize(
    ("tau", "low", "high", "words"),
    [
        (0.36, -0.5, 1.0, "The shared score is worthless as far as this audit can tell: the interval includes 0."),
        (0.36, 0.0, 1.0, "the interval includes 0."),
        (0.5, 0.2, 0.8, "in about 75 % of the pairs"),
        (-0.5, -0.8, -0.2, "The shared score is worse than worthless"),
        (np.nan, np.nan, np.nan, "Nothing can be said"),
    ],
)
def test_what_the_audit_means(shared_trials, shared_fits, tau, low, high, words):
    shared_fits.loc[1, ["audit_tau", "audit_tau_low", "audit_tau_high"]] = [tau, low, high]
    assert words in _audit(shared_trials, shared_fits).meaning


@pytest.mark.parametrize(
    ("of_sizes", "is_worthless"), [(0.49, False), (0.5, True), (0.7, True), (np.nan, False), (None, False)]
)
def test_what_ranks_no_better_than_the_number_of_parameters_is_worthless(
    shared_trials, shared_fits, of_sizes, is_worthless
):
    shared_fits.loc[1, ["audit_tau", "audit_tau_low", "audit_tau_high"]] = [0.5, 0.2, 0.8]
    if of_sizes is not None:
        shared_fits["audit_tau_params"] = of_sizes
    audit = _audit(shared_trials, shared_fits)
    assert audit.meaning.startswith("The shared score is worthless: it ranks no better") == is_worthless
    said = f"; of the numbers of parameters {of_sizes:.2f}" if of_sizes and not np.isnan(of_sizes) else ""
    assert audit.figures == f"Kendall's tau 0.50, 95 % interval 0.20 to 0.80, n = 8{said}"
    alone = shared.agreement(shared_fits)
    assert (alone.figures, alone.meaning) == (audit.figures, audit.meaning)
    assert shared.agreement(shared_fits.head(1)) is None


def test_the_best_are_told_with_what_shared_scores_are_worth(shared_trials, shared_fits, manifest):
    known = {"best": lambda count: shared_trials.tail(count), "metric": ACCURACY, "manifest": manifest}
    pool = SimpleNamespace(**known, objectives=(), rungs=(), front=lambda: None, fits=lambda: shared_fits)
    *_, blank, last = best_text(pool, 3).splitlines()
    assert (blank, last[:71]) == ("", "Shared weights: Kendall's tau 0.36, 95 % interval -0.50 to 1.00, n = 8.")
    assert " The shared score is worthless" in last
    pool.fits = lambda: shared_fits.assign(audited=[np.nan, 0.0])  # a search that audits nothing
    assert "Shared weights" not in best_text(pool, 3)


def test_rounds_have_a_mean_and_a_best_of_shared_scores_alone(shared_trials):
    rounds = shared.by_round(tables.completed(shared_trials, ACCURACY), ACCURACY)
    assert list(rounds) == [0, 1]
    scores = shared_trials["valid_accuracy"][1:25]
    assert rounds[0] == (pytest.approx(scores.mean()), scores.max())


def test_what_is_said_of_a_search_with_shared_weights(shared_trials, shared_fits, manifest):
    found = facts(manifest, shared_trials, shared_fits, 0)
    assert found["is_shared"]
    assert found["audit"]["figures"] == "Kendall's tau 0.36, 95 % interval -0.50 to 1.00, n = 8"
    assert found["audit"]["meaning"].startswith("The shared score is worthless")
    assert [len(found["audit"][name]) for name in ("shared", "alone", "is_audited")] == [10, 10, 10]
    assert [row["round"] for row in found["versions"]] == [0, 1]
    assert found["versions"][1]["best"] == shared_trials["valid_accuracy"][26:50].max()
    best = shared_trials["valid_accuracy"][50:].max()
    assert found["best"][0]["score"] == f"{best:.4f}", "trained alone, although shared scores are higher"
    assert "audit trials" not in found["fits"]["headings"]


def test_words_may_be_categories(shared_trials, shared_fits, make_trials, fits, manifest, space):
    """As a large pool's are read, where each text would be held for each trial."""
    words = dict.fromkeys(
        ("state", "failure_kind", "failure_message", "phase", "weights_version", "genotype"), "category"
    )
    for trials, told in (
        (shared_trials, shared_fits),
        (make_trials(60, failed=5), fits),
        (make_trials(0), fits.head(0)),
    ):
        assert facts(manifest, trials.astype(words), told, 1) == facts(manifest, trials, told, 1)


def test_training_of_shared_weights_costs_device_time(shared_trials):
    spent = shared_trials["device_seconds"].sum()
    assert spent > 2000
    alone = shared.trained_alone(tables.completed(shared_trials, ACCURACY))
    tiles = dict(tables.overview(shared_trials, alone, ACCURACY, 0))
    assert tiles["device time"] == tables.duration(spent)
    assert (tiles["completed"], tiles["trained alone"]) == ("60", "10")


def test_a_search_that_has_not_come_to_its_audit(shared_trials, shared_fits, manifest):
    for count, version in ((1, ""), (2, "e00002"), (25, "e00002"), (30, "e00004"), (50, "e00004")):
        found = facts(manifest, shared_trials.head(count), shared_fits.head(1), 3)
        assert (found["is_shared"], found["audit"]) == (True, None)
        assert found["best_version"] == version, "as `pool best` ranks them"
    failed = shared_fits.assign(audited=[np.nan, 1.0], audit_tau=None, audit_trials=["", "50"])
    assert facts(manifest, shared_trials, failed, 0)["audit"]["figures"].endswith("n = 1")
    assert not facts(manifest, shared_trials.assign(phase=None), pd.DataFrame(), 0)["is_shared"]
