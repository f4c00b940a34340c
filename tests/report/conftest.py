"""Tables as a pool gives them, made up, for the report."""

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
        return frame.astype({"round": "Int64", "num_params": "Int64"})

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
        "round": (k - 24) // 18 + 1 if controlled else 0,
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
