"""What is watched of a DARTS search: figures of its alphas, what gives an alarm, and what ends a training."""

import logging

import numpy as np
import pandas as pd
import pytest
from _darts_search import NONE, SKIP, SPACE, alone, diverges, drifting, measured, phases, run, strategy

from nao_ray import rng
from nao_ray.report.derived import ends
from nao_ray.service.hosting.manifest import _completed
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.darts import Darts, DartsConfig
from nao_ray.strategies.parts.alpha_watch import WINDOW, Rules, Seen, alarms, figures, skips, split
from nao_ray.trial import FailureKind, Fidelity, Trial


def test_figures_of_alphas():
    normal, reduction = np.zeros((14, 8)), np.zeros((14, 8))
    normal[:, NONE] = np.log(7.0)
    normal[:, SKIP] += 1e-9
    found = figures(SPACE, Seen(SPACE.derive([normal, reduction]), [normal, reduction], 0.5, 0.9))
    assert list(found) == [
        "skips_normal", "skips_reduce", "none_normal", "none_reduce", "entropy_normal", "entropy_reduce",
        "alpha_eigenvalue", "supernet_score", "derived_score", "derived_rank",
    ]  # fmt: skip
    assert (found["skips_normal"], found["skips_reduce"]) == (8, 0)
    assert found["none_normal"] == pytest.approx(0.5)
    assert found["none_reduce"] == pytest.approx(1 / 8)
    assert found["entropy_normal"] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(14))
    assert found["entropy_reduce"] == pytest.approx(np.log(8))
    assert (found["alpha_eigenvalue"], found["supernet_score"]) == (0.5, 0.9)


def test_alphas_come_back_from_a_row():
    cells = drifting(0, 3)
    back = split(SPACE, [value for cell in cells for value in cell.ravel().tolist()])
    assert all(np.array_equal(a, b) for a, b in zip(cells, back, strict=True))


def course(epochs, eigenvalue=None):
    seen = []
    for epoch in range(1, epochs + 1):
        cells = drifting(0, epoch, by=0.1)
        seen.append(Seen(SPACE.derive(cells), cells, None if eigenvalue is None else eigenvalue(epoch)))
    return seen


def test_a_collapse_gives_an_alarm_and_names_the_cell_before(caplog):
    """Alphas drift to skip connections: the rule of skips fires at the first cell with more than two."""
    trials, rows = run(strategy(seeds=1, epochs=12, control=0))
    counts = [row["skips_normal"] for row in rows if "skips_normal" in row]
    assert counts[0] <= 2 < counts[-1] == 8, "a collapse was made up"
    first = next(index for index, count in enumerate(counts) if count > 2)
    assert [row["alarm"] for row in rows[:12]] == [""] * first + ["skips"] * (12 - first)
    before = SPACE.derive(drifting(phases(trials)[0].seed, first))
    assert {row["alarm_genotype"] for row in rows[first:12]} == {before.key}
    assert skips(SPACE, before)["normal"] <= 2
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [
        f"seed 0, epoch {first + 1}: the rule of skips fires; it would have returned the cell of epoch {first}, "
        f"{before.key}"
    ]
    assert len(alone(trials, control=False)) == 2, "the last cell, and what the rule would have returned"
    caplog.clear()
    strategy(seeds=1, epochs=12, control=0).restore(trials)
    assert not caplog.records, "a resume does not say again what was said"


def test_no_rule_looks_at_epochs_in_which_alphas_stay():
    """A random cell may have many skips, and is none that a training came to."""
    search = strategy(seeds=1, epochs=6, warmup_epochs=3, control=0, stop_at_skips=2, order="first")
    trials, rows = run(search, alphas=lambda seed, epoch: drifting(seed, 40 if epoch in (1, 3, 6) else 0))
    assert [phase.kind for phase in phases(trials)] == ["alphas/none"] * 3 + ["alphas/first"] * 3
    assert [row["alarm"] for row in rows[:6]] == [""] * 5 + ["skips"]
    assert [trial.proposal.round for trial in alone(trials, control=False)] == [5]
    at_once, _ = run(strategy(seeds=1, epochs=6, warmup_epochs=3, control=0), alphas=lambda seed, _: drifting(seed, 40))
    rounds = [trial.proposal.round for trial in alone(at_once, control=False)]
    assert rounds == [6], "every cell is the same, and none of the first three is returned"


def test_a_training_that_fails_before_alphas_move_returns_no_cell(caplog):
    trials, rows = run(strategy(seeds=2, epochs=4, warmup_epochs=2, control=0), fails=diverges(0, 3))
    assert "seed 0, epoch 3: this training ends, diverged: loss is nan; it returns no cell, the others" in caplog.text
    assert [trial.proposal.round for trial in alone(trials, control=False)] == [4]
    fits = pd.DataFrame(rows)
    assert ends(fits, warmup=2) == [("seed 0", 3, "nan", False)]
    assert ends(fits) == [("seed 0", 3, "nan", True)]
    search = strategy(seeds=1, epochs=4, warmup_epochs=2)
    for index in range(3):
        trial = Trial(proposal=search.ask(1)[0])
        over = trial.fail(FailureKind.NAN, "loss is nan", log_index=index)
        search.tell([trial.complete(measured(trial.proposal), log_index=index) if index < 2 else over])
    assert (
        "no training of alphas has ended an epoch of theirs, all 1 failed in the first 3: diverged" in search.hopeless
    )


def test_a_search_that_stops_at_skips():
    trials, rows = run(strategy(seeds=2, epochs=12, control=0, stop_at_skips=2))
    for index, seed in enumerate(dict.fromkeys(phase.seed for phase in phases(trials))):
        own = [row for row in rows if row.get("seed_index") == index]
        assert own[-1]["alarm"] == "skips"
        assert all(not row["alarm"] for row in own[:-1])
        assert len(own) < 12
        assert len([phase for phase in phases(trials) if phase.seed == seed]) == len(own)
    derived = alone(trials, control=False)
    assert len(derived) == 2
    assert all(skips(SPACE, trial.genotype)["normal"] <= 2 for trial in derived)


def test_more_skips_from_the_first_epoch_on_return_the_cell_as_it_is():
    cells = drifting(0, 40)
    seen = [Seen(SPACE.derive(cells), cells)]
    (alarm,) = alarms(SPACE, seen, Rules())
    assert (alarm.rule, alarm.index) == ("skips", 0)


@pytest.mark.parametrize(("growth", "fires"), [(1.0, False), (1.05, False), (1.1, True)])
def test_the_rule_of_eigenvalues(growth, fires):
    """Means over five epochs: 1.1^-5 is 0.62, 1.05^-5 is 0.78."""
    seen = course(2 * WINDOW, lambda epoch: growth**epoch)
    found = [alarm for alarm in alarms(SPACE, seen, Rules(skips=8)) if alarm.rule == "eigenvalue"]
    assert [alarm.index for alarm in found] == ([WINDOW - 1] if fires else [])
    assert not alarms(SPACE, seen[:-1], Rules(skips=8)), "two windows are needed"


def fading(_seed, epoch):
    """Alphas that drift to `none`: its mass is above a half from the sixth epoch on."""
    normal, reduction = rng.child(0, "alphas").normal(0, 0.01, size=(2, 14, 8))
    normal[:, NONE] += 0.35 * epoch
    return [normal, reduction]


@pytest.mark.parametrize(("settings", "epochs"), [({}, 8), ({"stop_at_none": 0.5}, 6), ({"alarm_at_none": None}, 8)])
def test_a_drift_to_none_gives_an_alarm(settings, epochs, caplog):
    trials, rows = run(strategy(seeds=1, epochs=8, control=0, alarm_at_skips=8, **settings), alphas=fading)
    told = [row for row in rows if "alarm" in row]
    masses = [row["none_normal"] for row in told]
    assert masses[4] < 0.5 < masses[5]
    assert len(told) == epochs
    fires = "alarm_at_none" not in settings
    assert [row["alarm"] for row in told] == [""] * 5 + (["none"] if fires else [""]) * (epochs - 5)
    said = "seed 0, epoch 6: the rule of none fires; it would have returned the cell of epoch 5"
    assert (said in caplog.text) == fires
    if "stop_at_none" in settings:
        assert [trial.proposal.round for trial in alone(trials, control=False)] == [5]


def test_a_rule_that_fires_after_another_is_told_too():
    """The first one goes on firing: no row named the second, nor did the report."""
    _, rows = run(strategy(seeds=1, epochs=8, control=0, alarm_at_skips=0), alphas=fading)
    named = [row["alarm"] for row in rows if "alarm" in row]
    assert named[:5] == ["skips"] * 5, "skips from the first epoch on"
    assert named[5:] == ["none", "skips", "skips"]


def test_alphas_of_edges_are_no_operations():
    """With partial channels there is a column more, and it took its share of what `none` had."""
    plain = fading(0, 6)
    edges = [np.concatenate([alphas, np.full((14, 1), 9.0)], axis=1) for alphas in plain]
    for alphas in (plain, edges):
        seen = [Seen(SPACE.derive(plain), alphas)]
        assert [alarm.rule for alarm in alarms(SPACE, seen, Rules(skips=8, none=0.5))] == ["none"]


def test_how_many_skips_give_an_alarm_is_the_spaces_affair_unless_it_is_said():
    cells = NasBench201()
    alphas = np.zeros((6, 5))
    alphas[:3, cells.primitives.index("skip_connect")] = 3
    seen = [Seen(cells.derive([alphas]), [alphas])]
    for settings, fires in [({}, False), ({"alarm_at_skips": 2}, True), ({"stop_at_skips": 2}, True)]:
        search = Darts(cells, DartsConfig(alarm_at_none=None, **settings), 3, Fidelity())
        assert bool(alarms(cells, seen, search._trainings[0].rules)) == fires
    assert strategy()._trainings[0].rules == Rules(skips=2, none=0.5)


def test_a_pool_of_before_is_replayed_under_its_rules():
    """Its manifest has no such settings, and more cells than it asked for would be trained."""
    config = {"space": "nas_bench_201", "strategy": {"name": "darts", "seeds": 2}, "evaluator": {"name": "darts"}}
    completed = _completed(config)["strategy"]
    assert completed == {"alarm_at_skips": 2, "alarm_at_none": None, "name": "darts", "seeds": 2}
    del completed["name"]
    found = Darts(NasBench201(), DartsConfig(**completed), 3, Fidelity())._trainings[0].rules
    assert (found.skips, found.none) == (2, None)


def test_a_search_that_stops_by_eigenvalues():
    search = strategy(seeds=1, epochs=30, control=0, stop_at_eigenvalue=0.75, stop_at_skips=None)
    trials, rows = run(
        search, alphas=lambda seed, epoch: drifting(seed, 0), eigenvalue=lambda epoch: 1.0 if epoch < 12 else 5.0
    )
    assert {phase.kind for phase in phases(trials)} == {"alphas/second/eigenvalue"}
    ended = [row for row in rows if row.get("alarm") == "eigenvalue"]
    assert [row["round"] for row in ended] == [12]
    (derived,) = alone(trials, control=False)
    assert derived.proposal.round == 12 - WINDOW
