"""What a report says of shared weights."""

import numpy as np
import pandas as pd
import pytest

from nao_ray.metric import ACCURACY
from nao_ray.report import shared, tables
from nao_ray.report.render import render


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
        (0.36, -0.5, 1.0, "The interval includes 0: these architectures do not show"),
        (0.5, 0.2, 0.8, "in about 75 % of the pairs"),
        (-0.5, -0.8, -0.2, "The shared scores mislead"),
        (np.nan, np.nan, np.nan, "Nothing can be said"),
    ],
)
def test_what_the_audit_means(shared_trials, shared_fits, tau, low, high, words):
    shared_fits.loc[1, ["audit_tau", "audit_tau_low", "audit_tau_high"]] = [tau, low, high]
    assert words in _audit(shared_trials, shared_fits).meaning


def test_rounds_have_a_mean_and_a_best_of_shared_scores_alone(shared_trials):
    rounds = shared.by_round(tables.completed(shared_trials, ACCURACY), ACCURACY)
    assert list(rounds) == [0, 1]
    scores = shared_trials["valid_accuracy"][1:25]
    assert rounds[0] == (pytest.approx(scores.mean()), scores.max())


def test_the_page_of_a_search_with_shared_weights(shared_trials, shared_fits, manifest, space):
    page = render(manifest, shared_trials, shared_fits, 0, space)
    assert "Kendall&#39;s tau 0.36, 95 % interval -0.50 to 1.00, n = 8" in page
    assert "The interval includes 0" in page
    for heading in ("Can the shared scores be believed?", "The same architectures, scored twice", "Size and score"):
        assert heading in page
    assert "Scores with shared weights" in page
    for heading in ("Best so far, over trials", "Score per round"):
        assert heading not in page, "scores of several versions are not one series"
    best = shared_trials["valid_accuracy"][50:].max()
    assert f"1. validation accuracy {best:.4f}" in page, "trained alone, although shared scores are higher"
    assert "audit trials" not in page


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
        assert render(manifest, trials.astype(words), told, 1, space) == render(manifest, trials, told, 1, space)


def test_training_of_shared_weights_costs_device_time(shared_trials):
    spent = shared_trials["device_seconds"].sum()
    assert spent > 2000
    alone = shared.trained_alone(tables.completed(shared_trials, ACCURACY))
    tiles = dict(tables.overview(shared_trials, alone, ACCURACY, 0))
    assert tiles["device time"] == tables.duration(spent)
    assert (tiles["completed"], tiles["trained alone"]) == ("60", "10")


def test_a_search_that_has_not_come_to_its_audit(shared_trials, shared_fits, manifest, space):
    for count, version in ((1, None), (2, "e00002"), (25, "e00002"), (30, "e00004"), (50, "e00004")):
        page = render(manifest, shared_trials.head(count), shared_fits.head(1), 3, space)
        assert "Not known yet: the audit comes at the end" in page
        assert ("Architectures appear here when the finalists are trained alone" in page) == (version is None)
        assert (f"newest shared weights ({version})" in page) == (version is not None), "as `pool best` ranks them"
    failed = shared_fits.assign(audited=[np.nan, 1.0], audit_tau=None, audit_trials=["", "50"])
    assert "n = 1" in render(manifest, shared_trials, failed, 0, space)
    assert "Can the shared" not in render(manifest, shared_trials.assign(phase=None), pd.DataFrame(), 0, space)
