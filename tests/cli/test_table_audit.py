"""A search with shared weights against a table: what it derived, and how its scores agree."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from nao_ray.cli import table as command
from nao_ray.cli.table_audit import TableAudit, open_table
from nao_ray.errors import ConfigError, DataError
from nao_ray.metric import ACCURACY
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.trial import TrialState

OPS = ("skip_connect", "nor_conv_3x3")
SPACE = NasBench201(NasBench201.Config(ops=OPS))
TEXTS = [
    "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops) for ops in itertools.product(OPS, repeat=6)
]  # by their number of convolutions of growing worth: skips alone is the worst
VALUES = np.arange(64) + 10.0


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "table.csv"
    pd.DataFrame({"arch_str": TEXTS, "valid": VALUES, "error": 100 - VALUES}).to_csv(path, index=False)
    return str(path)


class Pool:
    """A reader's tables."""

    url, metric, rungs = "pools/p", ACCURACY, ()

    def __init__(self, phases=(), scored=(), alarms=(), climbed=()):
        rows = [
            {"phase": json.dumps({"version": f"s0-e{epoch:05d}", "last_epoch": epoch}), "derived_genotype": TEXTS[at]}
            for epoch, at in enumerate(phases, start=1)
        ]
        rows += [
            {"genotype": TEXTS[at], "weights_version": version, "valid_accuracy": score}
            for version, at, score in scored
        ]
        rows += [
            {"genotype": TEXTS[at], "epochs": epochs, "parent_trial_id": parent, "valid_accuracy": score}
            for epochs, parent, at, score in climbed
        ]
        empty = dict.fromkeys(("genotype", "phase", "derived_genotype", "weights_version", "valid_accuracy"))
        empty |= dict.fromkeys(("epochs", "parent_trial_id"))
        self.frame = pd.DataFrame(
            [{"trial_id": i, "state": TrialState.COMPLETED.value, **empty, **row} for i, row in enumerate(rows)]
        )
        self.rows = pd.DataFrame([{"weights_version": f"s0-e{e:05d}", "alarm": rule} for e, rule in alarms])

    def trials(self, columns, *, rungs):
        assert rungs, "a ladder's lower rungs are left out"
        return self.frame[columns]

    def fits(self):
        return self.rows


def audited(csv, pool, **settings):
    return TableAudit(pool, open_table(SPACE, {"path": csv, "valid": "valid", **settings}))


def test_derived_cells_are_looked_up(csv):
    found = audited(csv, Pool(phases=[63, 5, 0], alarms=[(1, ""), (2, "skips"), (3, "skips")])).derived
    assert found["weights"].tolist() == ["s0-e00001", "s0-e00002", "s0-e00003"]
    assert found["epoch"].tolist() == [1, 2, 3]
    assert found["value"].tolist() == pytest.approx([0.73, 0.15, 0.10])
    assert found["rank"].tolist() == [1, 59, 64]
    assert found["skips"].tolist() == [0, 4, 6]
    assert found["alarm"].tolist() == ["", "skips", "skips"]


def test_of_errors_the_least_is_first(csv):
    found = audited(csv, Pool(phases=[63, 0]), valid="error", goal="minimize").derived
    assert found["rank"].tolist() == [1, 64]


def test_scores_of_each_version_are_compared(csv):
    cells = range(0, 60, 3)
    scored = [("e00001", at, 0.9 - at / 100) for at in cells] + [("e00002", at, 0.1 + at / 100) for at in cells]
    scored += [("e00003", at, 0.5) for at in cells[:2]] + [(None, at, 0.2 + at / 200) for at in cells[:3]]
    found = audited(csv, Pool(scored=scored)).agreement.set_index("weights")
    assert found.index.tolist() == ["-", "e00001", "e00002"]
    assert found["n"].tolist() == [3, 20, 20]
    assert found["tau"].tolist() == pytest.approx([1, -1, 1])
    assert found["its rank"].tolist() == [64 - 6, 64, 64 - 57]
    assert found.loc["e00002", "low"] == pytest.approx(1)


def test_the_interval_is_of_the_cells_drawn_again(csv):
    noise = np.random.default_rng(0).normal(0, 20, size=64)
    found = audited(csv, Pool(scored=[("e1", at, (VALUES + noise)[at] / 200) for at in range(64)])).agreement.iloc[0]
    assert 0.2 < found["low"] < found["tau"] < found["high"] < 0.9


class Ladder(Pool):
    """Twelve cells after the first rung's epochs, in the wrong order; some of them after more, in the right one."""

    def __init__(self, *counts, rungs=(2, 4, 8)):
        self.rungs = rungs
        rows = [(rungs[0], None, at, 0.5 - at / 200) for at in range(12)]
        for epochs, count in zip(rungs[1:], counts, strict=True):
            rows += [(epochs, at, at, 0.5 + epochs / 100 + at / 200) for at in range(count)]
        super().__init__(climbed=rows)


@pytest.mark.parametrize(("counts", "rung", "n", "tau"), [((5, 3), 8, 3, 1), ((5, 2), 4, 5, 1), ((2, 1), 2, 12, -1)])
def test_of_a_ladder_one_rung_is_compared(csv, monkeypatch, capsys, counts, rung, n, tau):
    """The highest with three architectures; all rungs together would be another order."""
    monkeypatch.setattr("nao_ray.pool.PoolReader.open", lambda _: Ladder(*counts))
    monkeypatch.setattr("nao_ray.cli.pool.make_space", lambda _: SPACE)
    command.audit("pools/p", csv, ["valid=valid"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    (row,) = found["agreement"]
    assert (found["rung"], row["weights"], row["n"], row["tau"]) == (rung, "-", n, pytest.approx(tau))
    command.audit("pools/p", csv, ["valid=valid"])
    assert f"(-: networks trained alone, after {rung} epochs)" in capsys.readouterr().out


def test_a_rung_of_one_epoch_is_called_so(csv, monkeypatch, capsys):
    monkeypatch.setattr("nao_ray.pool.PoolReader.open", lambda _: Ladder(rungs=(1,)))
    monkeypatch.setattr("nao_ray.cli.pool.make_space", lambda _: SPACE)
    command.audit("pools/p", csv, ["valid=valid"])
    assert "(-: networks trained alone, after 1 epoch)" in capsys.readouterr().out


def test_without_anything_to_compare_it_is_refused(csv):
    with pytest.raises(
        ConfigError, match=r"^pools/p has neither derived cells nor three scores to compare with a table"
    ):
        audited(csv, Pool(scored=[("e1", 0, 0.5)]))
    with pytest.raises(DataError, match="has no column nope"):
        audited(csv, Pool(phases=[1]), valid="nope")
    with pytest.raises(ConfigError, match="unknown key valide"):
        audited(csv, Pool(phases=[1]), valide="valid")


def test_the_command(csv, monkeypatch, capsys):
    pool = Pool(phases=[63], scored=[("e1", at, at / 64) for at in range(9)])
    monkeypatch.setattr("nao_ray.pool.PoolReader.open", lambda _: pool)
    monkeypatch.setattr("nao_ray.cli.pool.make_space", lambda _: SPACE)
    command.audit("pools/p", csv, ["valid=valid"])
    text = capsys.readouterr().out
    assert "64 architectures" in text
    assert "s0-e00001  1      0.7300  1     0" in text
    command.audit("pools/p", csv, ["valid=valid"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["derived"][0]["rank"] == 1
    assert found["agreement"][0]["tau"] == pytest.approx(1)
    assert found["rung"] is None
    with pytest.raises(ConfigError, match=r"^valid: expected KEY=VALUE, for example valid="):
        command.audit("pools/p", csv, ["valid"])
