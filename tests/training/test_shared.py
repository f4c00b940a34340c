"""Shared weights: a step by hand, exact resume, samplers, and scores that leave everything as it was."""

import math
from collections import Counter

import pytest
import torch
from torch import nn

from nao_ray import registry, rng
from nao_ray.errors import DataError
from nao_ray.networks import supernet
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.checkpoint import pack
from nao_ray.training.data import TrainingData
from nao_ray.training.recipe import Period, Recipe, period
from nao_ray.training.sampling import PathSampler, standalone_params
from nao_ray.training.shared import Shard, SharedTrainer

SPACE = registry.load("space", "nao_cnn_small")()
GRAPHS = [SPACE.lower(SPACE.sample(rng.child(0, "shared pool", index))) for index in range(6)]
SETTINGS = {"crop_padding": 1, "flip": False, "batch": 24, "dropout": 0.1, "auxiliary_weight": 0.4}
RECIPE = Recipe(name="paper_shared", lr=0.1, **SETTINGS)


@pytest.fixture(scope="module")
def data():
    task = Synthetic(SyntheticConfig(noise=0.2))
    return TrainingData.to_device(*task.load(), torch.device("cpu"))


def _trainer(data, recipe=RECIPE, **options):
    with rng.torch_seeded(0, "shared weights"):
        net = supernet.build(
            SPACE, network="small", cells_per_stage=1, channels=4, num_classes=4, auxiliary=True, drop_path=0.1
        )
    return SharedTrainer(net, data, recipe, **{"epochs": 4, "seed": 3, **options})


def _state(trainer):
    return {name: value.clone() for name, value in trainer._tensors()}


def _equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def test_a_resumed_training_is_the_unbroken_one(data):
    sampler = PathSampler(GRAPHS)
    whole = _trainer(data)
    losses = whole.train(3, sampler)
    first = _trainer(data)
    broken = first.train(1, sampler)
    first.evaluate(GRAPHS)  # whatever is done in between
    version = first.pack()
    torch.rand(7)
    second = _trainer(data)
    second.unpack(version)
    assert second.epochs_done == 1
    broken += second.train(2, sampler)
    assert broken == losses
    assert _equal(_state(whole), _state(second))
    other = _trainer(data, seed=4)
    assert other.train(1, sampler) != losses[:1]


@pytest.mark.parametrize("name", ["nao_cnn_small", "nao_cnn_middle", "enas_micro", "enas_macro"])
def test_every_supernet_is_trained(data, name):
    space = registry.load("space", name)()
    graphs = [space.lower(space.sample(rng.child(0, "shared pool", index))) for index in range(6)]
    with rng.torch_seeded(0, "shared weights"):
        settings = {"network": "small", "cells_per_stage": 1, "channels": 4, "num_classes": 4}
        net = supernet.build(space, **settings, auxiliary=True, drop_path=0.1)
    trainer = SharedTrainer(net, data, RECIPE, epochs=1, seed=3)
    before, sampler, used = _state(trainer), PathSampler(graphs), set()
    draw = sampler.draw
    sampler.draw = lambda *place: used.update(net.used_parameters(graph := draw(*place))) or graph
    losses = trainer.train(1, sampler)
    assert all(math.isfinite(loss) for loss in losses)
    assert {key for key, value in net.named_parameters() if not torch.equal(value, before[f"net.{key}"])} == used
    assert all(value.grad is None for value in net.parameters())
    after = _state(trainer)
    scores = trainer.evaluate(graphs)
    assert _equal(after, _state(trainer))
    assert len({score.loss for score in scores}) == len(graphs)


def test_it_learns_and_ranks(data):
    recipe = RECIPE.model_copy(update={"batch": 12, "auxiliary_weight": 0.0})
    trainer = _trainer(data, recipe, epochs=20)
    losses = trainer.train(20, PathSampler(GRAPHS))
    assert losses[-1] < 0.7 * losses[0]
    scores = trainer.evaluate(GRAPHS)
    assert all(score.accuracy > 0.6 for score in scores)
    assert len({score.loss for score in scores}) == len(GRAPHS)


def test_one_step_is_the_textbooks(data):
    """Clipped gradients, weight decay and momentum against torch's optimiser; other weights stay."""
    recipe = Recipe(**{**SETTINGS, "name": "paper_shared", "crop_padding": 0, "dropout": 0.0, "clip_norm": 0.5})
    for nesterov in (False, True):
        recipe = recipe.model_copy(update={"nesterov": nesterov})
        ours, plain = _trainer(data, recipe), _trainer(data, recipe).net.train()
        images, labels = data.train.images[:24], data.train.labels[:24]
        optimiser = torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=3e-4, nesterov=nesterov)
        for net in (ours.net, plain):
            net.config = net.config.__class__(**{**_fields(net.config), "drop_path": 0.0})
        before = {name: value.detach().clone() for name, value in plain.named_parameters()}
        used = set()
        for step, graph in enumerate([GRAPHS[0], GRAPHS[1], GRAPHS[0]]):
            ours.step(step, images, labels, PathSampler([graph]))
            optimiser.zero_grad(set_to_none=True)
            main, auxiliary = plain(data.normaliser(images), graph)
            loss = nn.functional.cross_entropy(main, labels) + 0.4 * nn.functional.cross_entropy(auxiliary, labels)
            loss.backward()
            assert nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5
            total = 4 * ours.steps_per_epoch
            rate = 0.001 + 0.5 * (0.025 - 0.001) * (1 + math.cos(math.pi * (step + 0.5) / total))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            used |= plain.used_parameters(graph).keys()
        for (name, value), other in zip(ours.net.named_parameters(), plain.parameters(), strict=True):
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


def test_sizes_are_those_of_the_final_network():
    graph = SPACE.lower(SPACE.parse("NAONet-B"))
    assert standalone_params(graph, network="cifar10", cells_per_stage=6, channels=36) == 2_921_302


def test_scores_are_of_fixed_images_and_leave_everything(data):
    trainer = _trainer(data)
    trainer.train(1, PathSampler(GRAPHS))
    before = _state(trainer)
    scores = trainer.evaluate(GRAPHS)
    assert _equal(before, _state(trainer))
    assert trainer.evaluate(GRAPHS[::-1])[::-1] == scores
    split = data.valid
    assert len(split) == 16
    with supernet.batch_statistics(trainer.net), torch.no_grad():
        logits = trainer.net(data.normaliser(split.images), GRAPHS[2])
    assert scores[2].accuracy == (logits.argmax(1) == split.labels).sum().item() / 16
    assert scores[2].loss == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-4)
    assert len(trainer.evaluate(GRAPHS, batch=5, images=10)) == 6


def test_two_workers_with_their_gradients_averaged(data):
    """Each worker has every second image and a genotype of its own; in turns, the first keeps what it had."""
    kept: dict[str, torch.Tensor] = {}

    def keep(used):
        kept.update({name: parameter.grad.clone() for name, parameter in used.items() if parameter.grad is not None})
        return used

    def average(used):
        named = dict(second.net.named_parameters())
        everything = {name: named[name] for name in [*used, *kept]}
        for name, parameter in everything.items():
            parts = [part for part in (parameter.grad, kept.get(name)) if part is not None]
            parameter.grad = sum(parts) / len(parts)
        return everything

    first = _trainer(data, seed=5, shard=Shard(0, 2), reduce_gradients=keep)
    second = _trainer(data, seed=5, shard=Shard(1, 2), reduce_gradients=average)
    drawn = [[], []]
    samplers = [PathSampler(GRAPHS), PathSampler(GRAPHS)]
    for sampler, seen in zip(samplers, drawn, strict=True):
        draw = sampler.draw
        sampler.draw = lambda generator, turn, draw=draw, seen=seen: seen.append(draw(generator, turn)) or seen[-1]
    before = {name: value.detach().clone() for name, value in second.net.named_parameters()}
    images, labels = data.train.images[:24], data.train.labels[:24]
    for trainer, sampler, rank in ((first, samplers[0], 0), (second, samplers[1], 1)):
        trainer.step(0, images[rank::2], labels[rank::2], sampler)
    moved = {name for name, value in second.net.named_parameters() if not torch.equal(value, before[name])}
    used = set().union(*(second.net.used_parameters(seen[0]) for seen in drawn))
    assert moved == used
    assert drawn[0][0] != drawn[1][0]


def test_weights_of_other_networks_are_refused(data):
    trainer = _trainer(data)
    with pytest.raises(DataError, match="not a whole safetensors file"):
        trainer.unpack(b"nonsense")
    with pytest.raises(DataError, match="not a whole safetensors file"):
        trainer.unpack(trainer.pack()[:-10])
    with pytest.raises(DataError, match="no epochs_done"):
        trainer.unpack(pack({"net.stem": torch.zeros(2)}))
    version = trainer.pack()
    with rng.torch_seeded(0, "w"):
        wide = supernet.build(SPACE, network="small", cells_per_stage=1, channels=6, num_classes=4, auxiliary=True)
        bare = supernet.build(SPACE, network="small", cells_per_stage=1, channels=4, num_classes=4)
    with pytest.raises(DataError, match="has shape"):
        SharedTrainer(wide, data, RECIPE, epochs=1, seed=0).unpack(version)
    with pytest.raises(DataError, match=r"auxiliary.* is unknown here"):
        SharedTrainer(bare, data, RECIPE, epochs=1, seed=0).unpack(version)


def test_genotypes_in_turn_over_steps_and_workers():
    sampler = PathSampler(GRAPHS, in_turn=True)
    assert [sampler.draw(rng.child(0, "x"), turn) for turn in (0, 1, 5, 6)] == [*GRAPHS[:2], GRAPHS[5], GRAPHS[0]]


def test_a_loss_that_is_not_finite_ends_the_training(data):
    trainer = _trainer(data, RECIPE.model_copy(update={"lr": 1e30, "clip_norm": None}))
    losses = trainer.train(4, PathSampler(GRAPHS))
    assert math.isnan(losses[-1])
    assert len(losses) < 4


def test_shared_weights_without_a_step_are_no_result(data):
    few = TrainingData.to_device(*Synthetic(SyntheticConfig(limit=10)).load(), torch.device("cpu"))  # 9 images
    with pytest.raises(DataError, match="9 training images make no step of 6 workers; give two for each"):
        _trainer(few, shard=Shard(0, 6))
