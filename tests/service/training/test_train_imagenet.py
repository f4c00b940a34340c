"""A full training on a made-up ImageNet: streamed, killed and resumed, with top-5; a broken picture costs no epoch."""

import shutil

import pandas as pd
import pytest

from nao_ray.bench import _imagenet as made
from nao_ray.config import TrainConfig
from nao_ray.errors import DataError
from nao_ray.service.training.train import evaluate, train

WHAT = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "imagenet"},
}
SMALL = (
    "epochs=3",
    "cells_per_stage=1",
    "channels=2",
    "checkpoint_every=1",
    "recipe.batch=16",
    "recipe.auxiliary_weight=0",
    "task.image_shape=[3,32,32]",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made.folders(tmp_path_factory.mktemp("imagenet"), train=3, val=1)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    return train(config(data), str(tmp_path_factory.mktemp("unbroken")), "cell")


def config(path, *overrides):
    return TrainConfig.make("nao_imagenet", WHAT, (*SMALL, f"task.path={path}", *overrides))


def same_end(row, other):
    fields = ("name", "test_accuracy", "test_top5", "test_loss", "train_loss")
    return [row[field] for field in fields] == [other[field] for field in fields]


def killed_within(epoch, monkeypatch, batch=2):
    """The reading of that epoch's batch of this number is interrupted."""
    from nao_ray.training.images import ImageObjective

    begun, whole = [], ImageObjective.batches

    def batches(self, order, skip=0):
        begun.append(skip)
        for number, given in enumerate(whole(self, order, skip)):
            if (len(begun), number) == (epoch, batch):
                raise KeyboardInterrupt
            yield given

    monkeypatch.setattr(ImageObjective, "batches", batches)


def test_killed_within_an_epoch_and_resumed_it_ends_the_same(data, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_within(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config(data), str(tmp_path), "cell")
    told = []
    row = train(config(data), str(tmp_path), "cell", listener=told.append)
    assert [step.done for step in told] == [2, 3]
    assert same_end(row, unbroken)


def test_the_row_and_evaluate_tell_top_5_beside_top_1(data, unbroken, tmp_path):
    assert 0 <= unbroken["test_accuracy"] <= unbroken["test_top5"] <= 1
    row = train(config(data, "epochs=1"), str(tmp_path), "cell")
    (read,) = pd.read_parquet(tmp_path / "final").to_dict("records")
    about, scores = evaluate(str(tmp_path / row["checkpoint"]))
    assert (scores.value, scores.top5) == (read["test_accuracy"], read["test_top5"])
    assert (about.config.data, about.valid_value) == ("all", None)
    tested = {"test_accuracy": 0.25, "test_top5": 0.5, "test_loss": 2.0}
    assert about.config.make_task().metric.told(tested) == "0.2500, top-5 0.5000 (loss 2.0000)"


def test_a_picture_that_breaks_within_an_epoch_costs_no_finished_one(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    picture = sorted((copy / "train").rglob("*.JPEG"))[20]
    content = picture.read_bytes()

    def broken(step):
        if step.done == 1:
            picture.write_bytes(content[:100] + bytes(len(content) - 100))  # of the same size: the same data

    with pytest.raises(DataError, match=f"{picture.name}: .*put it right, or task.broken=replace"):
        train(config(copy), str(tmp_path / "pool"), "cell", listener=broken)
    told = []
    row = train(config(copy, "task.broken=replace"), str(tmp_path / "pool"), "cell", listener=told.append)
    assert [step.done for step in told] == [2, 3]
    assert row["test_top5"] >= row["test_accuracy"]
