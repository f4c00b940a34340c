"""DARTS' search without networks: who is asked what and when, what the control may cost, what becomes of failures."""

from datetime import UTC, datetime, timedelta

import pytest
from _darts_search import SPACE, alone, diverges, drifting, measured, phases, run, strategy

from nao_ray.contracts.strategies import World
from nao_ray.errors import GenotypeError
from nao_ray.trial import FailureKind, Fidelity, Measurement, Trial


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


# -- trainings that fail --------------------------------------------------------------------------------------------


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
