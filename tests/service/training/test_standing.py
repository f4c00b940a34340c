"""How trainings stand, seen from outside while they run and afterwards."""

import io
import json

import pytest
from rich.console import Console

from nao_ray.cli import watch_trainings
from nao_ray.config import TrainConfig
from nao_ray.service.training.standing import Trainings, mark_of
from nao_ray.service.training.train import train

WHAT = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "synthetic", "per_class": 20},
}
SMALL = ("channels=2", "epochs=3", "recipe.batch=24", "data=train")


def _config(*more):
    return TrainConfig.make("short_digits", WHAT, (*SMALL, *more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One training that has ended, another that was interrupted after two of three epochs."""
    place = tmp_path_factory.mktemp("trained")

    def leave(step):
        if step.done == 2:
            raise KeyboardInterrupt

    train(_config(), str(place), "cell")
    with pytest.raises(KeyboardInterrupt):
        train(_config("seed=1"), str(place), "cell", listener=leave)
    (place / "weights" / "v000001.safetensors").write_bytes(b"of shared weights")
    (place / "weights" / "other-12345678.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return place


def test_each_is_found_by_its_mark_and_says_how_far_it_is(folder):
    ended = Trainings(str(folder)).find(mark_of("cell", _config()))
    assert (ended.done, ended.epochs, len(ended.curve), ended.seconds_left) == (3, 3, 3, 0)
    assert 0 <= ended.test <= 1
    running = Trainings(str(folder)).find(mark_of("cell", _config("seed=1")))
    assert (running.done, running.epochs, len(running.curve), running.test) == (2, 3, 2, None)
    assert running.best == max(running.curve)
    assert running.seconds_left > 0
    assert running.name != ended.name
    assert Trainings(str(folder)).find(mark_of("cell", _config("seed=2"))) is None


def test_all_of_a_folder_are_seen_and_nothing_else(folder, tmp_path):
    trainings = Trainings(str(folder))
    first = trainings.look()
    assert sorted((each.done, each.epochs) for each in first) == [(2, 3), (3, 3)]
    assert trainings.look() == first
    assert Trainings(str(tmp_path / "none")).look() == []
    console = Console(file=io.StringIO(), width=100)
    console.print(watch_trainings.render(first))
    text = console.file.getvalue()
    for words in ("2/3", "3/3", "test 0.", "left", f"{first[0].curve[-1]:.4f}"):
        assert words in text, words


def test_watch_shows_a_folder_of_trainings(folder, call):
    done = call("watch", folder, "--once", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)["trainings"]
    assert sorted(each["epochs_done"] for each in facts) == [2, 3]
    assert {each["metric"] for each in facts} == {"accuracy"}
    shown = call("watch", folder, "--once")
    assert "3/3" in shown.out
    assert call("watch", folder / "none", "--once").code == 2
