"""A training on segments of random length, one graph for each, by a recorder for the CPU, against launched steps."""

import pytest
import torch
from recorder import ReplayRecorder

from nao_ray import rng
from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training import capture, trainer
from nao_ray.training.capture import WARM_AGAIN, WARM_UP, Capture
from nao_ray.training.recipe import TextRecipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

CPU = torch.device("cpu")
LOST = {
    "dropout": 0.2, "dropout_hidden": 0.1, "dropout_input": 0.1, "dropout_embedding": 0.1, "dropout_words": 0.1,
    "activation_penalty": 2.0, "slowness_penalty": 1.0,
}  # fmt: skip
RECIPE = TextRecipe(
    name="short_text", batch=15, lr=1.0, lr_end=0.1, momentum=0.9, clip_norm=0.25, segments="normal",
    averaging="nonmonotone", averaging_patience=1, **LOST,
)  # fmt: skip
TASK = MadeUpText(MadeUpTextConfig(letters=4, gap=1, window=7, words=400))
CELL = Cell(inputs=1, nodes=((Edge(0, "relu"),), (Edge(0, "sigmoid"),), (Edge(2, "identity"),)), output=(1, 2, 3))
EPOCHS = 4


@pytest.fixture(autouse=True)
def recorders(monkeypatch):
    made = []

    def make(*args, **kwargs):
        made.append(ReplayRecorder())
        return Capture(*args, **kwargs, recorder=made[-1] if kwargs["execution"] != "eager" else None)

    monkeypatch.setattr(capture, "_spoilt", False)
    monkeypatch.setattr(trainer, "Capture", make)
    return made


@pytest.fixture(scope="module")
def text():
    return TASK.objective(CPU, RECIPE)


def begun(text):
    with rng.torch_seeded(0, "weights"):
        config = RecurrentConfig(vocabulary=TASK.vocabulary, hidden=6, **LOST)
        network = RecurrentNetwork(ArchGraph("recurrent", (("recurrent", CELL),)), config)
    return Trainer(network, text, epochs=EPOCHS, streams=Continuing(0, CPU))


def trained(text, start=None):
    with rng.torch_seeded(0, "dropout"), begun(text) as training:
        if start is not None:
            training.restore(start)
        told = []
        while training.epochs_done < EPOCHS:
            told.append((training.epoch(), training.evaluate()))
            training.tell(float(len(told)))  # so averaging begins
        return told, training.state(), training.execution


def same(mine, theirs):
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="module")
def launched(text):
    """By a training that is about to record all the time: its losses and scores, its last state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "WARM_UP", 10**9)
        patch.setattr(trainer, "Capture", lambda *args, **kwargs: Capture(*args, **kwargs, recorder=ReplayRecorder()))
        torch.set_num_threads(1)  # as in each test
        told, state, execution = trained(text)
    assert execution == "eager: fewer than 1000000001 steps"
    return told, state


def lengths_of(text):
    order = Continuing(0, CPU).order(0)
    return [[given.shape[1] for given, _ in text.batches(order)] for _ in range(EPOCHS)]


def test_replayed_segments_of_every_length_train_as_launched_ones(text, launched, recorders):
    epochs = lengths_of(text)
    told, state, execution = trained(text)
    seen, most = [length for epoch in epochs for length in epoch[1:]], len({n for epoch in epochs for n in epoch})
    replayed, graphs, calls = 0, set(), dict.fromkeys(seen, 0)
    for length in seen:
        calls[length] += length not in graphs
        if calls[length] > (WARM_AGAIN if graphs else WARM_UP):
            graphs.add(length)
        replayed += length in graphs
    assert most > len(graphs) > 3, "or there is little to see"
    assert execution == f"graph: {replayed} of {len(seen)} steps"
    assert replayed > 0.5 * len(seen)
    assert recorders[0].recorded == len(graphs) + 1, "and one of the evaluation"
    assert told == launched[0]
    assert same(state, launched[1])
    assert any(name.startswith("average.mean.") for name in state)


def test_a_training_that_is_put_back_within_an_epoch_goes_on_to_the_bit(text, launched, recorders):
    told, state = launched
    with rng.torch_seeded(0, "dropout"), begun(text) as training:
        first = training.epoch()
        training.evaluate()
        training.tell(1.0)
        for _ in range(7):
            training.step()
        middle = {name: value.clone() for name, value in training.state().items()}
        for _ in range(5):
            training.step()
        before = recorders[-1].recorded
        training.restore(middle)  # here its graphs are of other tensors
        assert recorders[-1].forgotten == 1
        losses = [training.epoch() for _ in range(2)]
        assert recorders[-1].recorded > before
    assert [first, *losses] == [loss for loss, _ in told[:3]]
    rest, ended, execution = trained(text, middle)
    assert [loss for loss, _ in rest] == [loss for loss, _ in told[1:]]
    assert execution.startswith("graph: ")
    assert same(*({name: value for name, value in each.items() if "average" not in name} for each in (ended, state)))


def test_lengths_beyond_the_most_are_launched(text, launched, recorders, monkeypatch):
    monkeypatch.setattr(trainer, "LENGTHS", 2)
    told, _, execution = trained(text)
    assert told == launched[0]
    assert recorders[0].recorded == 2 + 1
    replayed, steps = (int(word) for word in execution.split() if word.isdigit())
    assert 0 < replayed < 0.6 * steps
