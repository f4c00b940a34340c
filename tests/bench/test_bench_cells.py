"""Convolutional cells of several spaces, trained alike at equal multiply-adds."""

import math

import pandas as pd
import pytest

from nao_ray.bench import cells
from nao_ray.errors import ConfigError
from nao_ray.pool import Finals

SMALL = {
    "task": "synthetic",
    "task.classes": 2,
    "task.per_class": 10,
    "recipe": "short",
    "recipe.batch": 8,
    "macs": 400_000,
    "epochs": 1,
}


@pytest.fixture
def study(tmp_path):
    return tmp_path / "study"


def test_cells_have_the_multiply_adds_asked_for_and_are_not_trained_twice(study, monkeypatch):
    few = {"cells": "NAONet-B,ENAS-micro", "random": 1, "seeds": 2, "results": str(study), **SMALL}
    result = cells.run(**few)
    assert {line[0] for line in result.rows} == {"NAONet-B", "ENAS-micro", "random 1"}
    rows = pd.read_parquet(study / "rows")
    assert len(rows) == 6
    assert rows["cpu_seconds"].notna().all()
    for row in rows.itertuples():
        final = Finals(str(study)).row(row.name)
        assert (final["test_accuracy"], final["seed"], final["macs"]) == (row.test, row.seed, row.macs)
    for _, space, channels, _, macs, n, *_ in result.rows:
        assert (n, channels % 2) == (2, 0)
        assert 0.5 < macs / 400_000 < 1.6, f"{space}: two channels more or less"
    order = [float(line[6].split()[0]) for line in result.rows]
    assert order == sorted(order, reverse=True), "validation ranks"
    monkeypatch.setattr("nao_ray.training.fit.fit", lambda *_, **__: pytest.fail("it is done"))
    assert cells.run(**few).rows == result.rows


def test_a_training_that_went_on_has_no_cost_of_its_own(study, monkeypatch):
    few = {"cells": "", "random": 1, "seeds": 1, "results": str(study), **SMALL, "epochs": 2}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cells, "write_row", killed)
        with pytest.raises(KeyboardInterrupt):
            cells.run(**few)
    result = cells.run(**few)
    assert math.isnan(result.rows[0][-1]), "found done: what it took is not known"
    assert result.rows[0][6] == cells.run(**few).rows[0][6]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ConfigError, match="NAONet-Z: no published cell; there are"):
        cells.run(cells="NAONet-Z", **SMALL)
    with pytest.raises(ConfigError, match=r"task\.nonsense"):
        cells.run(cells="NAONet-B", random=0, **SMALL, **{"task.nonsense": 1})
