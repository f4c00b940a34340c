"""Trainings by several workers, without any: their names, whose batch it is, and when another group is tried."""

from types import SimpleNamespace

import pytest
import torch

from nao_ray.config import TrainConfig
from nao_ray.errors import ConfigError, DataError, PoolReadError, RunError
from nao_ray.service.training import room, together
from nao_ray.service.training.about import digest
from nao_ray.service.training.train import Run, Seat
from nao_ray.training.failures import PeerLostError
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import InTeam

WHAT = {"space": {"name": "nao_cnn_small"}, "genotype": "NAONet-B", "task": {"name": "synthetic"}}


def config(*overrides):
    text = " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)
    return TrainConfig.make("short", {**WHAT, "genotype": text}, overrides)


def test_another_number_of_workers_is_another_training_and_one_is_what_it_was():
    names = [digest(config(*given), "hash") for given in ((), ("workers=1",), ("workers=1..1",), ("workers=2",))]
    assert names[0] == names[1] == names[2] != names[3]
    assert digest(config("workers=2..2"), "hash") == names[3] != digest(config("workers=2..4"), "hash")
    each = digest(config("workers=2", "recipe.per_worker=true"), "hash")
    assert each != names[3]
    assert digest(config("recipe.per_worker=true"), "hash") == names[0], "whose batch it is does not matter to one"


@pytest.mark.parametrize("workers", ["0", "3..2", "2..", "x", "true", "1.5", "[1, 2]"])
def test_what_is_no_number_of_workers_is_refused(workers):
    with pytest.raises(ConfigError, match="expected a number of workers, or a range of them such as"):
        config(f"workers={workers}")


def test_the_option_is_named_where_it_was_given(call):
    for workers, message in (
        ("0", "expected a number of workers"),
        ("40", "recipe.batch is 64, and each of 40 takes 2"),
    ):
        told = ("--task", "digits", "--recipe", "short_digits", "--set", "recipe.batch=64", "--workers", workers)
        left = call("train", "NAONet-A", *told)
        assert left.code == 2
        assert left.err.startswith(f"nao-ray: --workers {workers}: {message}")


def test_each_worker_takes_two_examples_at_least():
    with pytest.raises(ConfigError, match="each of 40 takes 2 examples at least"):
        config("workers=2..40", "recipe.batch=64")
    config("workers=40", "recipe.batch=2", "recipe.per_worker=true")


def test_the_batch_is_that_of_all_and_on_imagenet_each_ones():
    cifar, imagenet = Recipe(name="nao_cifar10"), Recipe(name="nao_imagenet", lr_end=0.01)
    assert cifar.of_all(4) is cifar
    assert imagenet.of_all(1) is imagenet
    four = imagenet.of_all(4)
    assert (four.batch, four.lr, four.lr_end) == (512, pytest.approx(0.4), pytest.approx(0.04))
    assert four.weight_decay == imagenet.weight_decay
    assert Recipe(name="nao_imagenet", per_worker=False).of_all(4).batch == 128


def test_draws_of_a_team_go_on_and_are_others_when_it_goes_back():
    def draw(streams, step):
        with streams.dropout(step):
            return torch.rand(4).tolist()

    first, second = (InTeam(0, torch.device("cpu"), worker) for worker in range(2))
    assert draw(first, 3) != draw(second, 3)
    assert torch.randperm(9, generator=first.order(0)).tolist() == torch.randperm(9, generator=second.order(0)).tolist()
    before = draw(first, 3)
    first.renew()
    assert draw(first, 3) != before
    other = InTeam(0, torch.device("cpu"), 0)
    other.restore(first.state(within_epoch=False))
    assert draw(other, 3) == draw(first, 3)
    assert torch.rand(3, generator=other.order(1)).tolist() == torch.rand(3, generator=first.order(1)).tolist()


def _attempts(monkeypatch, *endings):
    """Groups that end so, each with the epochs that are kept then."""
    run = SimpleNamespace(
        config=config("workers=2"), name="cell", finals=SimpleNamespace(url="/nowhere"), epochs_kept=lambda: run.done
    )
    run.done, left = 0, list(endings)

    def end(self):
        run.done, error = left.pop(0)
        return error

    monkeypatch.setattr(together._Attempts, "_attempt", end)
    monkeypatch.setattr(together.SameCode, "of", lambda work: work)
    attempts = together._Attempts(run, SimpleNamespace(each=room.Each()), "")
    return attempts, left


def _lost(*errors):
    return SimpleNamespace(worker_failures=dict(enumerate(errors)))


def test_groups_are_tried_as_long_as_there_is_an_epoch_between(monkeypatch):
    gone = _lost(PeerLostError("the group of workers broke"), OSError("killed"))
    attempts, left = _attempts(monkeypatch, (1, gone), (1, gone), (2, gone), (2, gone), (3, None))
    attempts.to_the_end()
    assert not left


def test_a_group_that_breaks_again_and_again_ends_the_training_in_a_line(monkeypatch):
    gone = _lost(PeerLostError("the group of workers broke"), OSError("killed\nby hand"))
    attempts, _ = _attempts(monkeypatch, (1, gone), (1, gone), (1, gone))
    with pytest.raises(RunError, match="cell: workers failed 3 times after epoch 1: OSError: killed by hand; the same"):
        attempts.to_the_end()


def test_what_no_other_group_would_do_better_is_told_at_once(monkeypatch):
    attempts, _ = _attempts(monkeypatch, (0, _lost(PeerLostError("broke"), DataError("no such folder"))))
    with pytest.raises(DataError, match="no such folder"):
        attempts.to_the_end()


def test_storage_that_fails_is_tried_again_and_told_in_the_end(monkeypatch):
    stalled = _lost(PoolReadError("the disk stalls"))
    attempts, left = _attempts(monkeypatch, (0, stalled), (1, stalled), (2, None))
    attempts.to_the_end()
    assert not left
    attempts, _ = _attempts(monkeypatch, *[(0, stalled)] * 3)
    with pytest.raises(PoolReadError, match="the disk stalls"):
        attempts.to_the_end()


@pytest.mark.parametrize(
    ("given", "each", "message"),
    [
        ((), room.Each(gpus=2), "a worker computes on one GPU; give more --workers"),
        (("device=cpu",), room.Each(gpus=1), "device is cpu, and each worker has 1 GPUs"),
        (("device=cuda:0",), room.Each(), "device is cuda:0, and each worker has 0 GPUs"),
    ],
)
def test_a_device_that_workers_do_not_have_is_refused(given, each, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        together.train_together(config("workers=2", *given), str(tmp_path), "cell", each=each)


def test_a_cluster_that_lost_a_machine_is_waited_for_and_that_is_said_once(monkeypatch, caplog):
    nodes = [{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr(room.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(together, "_ROOM_SECONDS", 0.0)
    attempts, _ = _attempts(monkeypatch)
    attempts._look_for_room()
    assert not caplog.text
    nodes[1]["Alive"] = False
    for _ in range(3):
        attempts._look_for_room()
    nodes[1]["Alive"] = True
    attempts._look_for_room()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["the cluster holds 1 workers with cpus 1 now, of 2: waiting for it to grow"]


def test_batch_and_rate_of_a_range_are_those_of_the_most_workers(tmp_path):
    """However many there are, so that what is trained does not change with them."""
    run = Run.of(config("workers=2..4", "recipe.per_worker=true"), str(tmp_path), "cell")
    team = SimpleNamespace(rank=1, size=3)
    run.seat = Seat("cpu", team)
    objective = run._objective()
    assert objective.recipe.batch == 4 * run.config.recipe.batch
    assert objective.recipe.lr == 4 * run.config.recipe.lr
    assert objective.shard.count == 3
