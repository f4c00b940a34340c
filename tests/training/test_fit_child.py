import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.spaces.base import Genotype
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.checkpoint import pack, unpack
from nao_ray.training.fit import Start, fit
from nao_ray.training.images import ImageObjective
from nao_ray.training.objective import Scores
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer
from nao_ray.trial import FailureKind, Proposal, Trial, TrialState

RECIPE = Recipe(name="short", batch=16, crop_padding=1, flip=False, dropout=0.1)


class TwoHeads(nn.Module):
    """A small convolutional network with an auxiliary head, which remembers what it was told."""

    def __init__(self, classes=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.1)
        self.head, self.auxiliary = nn.Linear(8 * 16, classes), nn.Linear(8, classes)
        self.steps = []

    def set_step(self, step, total, per_epoch):
        self.steps.append((step, total))

    def forward(self, x):
        x = self.body(x)
        logits = self.head(self.drop(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)))
        return (logits, self.auxiliary(x.mean((2, 3)))) if self.training else logits


def network(seed=0):
    with rng.torch_seeded(seed, "weights"):
        return TwoHeads()


@pytest.fixture(scope="module")
def data():
    task = Synthetic(SyntheticConfig(noise=0.2))
    return task.objective(torch.device("cpu"), RECIPE)


def test_it_learns_and_says_what_it_cost(data):
    measured = fit(network(), data, epochs=12, seed=0)
    assert measured.valid_accuracy > 0.8
    assert measured.valid_loss < 0.8
    assert len(measured.curve) == 12
    assert measured.curve[-1] == measured.valid_accuracy
    assert 0 < measured.wall_seconds < 60
    assert measured.device_seconds > 0
    assert measured.peak_memory_bytes > 10**6
    assert measured.device == "cpu"


def test_the_same_seed_gives_the_same_score_and_weights(data):
    runs = []
    for seed in (0, 0, 1):
        trained = network()
        measured = fit(trained, data, epochs=2, seed=seed)
        runs.append((measured.valid_loss, measured.curve, trained.head.weight.detach().clone()))
        torch.rand(3)  # whatever the process draws in between
    assert runs[0][:2] == runs[1][:2]
    assert torch.equal(runs[0][2], runs[1][2])
    assert not torch.equal(runs[0][2], runs[2][2])


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_training_that_goes_on_ends_as_one_unbroken(data, stopped):
    unbroken, kept, losses = network(), {}, []

    def keep(epoch):
        losses.append(epoch.loss)
        kept[epoch.done] = pack(epoch.state())

    whole = fit(unbroken, data, epochs=5, seed=0, listener=keep)
    resumed = network(seed=1)  # its own weights do not count
    start = Start(stopped, unpack(kept[stopped]))
    torch.rand(3)  # whatever the process draws in between
    rest_losses = []
    rest = fit(resumed, data, epochs=5, seed=0, start=start, listener=lambda e: rest_losses.append(e.loss))
    assert rest.curve == whole.curve[stopped:]
    assert rest_losses == losses[stopped:]
    assert len(set(losses)) == 5
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_before_there_was_a_trainer_is_gone_on_with(data):
    """It had no step, and these names."""
    states, losses, again = [], [], []
    fit(network(), data, epochs=2, seed=0, listener=lambda e: (states.append(pack(e.state())), losses.append(e.loss)))
    state = unpack(states[0])
    assert int(state.pop("step")) == 9
    parameters = [name for name, _ in TwoHeads().named_parameters()]
    assert state.keys() == {
        *(f"network.{name}" for name in TwoHeads().state_dict()),
        *(f"momentum.{name}" for name in parameters),
        *(f"generator.{name}" for name in ("order", "augmentation", "cpu")),
    }
    fit(network(), data, epochs=2, seed=0, start=Start(1, state), listener=lambda epoch: again.append(epoch.loss))
    assert again == losses[1:]


def test_a_state_of_something_else_is_refused(data):
    states = []
    fit(network(), data, epochs=1, seed=0, listener=lambda epoch: states.append(epoch.state()))
    with pytest.raises(DataError, match=r"head\.weight has shape .* of another network"):
        fit(TwoHeads(classes=5), data, epochs=2, seed=0, start=Start(1, states[0]))
    alone = {name: value for name, value in states[0].items() if name != "generator.cpu"}
    with pytest.raises(DataError, match="begun on another kind of device"):
        fit(network(), data, epochs=2, seed=0, start=Start(1, alone))


def test_without_validation_images_there_is_no_score(data):
    told = []
    everything = Synthetic(SyntheticConfig(noise=0.2)).objective(torch.device("cpu"), RECIPE, all_data=True)
    measured = fit(network(), everything, epochs=2, seed=0, listener=told.append)
    assert (measured.valid_accuracy, measured.valid_loss, measured.curve) == (None, None, ())
    assert [(epoch.done, epoch.scores) for epoch in told] == [(1, None), (2, None)]
    assert all(0 < epoch.loss < 5 for epoch in told)


def test_the_global_generator_is_as_before(data):
    state = torch.random.get_rng_state()
    fit(network(), data, epochs=1, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_network_is_told_every_step(data):
    trained = network()
    fit(trained, data, epochs=2, seed=0)
    assert trained.steps == [(step, 18) for step in range(18)]  # 144 images, 9 steps an epoch


def test_a_last_batch_of_one_is_left_out():
    rows = Images(np.zeros((33, 1, 8, 8), dtype=np.uint8), np.zeros(33, dtype=np.int64))
    objective = ImageObjective.of(rows, rows, torch.device("cpu"), RECIPE)
    for recipe in (RECIPE, Recipe(name="short", batch=31)):
        fewer = objective.under(recipe)
        batches = list(fewer.batches(rng.torch_generator(0, "order")))
        assert fewer.steps == len(batches) == 2


def test_the_score_is_of_the_best_or_of_the_last_epoch(data):
    unsteady = {"name": "short", "batch": 16, "lr": 1.0, "cosine_epochs": 100, "crop_padding": 1, "flip": False}
    last = fit(network(), data.under(Recipe(**unsteady)), epochs=6, seed=0)
    best = fit(network(), data.under(Recipe(**unsteady, score="best")), epochs=6, seed=0)
    assert last.curve == best.curve
    assert max(last.curve) > last.curve[-1], "this training falls back, or the test shows nothing"
    assert best.valid_accuracy == max(best.curve)
    assert last.valid_accuracy == last.curve[-1]


def test_a_loss_that_is_not_finite_ends_the_training_as_nan(data):
    recipe = Recipe(name="short", lr=1e30, clip_norm=None, warmup_epochs=0)
    trained = network()
    measured = fit(trained, data.under(recipe), epochs=20, seed=0)
    assert math.isnan(measured.score)
    assert len(measured.curve) == 1
    assert len(trained.steps) == 2, "of 3 an epoch: the first step breaks the weights, the second shows it"
    trial = Trial(proposal=Proposal(genotype=Genotype("s", "k"))).complete(measured)
    assert (trial.state, trial.failure_kind) == (TrialState.FAILED, FailureKind.NAN)


def test_one_step_is_the_textbooks(data):
    """Clipped gradient of both heads' losses, weight decay, momentum: by hand against the optimiser."""
    recipe = Recipe(batch=16, lr=0.1, clip_norm=0.5, crop_padding=0, flip=False, weight_decay=0.01, cosine_epochs=None)
    objective = data.under(recipe)
    training = Trainer(network(), objective, epochs=10, streams=Continuing(0, objective.device))
    images, labels = next(objective.batches(rng.torch_generator(0, "order")))
    before = {name: value.detach().clone() for name, value in training.network.named_parameters()}
    plain = network()
    plain.load_state_dict(training.network.state_dict())
    plain.drop.p = training.network.drop.p = 0.0
    training.step()
    plain.train()
    main, auxiliary = plain(data.normaliser(images))
    (nn.functional.cross_entropy(main, labels) + 0.4 * nn.functional.cross_entropy(auxiliary, labels)).backward()
    norm = torch.sqrt(sum((value.grad**2).sum() for value in plain.parameters()))
    assert norm > 0.5
    rate = 0.05 * (1 + math.cos(math.pi * 0.5 / 9 / 10))
    for (name, value), parameter in zip(training.network.named_parameters(), plain.parameters(), strict=True):
        step = parameter.grad * 0.5 / norm + 0.01 * before[name]
        torch.testing.assert_close(value.detach(), before[name] - rate * step, rtol=1e-4, atol=1e-6)


def test_evaluation_is_of_every_image_without_dropout(data):
    trained = network().eval()
    scores = replace(data, valid=data.train).evaluate(trained)
    with torch.no_grad():
        logits = trained(data.normaliser(data.train.images))
    assert scores.value == (logits.argmax(1) == data.train.labels).sum().item() / 144
    assert scores.loss == pytest.approx(nn.functional.cross_entropy(logits, data.train.labels).item(), rel=1e-5)
    assert isinstance(scores, Scores)


def test_bfloat16_on_request(data):
    measured = fit(network(), data.under(RECIPE.model_copy(update={"precision": "bfloat16"})), epochs=1, seed=0)
    full = fit(network(), data, epochs=1, seed=0)
    assert measured.valid_loss != full.valid_loss
    assert measured.valid_loss == pytest.approx(full.valid_loss, rel=0.1)


def test_a_training_without_a_step_is_no_result():
    train, valid = Synthetic(SyntheticConfig()).load()
    with pytest.raises(DataError, match="1 training image makes no step; give at least 2"):
        ImageObjective.of(train.take(np.arange(1)), valid, torch.device("cpu"), Recipe())
