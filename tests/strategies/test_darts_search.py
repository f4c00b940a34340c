"""DARTS' search without networks: who is asked what and when, what gives an alarm, and what the control may cost."""

import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from nao_ray import rng
from nao_ray.contracts.strategies import World
from nao_ray.errors import GenotypeError
from nao_ray.report.derived import ends
from nao_ray.service.hosting.manifest import _completed
from nao_ray.spaces.darts_cnn import PRIMITIVES, DartsCnn
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.darts import Darts, DartsConfig
from nao_ray.strategies.parts.alpha_watch import WINDOW, Rules, Seen, alarms, figures, skips, split
from nao_ray.trial import FailureKind, Fidelity, Measurement, Trial

SPACE = DartsCnn()
SKIP, NONE = PRIMITIVES.index("skip_connect"), PRIMITIVES.index("none")


def strategy(**settings):
    return Darts(SPACE, DartsConfig(**settings), 3, Fidelity(epochs=1))


def drifting(seed, epoch, *, by=0.5):
    """Alphas of a made-up collapse: the share of skip connections grows with the epochs, in normal cells alone."""
    normal, reduction = rng.child(seed, "alphas").normal(0, 0.3, size=(2, 14, 8))
    normal[:, SKIP] += by * (epoch - 4)
    return [normal, reduction]


def measured(proposal, alphas=drifting, *, seconds=10.0, eigenvalue=None):
    phase = proposal.phase
    if phase is None:
        score = 0.5 + 0.4 * rng.child(proposal.seed, "score").random()
        return Measurement(valid_accuracy=score, device_seconds=3.0)
    cells = alphas(phase.seed, phase.last_epoch)
    return Measurement(
        train_loss=1.0,
        derived_genotype=SPACE.derive(cells).key,
        alphas=tuple(np.concatenate([cell.ravel() for cell in cells]).tolist()),
        alpha_eigenvalue=None if eigenvalue is None else eigenvalue(phase.last_epoch),
        device_seconds=seconds,
    )


def run(search, width=2, log=(), until=10_000, fails=lambda _phase: None, **options):
    """To the end, so many at once, the oldest first; all trials by id, and the rows told.

    `fails`: the kind of failure of a phase.
    """
    search.restore(log)
    trials = {trial.trial_id: trial for trial in log}
    index = sum(trial.log_index is not None for trial in log)
    rows = list(search.diagnostics())
    while not search.done and index < until:
        running = [trial for trial in trials.values() if trial.log_index is None]
        for proposal in search.ask(width - len(running)) if len(running) < width else []:
            trials[proposal.trial_id] = Trial(proposal=proposal)
            running.append(trials[proposal.trial_id])
        assert running, "stuck"
        phase = running[0].proposal.phase
        kind = None if phase is None else fails(phase)
        ended = (
            running[0].fail(kind, f"loss is {kind}", log_index=index)
            if kind
            else running[0].complete(measured(running[0].proposal, **options), log_index=index)
        )
        trials[ended.trial_id] = ended
        index += 1
        search.tell([ended])
        rows += search.diagnostics()
    return list(trials.values()), rows


def phases(trials):
    return [trial.proposal.phase for trial in trials if trial.proposal.phase]


def alone(trials, *, control):
    return [t for t in trials if t.proposal.phase is None and (t.proposal.source_trial_id is None) == control]


def test_seeds_side_by_side_in_phases_of_an_epoch():
    trials, _ = run(strategy(seeds=2, epochs=3, order="exact"), width=2)
    first = phases(trials)
    assert [phase.version for phase in first[:4]] == ["s0-e00001", "s1-e00001", "s0-e00002", "s1-e00002"]
    assert {phase.kind for phase in first} == {"alphas/exact"}
    assert len({phase.seed for phase in first}) == 2
    for seed in {phase.seed for phase in first}:
        own = [phase for phase in first if phase.seed == seed]
        assert [(p.first_epoch, p.last_epoch) for p in own] == [(0, 1), (1, 2), (2, 3)]
        assert [p.source for p in own] == [None, *(p.version for p in own[:-1])]


def test_a_slow_seed_keeps_no_other_waiting():
    search = strategy(seeds=2, epochs=3, control=0)
    slow, fast = search.ask(10)
    for index in range(3):
        search.tell([Trial(proposal=fast).complete(measured(fast), log_index=index)])
        (fast,) = search.ask(10)
    assert fast.source_trial_id is not None, "its last cell is trained alone while the other is at its first epoch"
    assert slow.phase.last_epoch == 1


def test_a_cell_is_trained_alone_the_same_whichever_training_ends_first():
    """Its seed was that of its number: on two workers a score was 0.5 or 0.75, as the timing came out."""
    seeds = []
    for latest_first in (False, True):
        search, asked = strategy(seeds=2, epochs=2, control=2), []
        running = search.ask(2)
        for index in range(8):
            proposal = running.pop(-1 if latest_first else 0)
            outcome = measured(proposal, lambda seed, _epoch: drifting(seed, 0))
            search.tell([Trial(proposal=proposal).complete(outcome, log_index=index)])
            new = search.ask(1)
            running, asked = running + new, asked + new
        seeds.append({p.genotype.key: (p.seed, p.origin) for p in asked if p.phase is None})
    assert seeds[0] == seeds[1]
    assert sorted(str(origin) for _, origin in seeds[0].values()) == ["None", "None", "control", "control"]
    assert len({seed for seed, _ in seeds[0].values()}) == 4


def test_the_last_cell_of_each_seed_is_trained_alone():
    trials, _ = run(strategy(seeds=3, epochs=2, control=0), alphas=lambda seed, epoch: drifting(seed, 0))
    derived = alone(trials, control=False)
    assert len(derived) == 3
    by_id = {trial.trial_id: trial for trial in trials}
    for trial in derived:
        source = by_id[trial.proposal.source_trial_id]
        assert source.proposal.phase.last_epoch == trial.proposal.round == 2
        assert SPACE.canonical(source.derived) == trial.genotype
        assert trial.proposal.fidelity == Fidelity(epochs=1)


def test_two_seeds_of_one_cell_train_it_once():
    trials, _ = run(strategy(seeds=2, epochs=1, control=0), alphas=lambda _seed, epoch: drifting(0, epoch))
    assert len(alone(trials, control=False)) == 1


@pytest.mark.parametrize("width", [1, 3])
def test_the_control_costs_what_the_search_did(width):
    trials, rows = run(strategy(seeds=2, epochs=3), width=width, alphas=lambda seed, _: drifting(seed, 0))
    cells = alone(trials, control=True)
    assert {trial.proposal.origin for trial in cells} == {"control"}
    assert {trial.proposal.origin for trial in trials if trial not in cells} == {None}
    assert len(cells) == (2 * 3 * 10 + 2 * 3) // 3
    assert len({trial.genotype.key for trial in cells}) == len(cells)
    last = rows[-1]
    assert last["round"] == 4
    assert last["control_seconds"] <= last["search_seconds"] + last["derived_seconds"] < last["control_seconds"] + 3
    assert last["best_control"] == max(trial.score for trial in cells)
    assert last["best_derived"] == max(trial.score for trial in alone(trials, control=False))


def test_the_control_goes_on_beside_the_search_where_workers_are_idle():
    trials, _ = run(strategy(seeds=1, epochs=4), width=3)
    kinds = ["phase" if t.proposal.phase else "control" for t in sorted(trials, key=lambda t: t.log_index)[:8]]
    assert kinds.count("control") >= 3


def test_what_failed_without_a_measurement_has_cost_its_time():
    """A phase that ran out of memory after 30 s cost the search nothing, and the control had so much less."""
    counts = []
    for seconds in (0, 30):
        search, index = strategy(seeds=2, epochs=2), 0
        while not search.done:
            for proposal in search.ask(1):
                trial = Trial(proposal=proposal)
                began = datetime(2026, 1, 1, tzinfo=UTC)
                ended = (
                    trial.fail(
                        FailureKind.OUT_OF_MEMORY,
                        "no",
                        log_index=index,
                        started_at=began,
                        finished_at=began + timedelta(seconds=seconds),
                    )
                    if proposal.phase and proposal.phase.version == "s1-e00002"
                    else trial.complete(measured(proposal), log_index=index)
                )
                search.tell([ended])
                index += 1
        last = search.diagnostics()[-1]
        assert last["search_seconds"] == 30 + seconds
        assert last["control_seconds"] <= 30 + seconds + last["derived_seconds"] < last["control_seconds"] + 3
        counts.append(last["num_control"])
    assert counts[1] == counts[0] + 10


@pytest.mark.parametrize(("most", "expected"), [(0, 0), (2, 2)])
def test_a_control_of_fewer(most, expected):
    trials, _ = run(strategy(seeds=1, epochs=3, control=most))
    assert len(alone(trials, control=True)) == expected


@pytest.mark.parametrize("times", [{"wall_seconds": 1e-4}, {"wall_seconds": 0.0, "device_seconds": 0.0}])
def test_a_control_that_costs_nothing_is_as_large_as_what_was_found(times):
    """A table without times: there were as many random cells as the search pays for in the time of a look; one whose
    times are 0: they never ended."""
    free = Measurement(valid_accuracy=0.5, device="table", **times)
    search, index = strategy(seeds=3, epochs=1), 0
    while not search.done:
        assert index < 100
        for proposal in search.ask(1):
            ended = Trial(proposal=proposal).complete(measured(proposal) if proposal.phase else free, log_index=index)
            search.tell([ended])
            index += 1
    rows = search.diagnostics()
    assert rows[-1]["num_control"] == rows[-1]["num_derived"] == 3


def test_control_cells_that_fail_end_it():
    """Of an unknown price one is tried; of a known one a failure costs as much."""
    search, index = strategy(seeds=1, epochs=1), 0
    while not search.done:
        for proposal in search.ask(1):
            trial = Trial(proposal=proposal)
            ended = (
                trial.fail(FailureKind.ERROR, "no", log_index=index)
                if proposal.phase is None
                else (trial.complete(measured(proposal), log_index=index))
            )
            search.tell([ended])
            index += 1
    assert index == 3


# -- what is watched ------------------------------------------------------------------------------------------------


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


# -- trainings that fail --------------------------------------------------------------------------------------------


def diverges(training, epoch, kind=FailureKind.NAN):
    """A training fails in an epoch, counted from 1."""
    return lambda phase: kind if phase.version == f"s{training}-e{epoch:05d}" else None


def test_a_training_that_diverges_ends_alone(caplog):
    trials, rows = run(strategy(seeds=3, epochs=4, control=2), width=3, fails=diverges(1, 3))
    counts = [sum(phase.version.startswith(f"s{seed}-") for phase in phases(trials)) for seed in range(3)]
    assert counts == [4, 3, 4], "the others go on"
    (ended,) = [row for row in rows if row.get("ended")]
    assert (ended["round"], ended["seed_index"], ended["ended"]) == (3, 1, "nan")
    assert ended["weights_version"] == "s1-e00003"
    by_id = {trial.trial_id: trial for trial in trials}
    sources = [by_id[trial.proposal.source_trial_id].proposal.phase.version for trial in alone(trials, control=False)]
    assert "s1-e00002" in sources, "its last good cell is what it returns"
    assert len(alone(trials, control=True)) == 2
    assert rows[-1]["num_derived"] == len(sources)
    said = [record.message for record in caplog.records if record.message.startswith("seed 1")]
    assert said == [
        "seed 1, epoch 3: this training ends, diverged: loss is nan; it returns the cell of epoch 2, the others go on; "
        "to avoid it lower evaluator.recipe.lr, evaluator.recipe.clip_norm or evaluator.alphas.lr"
    ]
    caplog.clear()
    strategy(seeds=3, epochs=4, control=2).restore(trials)
    assert not caplog.records, "a resume does not say again what was said"


@pytest.mark.parametrize("kind", [FailureKind.OUT_OF_MEMORY, FailureKind.ERROR, FailureKind.LOST])
def test_so_does_one_that_fails_otherwise(kind, caplog):
    trials, rows = run(strategy(seeds=2, epochs=3, control=0), fails=diverges(0, 2, kind))
    assert len(phases(trials)) == 2 + 3
    assert [row["ended"] for row in rows if row.get("ended")] == [kind.value]
    assert f"seed 0, epoch 2: this training ends, {kind.value}: loss is {kind}" in caplog.text


def test_when_all_have_failed_what_they_came_to_is_trained(caplog):
    trials, rows = run(strategy(seeds=2, epochs=3, control=1), fails=lambda phase: phase.last_epoch > 1 and "nan")
    assert len(phases(trials)) == 4
    assert 1 <= len(alone(trials, control=False)) <= 2
    assert rows[-1]["num_control"] == 1
    assert "all 2 trainings have ended before their last epoch" in caplog.text


def test_when_none_has_come_to_a_cell_the_search_ends_with_a_line():
    settings = {"seeds": 2, "epochs": 3}
    search, log = strategy(**settings), []
    for index, proposal in enumerate(search.ask(5)):
        log.append(Trial(proposal=proposal).fail(FailureKind.NAN, "loss is nan", log_index=index))
        search.tell([log[-1]])
        assert not search.done
    resumed = strategy(**settings)
    resumed.restore(log)
    assert search.hopeless is not None
    for each in (search, resumed):
        assert each.ask(1) == []
        assert "all 2 failed in their first: diverged: loss is nan; lower evaluator" in each.hopeless
        assert [row["ended"] for row in each.diagnostics()] == ["nan", "nan"]


def test_random_cells_that_still_run_are_waited_for():
    search = strategy(seeds=1, epochs=2)
    (first,) = search.ask(1)
    search.tell([Trial(proposal=first).fail(FailureKind.NAN, "loss is nan", log_index=0)])
    assert search.hopeless is not None
    search.num_asked += 1  # something of its own runs
    assert search.ask(1) == []
    assert search.hopeless is None


def test_an_alarm_is_told_when_its_own_training_is_there():
    """However slow the others are."""
    search = strategy(seeds=2, epochs=12, control=0)
    _slow, fast = search.ask(2)
    for index in range(11):
        search.tell([Trial(proposal=fast).complete(measured(fast), log_index=index)])
        (row,) = search.diagnostics()
        assert (row["seed_index"], row["round"]) == (1, index + 1)
        (fast,) = search.ask(1)
    assert row["alarm"] == "skips"


# -- replay ---------------------------------------------------------------------------------------------------------

SETTINGS = [
    {"seeds": 2, "epochs": 3},
    {"seeds": 3, "epochs": 9, "stop_at_skips": 2, "control": 4},
    {"seeds": 1, "epochs": 2, "control": 0},
]
FAILS = [lambda _phase: None, diverges(1, 2), diverges(0, 1)]


@pytest.mark.parametrize(
    ("settings", "fails"), [(SETTINGS[0], FAILS[1]), (SETTINGS[1], FAILS[2])] + [(each, FAILS[0]) for each in SETTINGS]
)
@pytest.mark.parametrize("width", [1, 3])
def test_broken_anywhere_it_goes_on_as_unbroken(settings, fails, width):
    whole, rows = run(strategy(**settings), width=width, fails=fails)
    for finished in range(len(whole)):
        log = [
            trial if trial.log_index < finished else Trial(proposal=trial.proposal)
            for trial in whole
            if trial.proposal.asked_after <= finished
        ]
        again, told = run(strategy(**settings), width=width, log=log, fails=fails)
        assert again == whole, finished
        assert told == rows, "all rows are told again, and kept once"


def test_planned_is_what_was_asked_in_the_end():
    search = strategy(seeds=2, epochs=3)
    trials, _ = run(search)
    assert search.planned == len(trials)


@pytest.mark.parametrize(("most", "controls"), [(None, 8), (3, 3)])
def test_planned_before_any_cell_was_trained_alone(most, controls):
    """Epochs, a cell for each seed, and a control that takes as long as both, at the price of an epoch each."""
    search = strategy(seeds=2, epochs=3, control=most)
    assert search.planned == 2 * 3 + 2 + controls
    (first, _second) = search.ask(2)
    search.tell([Trial(proposal=first).complete(measured(first), log_index=0)])
    assert search.planned == 2 * 3 + 2 + controls


def test_the_worlds_of_the_contract_have_alphas_for_it():
    world = World(strategy(seeds=1, epochs=1), width=1)
    world.advance(3)
    assert world.trials[0].measurement.alphas is not None


def test_a_phase_that_tells_no_alphas_is_an_error():
    search = strategy(seeds=1, epochs=1)
    (proposal,) = search.ask(1)
    with pytest.raises(GenotypeError, match="told no alphas"):
        search.tell([Trial(proposal=proposal).complete(Measurement(train_loss=1.0), log_index=0)])
