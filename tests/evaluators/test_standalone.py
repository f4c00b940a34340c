import json
import math
import weakref

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.parts import progress
from nao_ray.evaluators.standalone import Standalone
from nao_ray.limits import Limits
from nao_ray.networks.stacks import ImageStack
from nao_ray.search.executor import measure
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn import NaoCnn
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.tasks.fashion_mnist import FashionMnist, FashionMnistConfig
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training import cost
from nao_ray.trial import FailureKind, Fidelity, Proposal

SMALL = {"cells_per_stage": 1, "channels": 4, "epochs": 2, "recipe": {"name": "short_digits", "batch": 36}}


def evaluator(space=None, task=None, **settings):
    space = space or NaoCnnSmall(NaoCnnSmall.Config())
    task = task or Synthetic(SyntheticConfig(per_class=20, noise=0.2))
    return Standalone(space, task, Standalone.settings(space)(**{**SMALL, **settings}))


def proposal(space, k=0, **facts):
    return Proposal(genotype=space.sample(np.random.default_rng(k)), seed=k, **facts)


@pytest.mark.parametrize("space", [NaoCnn(NaoCnn.Config()), NaoCnnSmall(NaoCnnSmall.Config())], ids=lambda s: s.name)
def test_a_measurement_is_complete_and_repeats_in_any_evaluator(space):
    first = evaluator(space).evaluate(proposal(space))
    assert 0 <= first.valid_accuracy <= 1
    assert len(first.curve) == 2
    assert min(first.num_params, first.macs, first.wall_seconds, first.peak_memory_bytes) > 0
    other = evaluator(space)
    other.evaluate(proposal(space, 1))  # whatever was evaluated before
    again = other.evaluate(proposal(space))
    for fact in ("valid_accuracy", "valid_loss", "curve", "num_params", "macs"):
        assert getattr(again, fact) == getattr(first, fact)


def test_the_seed_names_weights_and_order():
    one = evaluator()
    genotype = one.space.sample(np.random.default_rng(0))
    losses = [one.evaluate(Proposal(genotype=genotype, seed=seed)).valid_loss for seed in (0, 1)]
    assert losses[0] != losses[1]


def test_a_proposals_own_settings_are_those_of_its_recipe():
    own = {"lr": 0.2, "drop_path_keep": 0.5}
    one, other = evaluator(), evaluator(recipe={**SMALL["recipe"], **own})
    usual = one.evaluate(proposal(one.space))
    changed = one.evaluate(proposal(one.space, settings=json.dumps(own)))
    assert changed.valid_loss != usual.valid_loss
    assert (changed.valid_loss, changed.curve) == (
        (there := other.evaluate(proposal(one.space))).valid_loss,
        there.curve,
    )
    assert one.evaluate(proposal(one.space)).valid_loss == usual.valid_loss
    with pytest.raises(ConfigError, match="did you mean lr"):
        one.evaluate(proposal(one.space, settings='{"lrr": 0.2}'))


def test_what_watches_is_told_of_every_epoch_but_the_last():
    one, told = evaluator(epochs=3), []
    one.watcher = told.append
    measured = one.evaluate(proposal(one.space))
    assert [len(so_far.curve) for so_far in told] == [1, 2]
    assert [so_far.curve for so_far in told] == [measured.curve[:1], measured.curve[:2]]
    assert [so_far.valid_accuracy for so_far in told] == list(measured.curve[:2])  # the recipe scores the last epoch
    assert {(so_far.num_params, so_far.macs) for so_far in told} == {(measured.num_params, measured.macs)}


def test_the_proposals_fidelity_counts():
    one = evaluator()
    small = one.evaluate(proposal(one.space))
    asked = Fidelity(epochs=1, size=(("cells_per_stage", 2), ("channels", 8)), data_share=0.5)
    large = one.evaluate(proposal(one.space, fidelity=asked))
    assert len(large.curve) == 1
    assert large.num_params > 2 * small.num_params
    assert [objective.num_train for objective in one._others.values()] == [36]
    assert Standalone.fidelity(Standalone.settings(NaoCnnSmall())(**SMALL)) == Fidelity(
        epochs=2, size=(("cells_per_stage", 1), ("channels", 4)), data_share=1.0
    )


@pytest.mark.parametrize("cls", [FileNotFoundError, ValueError, RuntimeError])
def test_data_that_cannot_be_loaded_are_no_architectures_fault(monkeypatch, cls):
    one = evaluator()
    monkeypatch.setattr(one.task, "load", lambda: (_ for _ in ()).throw(cls("gone")))
    failure = measure(one, proposal(one.space))
    assert failure.kind is FailureKind.ENVIRONMENT
    assert "gone" in failure.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_no_architectures_fault():
    one = evaluator(device="cuda")
    failure = measure(one, proposal(one.space))
    assert failure.kind is FailureKind.ENVIRONMENT
    assert "set it to auto, or workers.gpus to 1" in failure.message


class Kept:
    """Keeps the state of every epoch, and dies at the `at`-th."""

    def __init__(self, at=0):
        self.at, self.states = at, []

    def kept(self, proposal):
        return self.states[-1] if self.states else None

    def is_due(self):
        return True

    def keep(self, proposal, state):
        self.states.append(state)
        if len(self.states) == self.at:
            raise KeyboardInterrupt


LONGER = {"epochs": 3, "repeats": 2}
"""Two states of each, for the last epoch needs none."""


@pytest.fixture(scope="module")
def unbroken():
    """By settings, what comes of a trial whose worker lives."""
    found = {"longer": evaluator(**LONGER), "small": evaluator()}
    return {name: each.evaluate(proposal(each.space)) for name, each in found.items()}


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_trial_whose_worker_dies_goes_on_elsewhere_to_the_same_bit(at, unbroken):
    expected, first, second, kept = unbroken["longer"], evaluator(**LONGER), evaluator(**LONGER), Kept(at)
    first.keeper = kept
    with pytest.raises(KeyboardInterrupt):
        first.evaluate(proposal(first.space))
    kept.at = 0
    second.keeper = kept
    again = second.evaluate(proposal(second.space))
    assert len(kept.states) == 4
    for fact in ("valid_accuracy", "valid_loss", "curve", "num_params"):
        assert getattr(again, fact) == getattr(expected, fact)
    assert again.wall_seconds > 0


@pytest.mark.parametrize("state", [b"", b"no safetensors", "of another"])
def test_what_was_kept_of_something_else_is_not_used(state, unbroken, caplog):
    one, expected = evaluator(), unbroken["small"]
    one.keeper = kept = Kept()
    if state == "of another":
        one.evaluate(proposal(one.space, 1))
    else:
        kept.states = [state]
    again = one.evaluate(proposal(one.space))
    assert again.valid_loss == expected.valid_loss
    assert "begins anew, for what was kept of it cannot be used" in caplog.text


def test_repeats_are_averaged():
    one, three = evaluator(epochs=1), evaluator(epochs=1, repeats=3)
    asked = proposal(one.space, fidelity=Fidelity())
    seeds, mean = _seeds(three, asked)
    parts = [one._train(asked, seed) for seed in seeds]
    assert len({part.valid_loss for part in parts}) == len(parts) == 3
    assert mean.valid_accuracy == pytest.approx(np.mean([part.valid_accuracy for part in parts]))
    assert mean.valid_loss == pytest.approx(np.mean([part.valid_loss for part in parts]))
    assert mean.curve == pytest.approx(np.mean([part.curve for part in parts], axis=0))


def _seeds(evaluator, asked):
    """The seeds of the trainings that a proposal gets, and what comes of it."""
    seen = []
    train = evaluator._train
    evaluator._train = lambda proposal, seed, *_: (seen.append(seed), train(proposal, seed))[1]
    measured = evaluator.evaluate(asked)
    evaluator._train = train
    return seen, measured


def test_a_nan_ends_the_repeats_at_once():
    one = evaluator(repeats=3, recipe={"name": "short", "lr": 1e30, "clip_norm": None, "warmup_epochs": 0})
    seeds, measured = _seeds(one, proposal(one.space))
    assert math.isnan(measured.score)
    assert len(seeds) == 1


def test_auxiliary_head_is_trained_and_not_counted():
    plain, helped = evaluator(), evaluator(recipe={"name": "paper_search", "batch": 24})
    assert plain.evaluate(proposal(plain.space)).num_params == helped.evaluate(proposal(helped.space)).num_params
    assert helped._network(proposal(helped.space), 0, helped.config.recipe).auxiliary is not None
    assert plain._network(proposal(plain.space), 0, plain.config.recipe).auxiliary is None


def test_nothing_is_loaded_before_the_first_proposal(tmp_path):
    one = evaluator(task=FashionMnist(FashionMnistConfig(folder=str(tmp_path))))
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        one.evaluate(proposal(one.space))


def test_the_cache_is_emptied_when_nothing_holds_the_network_any_more(monkeypatch):
    """As long as the exception is being handled, its traceback holds what did not fit."""
    networks, alive = [], []

    def out_of_memory(network, *args, **kwargs):
        networks.append(weakref.ref(network))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(networks[-1]() is not None))
    monkeypatch.setattr("nao_ray.training.fit.fit", out_of_memory)
    one = evaluator()
    assert measure(one, proposal(one.space)).kind is FailureKind.OUT_OF_MEMORY
    assert alive == [False]


@pytest.mark.parametrize(("task", "on_cuda", "collected"), [(True, False, 1), (False, True, 1), (False, False, 0)])
def test_where_nothing_was_trained_nothing_is_collected(task, on_cuda, collected, monkeypatch):
    class Broken:
        has_task = task

        def evaluate(self, proposal):
            raise ValueError("not in the table")

    collections = []
    monkeypatch.setattr("gc.collect", lambda: collections.append(1))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: on_cuda)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert measure(Broken(), None).kind is FailureKind.ERROR
    assert len(collections) == collected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 3}, "multiple of 2"),
        ({"device": "gpu"}, "pattern"),
        ({"data_share": 0}, "greater than 0"),
        ({"epoch": 3}, "epoch"),
        ({"recipe": "none"}, "no recipe is named"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Standalone.settings(NaoCnnSmall())(**settings)


def test_a_cell_of_nas_bench_201_is_trained():
    space = NasBench201()
    genotype = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|")
    config = Standalone.settings(space)(cells_per_stage=1, channels=4, epochs=2, device="cpu")  # the published recipe
    task = Synthetic(SyntheticConfig(per_class=30))
    fidelity = Fidelity(epochs=2, size=(("cells_per_stage", 1), ("channels", 4)))
    proposal = Proposal(genotype=genotype, seed=3, fidelity=fidelity)
    first, again = (Standalone(space, task, config).evaluate(proposal) for _ in range(2))
    assert 0 <= first.valid_accuracy <= 1
    assert first.valid_accuracy == again.valid_accuracy
    assert len(first.curve) == 2
    assert first.num_params > 0


def test_a_network_is_counted_where_it_costs_nothing(monkeypatch):
    """On the meta device, and once for all trials of a genotype."""
    built, make = [], ImageStack.__init__

    def init(self, *given):
        built.append(torch.empty(0).device.type)
        make(self, *given)

    monkeypatch.setattr(ImageStack, "__init__", init)
    one = evaluator(epochs=1)
    genotype = one.space.sample(np.random.default_rng(411))
    measured = [one.evaluate(Proposal(genotype=genotype, seed=seed)) for seed in (0, 1)]
    assert built == ["cpu", "meta", "cpu"]
    assert measured[0].macs == measured[1].macs > 0


def test_what_is_kept_of_a_proposal_names_it_as_before_sizes_were_a_skeletons_own():
    sized = Fidelity(epochs=8, size=(("cells_per_stage", 3), ("channels", 16)), data_share=0.5)
    words = "epochs=8, cells_per_stage=3, channels=16, data_share=0.5, weights_version=None, valid_share=None"
    proposal = Proposal(genotype=Genotype("s", "0 1"), seed=3, fidelity=sized)
    assert progress._name(proposal, "cpu") == f"0 1, seed 3, Fidelity({words}), on cpu"


def test_what_breaks_a_limit_is_not_trained(monkeypatch):
    made = evaluator()
    asked = proposal(made.space)
    counts = made.skeleton.count(made.space.lower(asked.genotype), made.task.shapes, made.config.size)
    made.limits = Limits({"num_params": f"< {counts.num_params}", "latency_ms": "< 3"})
    assert made.figures(asked.genotype) == {"num_params": counts.num_params}
    monkeypatch.setattr(Standalone, "_train", None)  # would fail otherwise
    outcome = measure(made, asked)
    assert (outcome.kind, outcome.message.partition(" is ")[0]) == (FailureKind.LIMIT, "num_params")
    made.limits, made.times = Limits({"macs": f"<= {counts.macs}", "latency_ms": "< 3"}), True
    monkeypatch.setattr(cost, "latency_of_one", lambda *_: 3.5)
    outcome = measure(made, asked)
    assert (outcome.kind, outcome.message) == (FailureKind.LIMIT, "latency_ms is 3.5, the constraint is < 3")


def test_a_limited_latency_is_measured_and_recorded_and_changes_no_score():
    made = evaluator(epochs=1)
    plain = made.evaluate(proposal(made.space))
    made.limits, made.times = Limits({"latency_ms": "< 10k"}), True
    timed = made.evaluate(proposal(made.space))
    assert 0 < timed.latency_ms < 10_000
    assert (plain.latency_ms, plain.valid_loss) == (None, timed.valid_loss)
