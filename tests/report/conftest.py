"""Tables as a pool gives them, made up, for the report."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from nao_ray import registry, rng

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def make_trials() -> Callable[..., pd.DataFrame]:
    """`make_trials(n, failed=k)`: n trials of NAO on `nao_cnn`, the last k of them failed."""

    def make(n: int, failed: int = 0) -> pd.DataFrame:
        space = registry.load("space", "nao_cnn")()
        rows = [_row(space, k, k >= n - failed) for k in range(n)]
        frame = pd.DataFrame(rows, columns=list(_row(space, 0, False)))
        return frame.astype({"round": "Int64", "num_params": "Int64", "retry_of": "Int64"})

    return make


def _row(space, k: int, failed: bool) -> dict[str, object]:
    draw = rng.child(0, "report", k)
    genotype = space.sample(draw)
    controlled = k >= 24
    score = 0.75 + 0.05 * draw.random() + (0.06 * draw.random() if controlled else 0.0)
    return {
        "trial_id": k,
        "state": "FAILED" if failed else "COMPLETED",
        "genotype": genotype.key,
        "embedding": draw.normal(size=12) if controlled else None,
        "predicted_score": score + 0.02 * draw.normal() if controlled else None,
        "phase": None,
        "weights_version": None,
        "round": (k - 24) // 18 + 1 if controlled else 0,
        "retry_of": None,
        "failure_kind": ("timeout" if k % 3 else "nan") if failed else None,
        "failure_message": f"trial {k} <went> wrong" if failed else None,
        "valid_accuracy": None if failed else score,
        "valid_perplexity": None,
        "num_params": None if failed else int(draw.integers(10_000, 90_000)),
        "wall_seconds": None if failed else 4 + 3 * draw.random(),
        "device_seconds": None if failed else 4 + 3 * draw.random(),
        "asked_at": START + timedelta(seconds=2 * k),
        "finished_at": START + timedelta(seconds=2 * k + 9),
        "log_index": k,
    }


@pytest.fixture
def fits() -> pd.DataFrame:
    """Two fits of a controller."""
    return pd.DataFrame(
        {
            "round": [1, 2],
            "num_trials": [24, 42],
            "reconstruction": [0.98, 1.0],
            "pairwise_accuracy": [0.71, np.nan],
            "reconstruction_loss": [0.4, 0.3],
            "cpu_seconds": [3.1, 4.2],
            "note": [None, "refilled 2"],
        }
    )


@pytest.fixture
def shared_trials(make_trials) -> pd.DataFrame:
    """Of a search with shared weights: two rounds of a training and 24 scores, then 10 of the last trained alone."""
    trials = make_trials(60)
    trials[["phase", "weights_version"]] = trials[["phase", "weights_version"]].astype(object)
    trials["predicted_score"] = trials["embedding"] = None
    trials.loc[25:49, "genotype"] = trials.loc[0:24, "genotype"].tolist()
    trials.loc[50:59, "genotype"] = trials.loc[30:39, "genotype"].tolist()
    trials.loc[:49, "round"] = [0] * 25 + [1] * 25
    trials.loc[50:, "round"] = 2
    trials.loc[:24, "weights_version"], trials.loc[25:49, "weights_version"] = "e00002", "e00004"
    trials.loc[:49, "num_params"] = pd.NA
    trials.loc[25:49, "valid_accuracy"] += 0.1  # above those trained alone
    for k, version in ((0, "e00002"), (25, "e00004")):
        trials.loc[k, ["phase", "genotype"]] = ['{"version": "x"}', f"shared weights {version}"]
        trials.loc[k, ["weights_version", "valid_accuracy"]] = [None, None]
        trials.loc[k, ["device_seconds", "wall_seconds"]] = [1000.0, 600.0]
    return trials


@pytest.fixture
def shared_fits() -> pd.DataFrame:
    """One fit, and the audit."""
    audit = {"audited": 8, "audit_tau": 0.36, "audit_tau_low": -0.5, "audit_tau_high": 1.0}
    rows = [
        {"round": 0, "weights_version": "e00002", "pairwise_accuracy": 0.8},
        {"round": 2, "weights_version": "e00004", **audit, "audit_trials": "50 51 52 53 54 55 56 57"},
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def manifest() -> dict[str, object]:
    """A manifest like a search writes."""
    return {
        "config": {"name": "digits", "seed": 0, "space": {"name": "nao_cnn"}, "budget": {"trials": 60, "hours": None}},
        "versions": {"nao_ray": "0.1.0", "torch": "2.14.1"},
    }


@pytest.fixture
def space():
    """The space of the trials."""
    return registry.load("space", "nao_cnn")()


@pytest.fixture
def make_trainings() -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    """`make_trainings(epochs, seeds)`: phases that derive a cell of `darts_cnn`, with alphas; what was watched.

    The rule of skips goes off in the second half of the first seed.
    """
    space = registry.load("space", "darts_cnn")()
    cells = [space.sample(rng.child(3, "film", k)).key for k in range(40)]

    def make(epochs: int, seeds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
        rows, watched = [], []
        for epoch in range(1, epochs + 1):
            for seed in range(seeds):
                phase = {"version": f"s{seed}e{epoch:05d}", "first_epoch": epoch - 1, "last_epoch": epoch}
                alphas = rng.child(seed, "alphas", epoch).normal(size=2 * 14 * 8)
                row = {"trial_id": len(rows), "log_index": len(rows), "state": "COMPLETED", "weights_version": None}
                row |= {
                    "phase": json.dumps({**phase, "kind": "alphas/first", "seed": 100 - seed}),
                    "genotype": "shared weights",
                }
                row |= {"derived_genotype": cells[(epoch * seeds + seed) % len(cells)], "alphas": alphas.tolist()}
                rows.append({**row, "valid_accuracy": None, "round": None})
                rings = seed == 0 and epoch > epochs / 2
                told = {
                    "round": epoch,
                    "seed_index": seed,
                    "skips_normal": epoch % 4,
                    "entropy_normal": 2.0794345 - epoch * 3.7e-7,  # as in a young search
                }
                told |= {"alarm": "skips" if rings else "", "alarm_genotype": cells[0] if rings else None}
                watched.append({**told, "alpha_eigenvalue": None})
        return pd.DataFrame(rows), pd.DataFrame(watched)

    return make
