"""DARTS end to end in this process: alphas trained, cells derived and trained alone, killed and gone on with."""

from dataclasses import replace
from unittest.mock import ANY

import pytest
import torch
from _stand_in import MemoryPool

from nao_ray import rng
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError, RunError
from nao_ray.evaluators.darts import Darts
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Desk, SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.tolerance import Tolerance
from nao_ray.search.trouble import Limits
from nao_ray.service.hosting import checks
from nao_ray.strategies.parts.alpha_watch import split
from nao_ray.training.alternating import Alternating
from nao_ray.training.augment import augment
from nao_ray.training.checkpoint import unpack_version
from nao_ray.trial import Fidelity, Proposal, Trial, TrialState

CONFIG = """
name: darts
space: darts_cnn
task: {name: synthetic, classes: 2, per_class: 20}
evaluator:
  name: darts
  layers: 1
  channels: 2
  period: 2
  recipe: {name: darts_search, batch: 8, crop_padding: 1, flip: false}
  alone: {layers: 1, channels: 2, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 16}}
strategy: {name: darts, seeds: 2, epochs: 2, order: first, control: 1}
budget: {trials: 100}
"""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config():
    return RunConfig.parse(CONFIG)


def search(config, pool):
    log = pool.log()
    executor = SerialExecutor(config.make_evaluator(), weights=pool)
    bears = Tolerance(limits=Limits(bears_failed_phases=config.bears_failed_phases))
    SearchLoop(pool, LocalProposer(config.make_strategy(), log), executor, Budget(trials=100), tolerance=bears).run(log)


@pytest.fixture(scope="module")
def unbroken(config):
    pool = MemoryPool()
    search(config, pool)
    return pool


def facts(pool):
    """All but the times."""
    times = {"wall_seconds": None, "device_seconds": None, "peak_memory_bytes": None}
    return [
        (trial.proposal, trial.state, replace(trial.measurement, **times))
        for trial in sorted(pool.finished, key=lambda trial: trial.trial_id)
    ]


def test_a_search_ends_with_cells_that_were_trained_alone(config, unbroken):
    space = config.make_space()
    trials = sorted(unbroken.finished, key=lambda trial: trial.trial_id)
    assert all(trial.state is TrialState.COMPLETED for trial in trials)
    phases = [trial for trial in trials if trial.proposal.phase]
    assert [trial.proposal.phase.version for trial in phases] == ["s0-e00001", "s1-e00001", "s0-e00002", "s1-e00002"]
    for trial in phases:
        assert len(trial.measurement.alphas) == 2 * 14 * 8
        space.validate(trial.derived)
        state, epochs = unpack_version(unbroken.weights[trial.proposal.phase.version])
        kept = torch.cat([state[f"alphas.{index}"].reshape(-1) for index in range(2)])
        assert tuple(kept.double().tolist()) == trial.measurement.alphas
        assert epochs == trial.proposal.phase.last_epoch
    assert len({trial.measurement.alphas for trial in phases}) == 4
    alone = [trial for trial in trials if not trial.proposal.phase]
    assert 2 <= len(alone) <= 3
    assert all(0 <= trial.score <= 1 for trial in alone)
    rows = [row for row in unbroken.fits if "skips_normal" in row]
    assert [(row["round"], row["seed_index"]) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert unbroken.fits[-1]["num_control"] == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("steps", [4, 5, 7])
def test_killed_anywhere_in_an_epoch_it_goes_on_as_unbroken(config, unbroken, steps, monkeypatch):
    """Before the first step, after it and before the last one of the third epoch, of two or more steps each."""
    pool, left, compute = MemoryPool(), steps, Alternating.compute

    def killed(self, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return compute(self, *arguments)

    monkeypatch.setattr(Alternating, "compute", killed)
    with pytest.raises(Killed):
        search(config, pool)
    monkeypatch.setattr(Alternating, "compute", compute)
    search(config, pool)
    assert facts(pool) == facts(unbroken)
    assert pool.weights == unbroken.weights


def test_phases_one_by_one_are_one_training(config):
    evaluator = config.make_evaluator()
    phase = config.make_strategy().ask(1)[0]
    longer = replace(phase, phase=replace(phase.phase, last_epoch=2))
    pool = MemoryPool()
    desk = Desk(evaluator, pool)
    first, pool.weights["s0-e00001"] = desk.work(phase)
    second = replace(phase, phase=replace(phase.phase, version="b", source="s0-e00001", first_epoch=1, last_epoch=2))
    found, weights = desk.work(second)
    whole, expected = desk.work(longer)
    assert weights == expected
    assert found.alphas == whole.alphas
    assert whole.curve == (*first.curve, *found.curve)


def test_an_eigenvalue_where_it_is_asked_for(config):
    asked = config.make_strategy().ask(1)[0]
    phase = replace(asked.phase, kind="alphas/first/eigenvalue")
    measured, _ = Desk(config.make_evaluator(), MemoryPool()).work(replace(asked, phase=phase))
    assert measured.alpha_eigenvalue != 0
    assert measured.alpha_eigenvalue is not None


def test_partial_channels_have_alphas_of_edges_too():
    given = CONFIG.replace("channels: 2\n  period", "channels: 4\n  partial_channels: 2\n  period")
    config = RunConfig.parse(given)
    strategy = config.make_strategy()
    (asked, *_) = strategy.ask(1)
    measured, _ = Desk(config.make_evaluator(), MemoryPool()).work(asked)
    alphas = split(config.make_space(), measured.alphas)
    assert [alpha.shape for alpha in alphas] == [(14, 9), (14, 9)]
    assert measured.derived_genotype == config.make_space().derive(alphas).key
    strategy.tell([Trial(proposal=asked).complete(measured, log_index=0)])


def test_alphas_stay_while_the_weights_warm_up():
    changes = {"strategy.warmup_epochs": 1, "strategy.seeds": 1, "strategy.control": 0}
    config = RunConfig.parse(CONFIG, [f"{key}={value}" for key, value in changes.items()])
    pool = MemoryPool()
    search(config, pool)
    first, second = (trial for trial in pool.finished if trial.proposal.phase)
    assert [trial.proposal.phase.kind for trial in (first, second)] == ["alphas/none", "alphas/first"]
    draw = rng.torch_generator(first.proposal.training_seed, "first alphas")
    begun = torch.cat([(1e-3 * torch.randn(14, 8, generator=draw)).flatten() for _ in range(2)])
    assert first.measurement.alphas == tuple(begun.double().tolist())
    assert all(a != b for a, b in zip(first.measurement.alphas, second.measurement.alphas, strict=True))
    kept = [unpack_version(pool.weights[name])[0] for name in ("s0-e00001", "s0-e00002")]
    fresh = config.make_evaluator()._trainer(first.proposal.training_seed, "first").network.state_dict()
    moved = [not torch.equal(fresh[name], kept[0][f"network.{name}"]) for name in fresh if "conv" in name]
    assert all(moved), "the weights do not"
    assert len([trial for trial in pool.finished if not trial.proposal.phase]) == 1


def test_phases_of_other_kinds_and_lengths_are_refused(config):
    desk, asked = Desk(config.make_evaluator(), MemoryPool()), config.make_strategy().ask(1)[0]
    for changes, says in [
        (
            {"kind": "paths"},
            "darts trains alphas/ORDER, of first, second, exact, none, not paths; give the strategy darts",
        ),
        ({"kind": "alphas/third"}, "not alphas/third"),
        ({"last_epoch": 3}, "ends with epoch 3, and the learning rate's cosine with 2: give evaluator.period as"),
    ]:
        failure, weights = desk.work(replace(asked, phase=replace(asked.phase, **changes)))
        assert says in failure.message
        assert weights is None


def test_weights_of_other_supernets_are_refused(config):
    wide = RunConfig.parse(CONFIG.replace("channels: 2\n  period", "channels: 4\n  period"))
    pool, asked = MemoryPool(), config.make_strategy().ask(1)[0]
    _, pool.weights["s0-e00001"] = Desk(config.make_evaluator(), pool).work(asked)
    second = replace(asked, phase=replace(asked.phase, version="b", source="s0-e00001", first_epoch=1, last_epoch=2))
    with pytest.raises(
        PoolError, match=r"weights s0-e00001 are not of this supernet \(darts_cnn, relaxed, L = 1, C = 4"
    ):
        Desk(wide.make_evaluator(), pool).work(second)


def test_no_architecture_is_scored_with_them(config):
    asked, pool = config.make_strategy().ask(1)[0], MemoryPool()
    pool.weights["v"] = b""
    with pytest.raises(ConfigError, match="weights v are of a relaxed supernet, with which no single architecture"):
        Desk(config.make_evaluator(), pool).work(
            Proposal(genotype=asked.genotype, fidelity=Fidelity(weights_version="v"))
        )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("space: darts_cnn", "space: nao_cnn_small", "space nao_cnn_small has no relaxed supernet; darts_cnn, "),
        ("strategy: {name: darts,", "strategy: {name: enas} #", "strategy enas trains paths, and the evaluator darts"),
        ("strategy: {name: darts,", "strategy: {name: random_search} #", "strategy random_search trains none"),
        ("name: darts\n  layers: 1\n  channels: 2\n  period: 2", "name: standalone", "take the evaluator darts"),
        ("{name: darts_search,", "{name: darts_search, dropout: 0.1,", "a relaxed supernet has none of it; give 0"),
        ("{name: darts_search,", "{name: darts_search, precision: bfloat16,", "a relaxed supernet trains in float32"),
        ("{name: darts_search,", "{name: darts_search, drop_path_keep: 0.9,", "drop_path_keep: a relaxed supernet has"),
        ("{name: darts_search,", "{name: darts_search, cosine_epochs: 3,", "the cosine is the evaluator's period"),
        ("order: first", "order: third", "order"),
        ("epochs: 2, order", "epochs: 3, order", "strategy.epochs is 3, and the cosine of the learning rate ends with"),
        ("channels: 2\n  period", "channels: 3\n  period", "channels"),
        ("2\n  period", "2\n  partial_channels: 4\n  period", "partial_channels 4: 2 channels cannot be cut so; give"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(old, new, says):
    text = CONFIG.replace(old, new)
    if "standalone" in new:
        text = text.replace("  recipe: {name: darts_search, batch: 8, crop_padding: 1, flip: false}\n", "")
        text = "\n".join(line for line in text.splitlines() if "alone:" not in line)
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# -- trainings that fail --------------------------------------------------------------------------------------------


def breaking(config, monkeypatch, how, *, epoch=2):
    """What the first training's steps of an epoch, counted from 1, come to: a loss, or an exception."""
    seed = config.make_strategy().ask(1)[0].training_seed
    compute, make = Alternating.compute, Darts._trainer

    def marked(self, training_seed, order):
        trainer = make(self, training_seed, order)
        trainer.is_first = training_seed == seed
        return trainer

    def broken(self, *arguments):
        loss = compute(self, *arguments)
        return how(loss) if self.is_first and self.epochs_done == epoch - 1 else loss

    monkeypatch.setattr(Darts, "_trainer", marked)
    monkeypatch.setattr(Alternating, "compute", broken)


def nan(loss):
    return loss * float("nan")


def broken_network(_loss):
    raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("how", [nan, broken_network], ids=["nan", "error"])
def test_a_training_that_fails_ends_alone(config, unbroken, how, monkeypatch):
    breaking(config, monkeypatch, how)
    pool = MemoryPool()
    search(config, pool)
    found = {trial.proposal.phase.version: trial for trial in pool.finished if trial.proposal.phase}
    assert {name for name, trial in found.items() if trial.state is TrialState.FAILED} == {"s0-e00002"}
    whole = {trial.proposal.phase.version: trial for trial in unbroken.finished if trial.proposal.phase}
    for name in ("s0-e00001", "s1-e00001", "s1-e00002"):
        assert found[name].measurement.alphas == whole[name].measurement.alphas, "what was good stays, the others go on"
    failed = found["s0-e00002"].measurement
    assert failed is None or (failed.derived_genotype, failed.alphas, failed.device_seconds) == (None, None, ANY)
    assert "s0-e00002" not in pool.weights, "weights that diverged are no version"
    alone = [trial for trial in pool.finished if trial.proposal.phase is None]
    assert found["s0-e00001"].trial_id in [trial.proposal.source_trial_id for trial in alone], "its last good cell"
    (ended,) = [row for row in pool.fits if "ended" in row]
    assert (ended["round"], ended["ended"]) == (2, "nan" if how is nan else "error")
    again = MemoryPool()
    again.asked, again.attempts, again.weights = dict(pool.asked), list(pool.attempts), dict(pool.weights)
    again.finished = list(pool.finished)
    search(config, again)
    assert len(again.finished) == len(pool.finished), "a resume has nothing left to do"


def test_where_none_comes_to_anything_the_search_ends_in_a_line(monkeypatch):
    config = RunConfig.parse(CONFIG.replace("name: darts_search,", "name: darts_search, lr: 1.0e+30,"))
    pool = MemoryPool()
    for _ in range(2):  # begun, and gone on with
        with pytest.raises(RunError, match=r"all 2 failed in their first: diverged: loss is nan; lower eval"):
            search(config, pool)
    assert len(pool.finished) == 2
    told = {(row["seed_index"], row["round"], row["ended"]) for row in pool.fits}
    assert told == {(0, 1, "nan"), (1, 1, "nan")}, "before it ends: neither pool nor report had the last"


def test_the_supernet_is_scored_as_the_authors_do(config):
    """On the alphas' half, augmented, mixed by the alphas, with running statistics."""
    evaluator = config.make_evaluator()
    pool, asked = MemoryPool(), config.make_strategy().ask(1)[0]
    measured, weights = Desk(evaluator, pool).work(asked)
    halves = evaluator._objective().cut(rng.torch_generator(asked.training_seed, "halves"))
    trainer = evaluator._trainer(asked.training_seed, "first")
    trainer.restore({**unpack_version(weights)[0], "step": torch.tensor(trainer.objective.steps)})
    drawing = rng.torch_generator(asked.training_seed, "score of the supernet", 1, "cpu")
    half = halves[1]
    images = augment(half.train.images[half.rows], drawing, half.normaliser, half.recipe)
    trainer.network.eval()
    with torch.no_grad():
        found = trainer.network(images, trainer.alphas).argmax(1)
    assert measured.supernet_score == (found == half.train.labels[half.rows]).double().mean().item()
    silent = evaluator.config.model_copy(update={"score_supernet": False})
    without, same = Desk(Darts(evaluator.space, evaluator.task, silent), pool).work(asked)
    assert without.supernet_score is None
    assert same == weights, "a score changes nothing"


# -- what is said at the start --------------------------------------------------------------------------------------


def test_a_cosine_that_does_not_come_to_its_end_is_told(config, caplog):
    checks._warn_of_cosine(config)
    assert not caplog.messages
    checks._warn_of_cosine(RunConfig.parse(CONFIG.replace("epochs: 2, order", "epochs: 1, order")))
    assert caplog.messages == [
        "strategy.epochs is 1, and the cosine of the learning rate ends with epoch 2: it stays high, unless "
        "evaluator.period is 1"
    ]


def test_a_budget_that_ends_before_the_cells_are_found_is_told(config, caplog):
    """Epochs count, each of each seed."""
    for trials, said in [(4, "ends this search before its cells are found: each epoch of each seed"), (5, "early")]:
        caplog.clear()
        less = RunConfig.parse(CONFIG.replace("trials: 100", f"trials: {trials}"))
        checks._warn_of_budget(less, less.make_strategy())
        assert said in caplog.text


@pytest.mark.parametrize(("batch", "is_odd"), [(18, False), (19, True)])
def test_a_batch_larger_than_a_part_is_told(batch, is_odd):
    """Of 40 images 36 train."""
    evaluator = RunConfig.parse(CONFIG.replace("batch: 8", f"batch: {batch}")).make_evaluator()
    said = "evaluator.recipe.batch is 19, and the weights have 18 training examples: an epoch is a single step"
    assert (said in evaluator.facts().odd) == is_odd
