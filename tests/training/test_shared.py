"""Shared weights: a step by hand, exact resume, samplers, and scores that leave everything as it was."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from nao_ray import registry, rng
from nao_ray.errors import DataError
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.checkpoint import pack, pack_version, unpack, unpack_version
from nao_ray.training.objective import WHOLE, Shard
from nao_ray.training.recipe import Recipe
from nao_ray.training.sampling import PathSampler
from nao_ray.training.schedule import Period, period
from nao_ray.training.streams import ByStep
from nao_ray.training.trainer import Trainer
from tests.networks.building import reached, supernet


def _graphs(space):
    return [space.lower(space.sample(rng.child(0, "shared pool", index))) for index in range(6)]


SPACE = registry.load("space", "nas_bench_201")()  # the smallest shared weights, a sixth of the time
GRAPHS = _graphs(SPACE)
WITH_HEAD = registry.load("space", "nao_cnn_small")()  # an auxiliary one
SETTINGS = {"crop_padding": 1, "flip": False, "batch": 24, "dropout": 0.1, "auxiliary_weight": 0.4}
RECIPE = Recipe(name="paper_shared", lr=0.1, **SETTINGS)


@pytest.fixture(scope="module")
def data():
    return Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), RECIPE)


def _net(space=SPACE, auxiliary=True, **settings):
    small = {"network": "small", "cells_per_stage": 1, "channels": 4, "num_classes": 4, "drop_path": 0.1}
    with rng.torch_seeded(0, "shared weights"):
        return supernet.build(space, auxiliary=auxiliary, **{**small, **settings})


def _trainer(data, recipe=RECIPE, graphs=GRAPHS, *, net=None, period=4, seed=3, shard=WHOLE, averager=None):
    """Draws evenly from `graphs`; those drawn are its `drawn`."""
    recipe = recipe.model_copy(update={"cosine_epochs": period, "restart_factor": 1})
    streams, sampler, drawn = ByStep(seed, data.device, shard.rank), PathSampler(graphs), []

    def choose(step):
        drawn.append(sampler.draw(rng.child(seed, streams.purpose("sampled genotype"), step), step))
        return drawn[-1]

    objective = data.under(recipe, shard=shard)
    trainer = Trainer(net or _net(), objective, epochs=None, streams=streams, choose=choose, averager=averager)
    trainer.drawn = drawn
    return trainer


def _state(trainer):
    return {name: value.clone() for name, value in trainer.state().items()}


def _scores(trainer, graphs=GRAPHS, batch=500, count=16):
    order = rng.torch_generator(3, "one-shot validation")
    return trainer.objective.compare(trainer.network, graphs, order, batch=batch, count=count)


def _equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.fixture(scope="module")
def unbroken(data):
    """Losses and state of a training of three epochs."""
    whole = _trainer(data)
    return [whole.epoch() for _ in range(3)], _state(whole)


@pytest.mark.parametrize("after", [1, 6, 7, 13])
def test_a_resumed_training_is_the_unbroken_one(data, unbroken, after):
    """After that many steps of 18, at the end of an epoch and within one."""
    losses, whole = unbroken
    first = _trainer(data)
    for _ in range(after):
        first.step()
    _scores(first)  # whatever is done in between
    state = pack(first.state())
    torch.rand(7)
    second = _trainer(data)
    second.restore(unpack(state))
    assert second.steps_done == after
    rest = [second.epoch() for _ in range(3 - second.epochs_done)]
    assert rest == losses[-len(rest) :]
    assert _equal(whole, _state(second))


def test_another_seed_is_another_training(data, unbroken):
    assert _trainer(data, seed=4).epoch() != unbroken[0][0]


def test_a_version_holds_a_training_at_the_end_of_an_epoch(data):
    trainer, again = _trainer(data), _trainer(data)
    trainer.epoch()
    state, epochs = unpack_version(pack_version(trainer.state(), trainer.epochs_done))
    assert epochs == 1
    again.restore({**state, "step": torch.tensor(trainer.steps_done)})
    assert again.epoch() == trainer.epoch()
    assert _equal(_state(trainer), _state(again))


@pytest.mark.parametrize("name", ["nao_cnn_small", "nao_cnn_middle", "enas_micro", "enas_macro"])
def test_every_supernet_is_trained(data, name):
    space = registry.load("space", name)()
    graphs, net = _graphs(space), _net(space)
    trainer = _trainer(data, graphs=graphs, net=net)
    before = _state(trainer)
    assert math.isfinite(trainer.epoch())
    used = set().union(*(reached(net, torch.rand(4, 1, 8, 8), graph) for graph in trainer.drawn))
    assert {key for key, value in net.named_parameters() if not torch.equal(value, before[f"network.{key}"])} == used
    assert all(value.grad is None for value in net.parameters())
    after = _state(trainer)
    scores = _scores(trainer, graphs)
    assert _equal(after, _state(trainer))
    assert len({score.loss for score in scores}) == len(graphs)


def test_it_learns_and_ranks(data):
    recipe = RECIPE.model_copy(update={"batch": 12, "auxiliary_weight": 0.0})
    trainer = _trainer(data, recipe, period=20)
    losses = [trainer.epoch() for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    scores = _scores(trainer)
    assert all(score.value > 0.6 for score in scores)
    assert len({score.loss for score in scores}) == len(GRAPHS)


def test_one_step_is_the_textbooks(data):
    """Clipped gradients, weight decay and momentum against torch's optimiser; other weights stay."""
    recipe = Recipe(**{**SETTINGS, "name": "paper_shared", "crop_padding": 0, "dropout": 0.0, "clip_norm": 0.5})
    graphs = _graphs(WITH_HEAD)
    for nesterov in (False, True):
        recipe = recipe.model_copy(update={"nesterov": nesterov})
        turns = [graphs[0], graphs[1], graphs[0]]
        ours, plain = _trainer(data, recipe, net=_net(WITH_HEAD)), _net(WITH_HEAD).train()
        ours._choose = lambda step: turns[step]  # noqa: B023
        batches = data.under(recipe).batches(ByStep(3, data.device).order(0))
        optimiser = torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=3e-4, nesterov=nesterov)
        for net in (ours.network, plain):
            net.config = net.config.__class__(**{**_fields(net.config), "drop_path": 0.0})
        before = {name: value.detach().clone() for name, value in plain.named_parameters()}
        used = set()
        for step, graph in enumerate(turns):
            ours.step()
            images, labels = next(batches)
            optimiser.zero_grad(set_to_none=True)
            main, auxiliary = plain(data.normaliser(images), graph)
            loss = nn.functional.cross_entropy(main, labels) + 0.4 * nn.functional.cross_entropy(auxiliary, labels)
            loss.backward()
            assert nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5
            total = 4 * ours.objective.steps
            rate = 0.001 + 0.5 * (0.025 - 0.001) * (1 + math.cos(math.pi * (step + 0.5) / total))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            used |= {name for name, value in plain.named_parameters() if value.grad is not None}
        for (name, value), other in zip(ours.network.named_parameters(), plain.parameters(), strict=True):
            assert value.grad is None
            assert torch.allclose(value, other, rtol=1e-4, atol=1e-6), name
            assert torch.equal(value, before[name]) == (name not in used), name


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_periods():
    assert [period(epoch, 10, 2) for epoch in (0, 9, 10, 29, 30, 69, 70)] == [
        Period(0, 10), Period(0, 10), Period(10, 20), Period(10, 20), Period(30, 40), Period(30, 40), Period(70, 80)
    ]  # fmt: skip
    assert period(149, 50) == Period(100, 50)


def test_the_sampler_follows_its_weights():
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0]
    drawn = Counter(
        id(PathSampler(GRAPHS, weights).draw(rng.child(1, "sampled genotype", step), step)) for step in range(4000)
    )
    even = Counter(id(PathSampler(GRAPHS).draw(rng.child(1, "sampled genotype", step), step)) for step in range(4000))
    for graph, weight in zip(GRAPHS, weights, strict=True):
        assert drawn[id(graph)] / 4000 == pytest.approx(weight / 20, abs=0.03)
        assert even[id(graph)] / 4000 == pytest.approx(1 / 6, abs=0.03)
    for wrong in ([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, math.nan]):
        with pytest.raises(ValueError, match="expected 6 positive weights"):
            PathSampler(GRAPHS, wrong)


def test_scores_are_of_fixed_images_and_leave_everything(data):
    trainer = _trainer(data)
    trainer.epoch()
    before = _state(trainer)
    scores = _scores(trainer)
    assert _equal(before, _state(trainer))
    assert _scores(trainer, GRAPHS[::-1])[::-1] == scores
    split = data.valid
    assert len(split) == data.num_valid == 16
    with supernet.batch_statistics(trainer.network), torch.no_grad():
        logits = trainer.network(data.normaliser(split.images), GRAPHS[2])
    assert scores[2].value == (logits.argmax(1) == split.labels).sum().item() / 16
    assert scores[2].loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-4)
    assert len(_scores(trainer, batch=5, count=10)) == 6


def test_scores_are_of_any_network_that_takes_a_choice(data):
    """As that of a skeleton of the user's."""

    class Own(nn.Linear):
        def forward(self, images, choice):
            return super().forward(images.flatten(1)) * choice

    none, whole = data.compare(Own(64, 4), [0.0, 1.0], rng.torch_generator(3, "one-shot"), batch=8, count=16)
    assert none.loss == pytest.approx(math.log(4))
    assert whole.loss != none.loss


class _Keep:
    """The first of two workers, in turns: keeps its gradients."""

    def __init__(self):
        self.kept = {}

    def __call__(self, used):
        self.kept = {name: parameter.grad.clone() for name, parameter in used.items()}
        return used

    def sum(self, value):
        raise AssertionError("nothing of it is summed while a step is computed")


class _Average(_Keep):
    """The second: averages them with those that the first has kept."""

    def __init__(self, net, first):
        self.net, self.first = net, first

    def __call__(self, used):
        named = dict(self.net.named_parameters())
        everything = {name: named[name] for name in [*used, *self.first.kept]}
        for name, parameter in everything.items():
            parts = [part for part in (parameter.grad, self.first.kept.get(name)) if part is not None]
            parameter.grad = sum(parts) / len(parts)
        return everything


def test_two_workers_with_their_gradients_averaged(data):
    """Each worker has every second image and a genotype of its own."""
    nets, keep = (_net(), _net()), _Keep()
    first = _trainer(data, net=nets[0], seed=5, shard=Shard(0, 2), averager=keep)
    second = _trainer(data, net=nets[1], seed=5, shard=Shard(1, 2), averager=_Average(nets[1], keep))
    whole, *halves = (
        next(data.under(RECIPE, shard=shard).batches(ByStep(5, data.device).order(0)))[0]
        for shard in (WHOLE, Shard(0, 2), Shard(1, 2))
    )
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])
    before = {name: value.detach().clone() for name, value in nets[1].named_parameters()}
    first.step()
    second.step()
    moved = {name for name, value in nets[1].named_parameters() if not torch.equal(value, before[name])}
    used = set().union(*(reached(nets[1], torch.rand(4, 1, 8, 8), trainer.drawn[0]) for trainer in (first, second)))
    assert moved == used
    assert first.drawn[0] != second.drawn[0]


def test_weights_of_other_networks_are_refused(data):
    trainer = _trainer(data)
    version = pack_version(trainer.state(), 0)
    with pytest.raises(DataError, match="not a whole safetensors file"):
        unpack_version(b"nonsense")
    with pytest.raises(DataError, match="not a whole safetensors file"):
        unpack_version(version[:-10])
    with pytest.raises(DataError, match="no epochs_done"):
        unpack_version(pack({"net.stem": torch.zeros(2)}))
    with pytest.raises(DataError, match="no step among them"):
        trainer.restore(unpack_version(version)[0])
    with pytest.raises(DataError, match="has shape"):
        _trainer(data, net=_net(channels=6)).restore(trainer.state())
    with pytest.raises(DataError, match=r"auxiliary.* is unknown here"):
        _trainer(data, net=_net(WITH_HEAD, auxiliary=False)).restore(_trainer(data, net=_net(WITH_HEAD)).state())


def test_genotypes_in_turn_over_steps_and_workers():
    sampler = PathSampler(GRAPHS, in_turn=True)
    assert [sampler.draw(rng.child(0, "x"), turn) for turn in (0, 1, 5, 6)] == [*GRAPHS[:2], GRAPHS[5], GRAPHS[0]]


def test_a_loss_that_is_not_finite_ends_the_epoch_at_once(data):
    trainer = _trainer(data, RECIPE.model_copy(update={"lr": 1e30, "clip_norm": None}))
    assert math.isnan(trainer.epoch())
    assert trainer.steps_done < trainer.objective.steps


def test_a_group_asks_together_and_not_at_every_step(data, monkeypatch):
    class Alone:
        asked = 0

        def __call__(self, used):
            return used

        def mean(self, value):
            self.asked += 1
            return value

        def sum(self, value):
            return value

    monkeypatch.setattr("nao_ray.training.trainer.CHECK_EVERY", 4)
    fine, broken = Alone(), Alone()
    assert math.isfinite(_trainer(data, averager=fine).epoch())
    assert fine.asked == 2, "after 4 of 6 steps, and at the end"
    trainer = _trainer(data, RECIPE.model_copy(update={"lr": 1e30, "clip_norm": None}), averager=broken)
    assert math.isnan(trainer.epoch())
    assert (trainer.steps_done, broken.asked) == (4, 1)


def test_shared_weights_without_a_step_are_no_result():
    few = Synthetic(SyntheticConfig(limit=10)).objective(torch.device("cpu"), RECIPE)  # 9 images
    with pytest.raises(DataError, match="9 training images make no step of 6 workers; give two for each"):
        few.under(RECIPE, shard=Shard(0, 6))
