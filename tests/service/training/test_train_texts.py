"""Full trainings of texts: the mean of the weights is what is kept and tested, also of a training that was cut off."""

import math

import pytest

from nao_ray.config import TrainConfig
from nao_ray.errors import ConfigError
from nao_ray.service.training.train import evaluate, train
from nao_ray.training.averaging import WeightAverage
from nao_ray.training.checkpoint import unpack
from nao_ray.training.objective import Scores
from nao_ray.training.trainer import Trainer

WHAT = {
    "space": {"name": "nao_rnn", "nodes": 2},
    "genotype": "0:tanh 1:relu",
    "task": {"name": "made_up_text", "words": 60, "letters": 3, "gap": 1},
}
SMALL = ("hidden=4", "epochs=3", "checkpoint_every=1", "device=cpu", "recipe.batch=4", "recipe.segments=normal",
         "recipe.averaging=nonmonotone", "recipe.dropout=0.1", "task.window=14")  # fmt: skip


@pytest.fixture
def soon(monkeypatch):
    """Averaging begins after the third epoch."""
    tell = WeightAverage.tell
    monkeypatch.setattr(WeightAverage, "tell", lambda self, loss: tell(self, loss + len(self._losses)))
    return "recipe.averaging_patience=1"


def test_the_mean_of_the_weights_is_tested_also_after_a_stop(tmp_path, soon):
    config = TrainConfig.make("short_text", WHAT, (*SMALL, soon, "epochs=5"))
    row = train(config, str(tmp_path / "whole"), "cell")
    assert row["test_perplexity"] < 4
    assert row["valid_perplexity"] == row["curve"][-1]
    checkpoint = tmp_path / "whole" / row["checkpoint"]
    about, scores = evaluate(str(checkpoint))
    assert scores.value == row["test_perplexity"]
    kept = unpack(checkpoint.read_bytes())
    assert {name.partition(".")[0] for name in kept} == {"network"}

    def stop(step):
        if step.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path / "parts"), "cell", listener=stop)
    (half,) = (tmp_path / "parts" / "weights").glob("*.safetensors")
    state = unpack(half.read_bytes())
    assert (state["average.mean.w0"] != state["network.w0"]).any(), "averaging has not begun, or the test shows nothing"
    again = train(config, str(tmp_path / "parts"), "cell")
    assert (again["curve"], again["test_perplexity"]) == (row["curve"], row["test_perplexity"])
    assert about.curve == tuple(row["curve"])


def test_a_training_that_was_taken_up_goes_back_to_before_that(tmp_path, monkeypatch):
    losses = iter((1.0, 2.0, 3.0, math.nan, 2.0, 3.0, 4.0))  # taken up after the third, back to the first
    monkeypatch.setattr(Trainer, "evaluate", lambda self: Scores(loss := next(losses), loss))
    config = TrainConfig.make("short_text", WHAT, (*SMALL, "epochs=4", "recipe.restarts=1"))

    def stop(step):
        if step.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path), "cell", listener=stop)
    steps = []
    row = train(config, str(tmp_path), "cell", listener=steps.append)
    assert [step.done for step in steps] == [2, 3, 4]
    assert steps[0].seconds_left > steps[1].seconds_left > steps[2].seconds_left == 0
    assert row["curve"] == [1.0, 2.0, 3.0, 4.0]


def test_a_perplexity_beyond_all_numbers_is_gone_back_from(tmp_path, monkeypatch):
    scores = iter((Scores(2.0, 0.7), Scores(math.inf, 800.0), Scores(1.5, 0.4)))
    monkeypatch.setattr(Trainer, "evaluate", lambda self: next(scores))
    config = TrainConfig.make("short_text", WHAT, (*SMALL, "epochs=2", "recipe.restarts=1"))
    row = train(config, str(tmp_path), "cell")
    assert row["curve"] == [2.0, 1.5]
    about, _ = evaluate(str(tmp_path / row["checkpoint"]))
    assert about.curve == (2.0, 1.5)


def test_averaging_needs_a_validation_text():
    with pytest.raises(ConfigError, match=r"data must be train: with recipe\.averaging nonmonotone"):
        TrainConfig.make("short_text", WHAT, (*SMALL, "data=all"))


def test_a_text_whose_words_are_others_is_not_taken_for_the_one_trained_on(tmp_path, call):
    for name, words in (("mine", "one two three four five six"), ("other", "one two three seven")):
        (tmp_path / name).mkdir()
        for split in ("train", "valid", "test"):
            (tmp_path / name / f"{split}.txt").write_text(f"{words}\n" * 40)
    told = ("--space", "nao_rnn", "--task", "text_folder", "--set", f"task.path={tmp_path / 'mine'}")
    small = ("--set", "hidden=4", "--set", "epochs=1", "--set", "device=cpu", "--set", "recipe.batch=2")
    done = call("train", "NAO-RNN", *told, "--recipe", "short_text", *small, "--out", tmp_path / "trained")
    assert done.code == 0, done.err
    assert done.out.split()[:2] == ["test", "perplexity"]
    (checkpoint,) = (tmp_path / "trained" / "weights").glob("*.safetensors")
    found = call("evaluate", checkpoint, "--set", f"task.path={tmp_path / 'other'}")
    assert found.code == 2
    assert "was trained on other data" in found.err
    assert "\n" not in found.err.strip()
    assert "perplexity" in call("evaluate", checkpoint).out
