"""A checkpoint is evaluated without what it was trained on, to the same digit; data of other classes are refused."""

import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nao_ray.config import TrainConfig
from nao_ray.errors import DataError, MissingDataError
from nao_ray.service.training.about import finished
from nao_ray.service.training.taking import taken_from
from nao_ray.service.training.train import evaluate, train
from nao_ray.training.checkpoint import pack
from tests.tasks import _made_up_data as made

CELL = " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)
SHAPE = (3, 8, 8)


def folders(place, train="train", test="test"):
    for seed, split in enumerate((train, test)):
        made.folder(place / split, seed=seed)
    return [place / train]


def hub_tables(place):
    """Numbers of classes, of which two of three are there, and their names beside the columns."""
    for seed, split in enumerate(("train", "test")):
        hub_table(place / f"{split}.parquet", seed, ["cat", "dog", "eel"])
    return [place / "train.parquet"]


def hub_table(path, seed, names):
    cells = [made.encoded(image, "PNG") for image in made.images(20, seed, SHAPE)]
    about = {"info": {"features": {"label": {"names": names}}}}
    table = pa.table({"image": cells, "label": [0, 2] * 10})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path)


def raw_tables(place):
    for seed, split in enumerate(("train", "test")):
        pixels = made.images(20, seed, SHAPE)
        columns = {"image": [image.tobytes() for image in pixels], "label": ["eel", "cat"] * 10}
        pq.write_table(pa.table(columns), place / f"{split}.parquet")
    return [place / "train.parquet"]


def shards(place):
    for seed, split in enumerate(("train", "test")):
        with tarfile.open(place / f"x-{split}-0.tar", "w") as shard:
            for number, image in enumerate(made.images(20, seed, SHAPE)):
                files = {"png": made.encoded(image, "PNG"), "cls": str(4 + number % 2).encode()}
                for ending, content in files.items():
                    info = tarfile.TarInfo(f"{number:03}.{ending}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
    return [place / "x-train-0.tar"]


def imagenet(place):
    return folders(place, test="val")


def fashion(place):
    made.fashion(place, 20)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(place / f"train-{kind}-ubyte.gz", place / f"t10k-{kind}-ubyte.gz")
    return list(place.glob("train*"))


def texts(place):
    made.text(place)
    return [place / "made.train.txt", place / "made.valid.txt"]


PICTURES = {
    "image_folder": folders,
    "image_table": hub_tables,
    "image_table raw": raw_tables,
    "image_shards": shards,
    "imagenet": imagenet,
    "fashion_mnist": fashion,
}
SETTINGS = {
    "image_table raw": ("task.image_shape=[3,8,8]",),
    "image_shards": ("task.stream=true", "task.network=small"),
    "imagenet": ("task.image_shape=[3,16,16]",),
    "text_folder": ("task.words=all", "task.min_count=1"),
}


def trained(name, place, out):
    """Trained by a task on data made for it: the checkpoint, the row, what was trained on."""
    place.mkdir()
    of_text = name not in PICTURES
    files = texts(place) if of_text else PICTURES[name](place)
    task = name.partition(" ")[0]
    where = "folder" if task == "fashion_mnist" else "path"
    space = {"name": "nao_rnn", "nodes": 2} if of_text else {"name": "nao_cnn_small"}
    what = {"space": space, "genotype": "0:tanh 1:relu" if of_text else CELL, "task": {"name": task, where: str(place)}}
    size = ("hidden=4", "recipe.batch=2") if of_text else ("channels=2", "cells_per_stage=1", "recipe.batch=8")
    more = (*size, "epochs=1", "device=cpu", *SETTINGS.get(name, ()))
    row = train(TrainConfig.make("short_text" if of_text else "short", what, more), str(out), "cell")
    return str(out / row["checkpoint"]), row, files


def remove(files):
    for file in files:
        shutil.rmtree(file) if file.is_dir() else file.unlink()


@pytest.mark.parametrize("name", [*PICTURES, "ptb", "wikitext2", "text_folder"])
def test_without_training_data_the_score_is_the_same(tmp_path, name, caplog):
    checkpoint, row, files = trained(name, tmp_path / "data", tmp_path / "out")
    remove(files)
    about, scores = evaluate(checkpoint)
    metric = about.config.make_task().metric
    assert metric.tested(scores.value, scores.loss, scores.top5) == {
        key: row[key] for key in metric.tested(scores.value, scores.loss, scores.top5)
    }
    assert "the data that it was trained on are not there to be compared: " in caplog.text
    taken = taken_from(checkpoint)
    assert taken.shapes == (about.config.make_task() if name == "fashion_mnist" else _told(checkpoint)).shapes


def _told(checkpoint):
    from nao_ray.service.training.about import told_task

    about, tensors = finished(checkpoint)
    return told_task(about.config.make_task(), tensors, checkpoint)


def test_the_rows_of_a_column_are_missing_too(tmp_path):
    made.table(tmp_path / "t.parquet", shape=SHAPE)
    what = {
        "space": {"name": "nao_cnn_small"},
        "genotype": CELL,
        "task": {"name": "image_table", "path": str(tmp_path / "t.parquet")},
    }
    row = train(TrainConfig.make("short", what, ("channels=2", "epochs=1", "device=cpu")), str(tmp_path), "cell")
    rows = pq.read_table(tmp_path / "t.parquet")
    pq.write_table(rows.filter(pa.compute.equal(rows["split"], "test")), tmp_path / "t.parquet")
    _, scores = evaluate(str(tmp_path / row["checkpoint"]))
    assert (scores.value, scores.loss) == (row["test_accuracy"], row["test_loss"])


def test_training_data_that_are_broken_are_not_missing(tmp_path):
    checkpoint, _, (folder,) = trained("image_folder", tmp_path / "data", tmp_path / "out")
    (folder / "cat/0.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train/cat/0\.png"):
        evaluate(checkpoint)
    remove([folder / "cat"])
    with pytest.raises(DataError, match=r"was trained on other data: .* or where a test split is alone"):
        evaluate(checkpoint)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("bear", "cat", "dog", "fox"), r"label 'fox' in row 36, expected one of .*: 3 classes are learnt; leave out"),
        (("ant", "bee", "cow"), r"label 'ant' in row 0, expected one of the training labels 'bear', 'cat', 'dog'"),
    ],
)
def test_a_test_split_of_other_classes_is_refused(tmp_path, classes, message):
    checkpoint, _, _ = trained("image_folder", tmp_path / "data", tmp_path / "out")
    made.folder(tmp_path / "other/test", classes=classes)
    with pytest.raises(DataError, match=rf"the test split cannot be used: .*{tmp_path}/other, test rows: {message}"):
        evaluate(checkpoint, (f"task.path={tmp_path}/other",))


def test_a_class_that_no_test_picture_has_is_told(tmp_path, caplog):
    checkpoint, _, _ = trained("image_folder", tmp_path / "data", tmp_path / "out")
    made.folder(tmp_path / "other/test", classes=("bear", "dog"))
    evaluate(checkpoint, (f"task.path={tmp_path}/other",))
    assert "no test image of class cat" in caplog.text


def test_names_and_shapes_and_settings_that_are_others_are_refused(tmp_path):
    checkpoint, _, _ = trained("image_table", tmp_path / "data", tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    at = f"task.path={other}"
    hub_table(other / "test.parquet", 1, ["cat", "dog", "fox"])
    with pytest.raises(DataError, match="otherwise than the training rows: label 2 is 'fox', expected 'eel'; point"):
        evaluate(checkpoint, (at,))
    hub_table(other / "test.parquet", 1, ["cat", "dog", "eel", "fox"])
    with pytest.raises(DataError, match="otherwise than the training rows: 4 classes, expected 3; point"):
        evaluate(checkpoint, (at,))
    pixels = [made.encoded(image, "PNG") for image in made.images(4, 0, (3, 9, 9))]
    pq.write_table(pa.table({"image": pixels, "label": [0, 2] * 2}), other / "test.parquet")
    with pytest.raises(DataError, match=r"shape \(3, 9, 9\), expected \(3, 8, 8\); set image_shape to resize"):
        evaluate(checkpoint, (at,))
    evaluate(checkpoint, (at, "task.image_shape=[3,8,8]"))
    for setting, message in (
        ("task.image_shape=[1,8,8]", r"task\.image_shape is \(1, 8, 8\), and the checkpoint was trained with \(3, 8"),
        ("task.network=imagenet", "task.network is imagenet, and the checkpoint was trained with cifar10"),
        ("task.num_classes=5", "task.num_classes is 5, and the checkpoint was trained with 2"),
        ("task.stream=true", "task.stream is True, and the checkpoint was trained with False"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate(checkpoint, (at, setting))


def test_another_unit_of_words_is_refused(tmp_path):
    checkpoint, _, files = trained("text_folder", tmp_path / "data", tmp_path / "out")
    remove(files)
    with pytest.raises(DataError, match=r"task\.unit is character, and the checkpoint was trained with word"):
        evaluate(checkpoint, ("task.unit=character",))


def _rewritten(checkpoint, legend):
    """The checkpoint, with that in the place of what it keeps; None: with nothing, as of an earlier version."""
    about, tensors = finished(checkpoint)
    del tensors["legend"]
    if legend is not None:
        tensors["legend"] = torch.from_numpy(np.frombuffer(legend, dtype=np.uint8).copy())
    with open(checkpoint, "wb") as file:
        file.write(pack(tensors, about.model_dump_json()))


@pytest.mark.parametrize("name", ["image_folder", "ptb"])
def test_an_older_checkpoint_needs_its_training_data(tmp_path, name):
    checkpoint, row, files = trained(name, tmp_path / "data", tmp_path / "out")
    _rewritten(checkpoint, None)
    _, scores = evaluate(checkpoint)
    assert scores.loss == row["test_loss"]
    remove(files)
    with pytest.raises(MissingDataError, match=r"has no train .*is of an earlier nao_ray and keeps neither classes"):
        evaluate(checkpoint)


@pytest.mark.parametrize(
    ("legend", "message"),
    [
        (b"{", "what stands in legend is not JSON"),
        (b"\xff\xfe", "what stands in legend is not JSON"),
        (b"[1]", "what stands in legend is list, expected an object of JSON"),
        (
            b'{"words": ["a"], "unit": "word"}',
            "what the checkpoint keeps of its training data is not of this task: cla",
        ),
    ],
)
def test_a_legend_that_is_none_is_refused(tmp_path, legend, message):
    checkpoint, _, _ = trained("image_folder", tmp_path / "data", tmp_path / "out")
    _rewritten(checkpoint, legend)
    with pytest.raises(DataError, match=rf"\.safetensors: .*{message}") as refused:
        evaluate(checkpoint)
    assert "\n" not in str(refused.value)


def test_words_that_are_no_vocabulary_are_refused(tmp_path):
    checkpoint, _, _ = trained("ptb", tmp_path / "data", tmp_path / "out")
    for words in (["a", "b"], ["a", "a", "<unk>"]):
        _rewritten(checkpoint, json.dumps({"words": words, "unit": "space"}).encode())
        with pytest.raises(DataError, match="words are no vocabulary: each once, with <unk>"):
            evaluate(checkpoint)


def test_a_training_that_goes_on_keeps_the_legend(tmp_path):
    folders(tmp_path / "data")
    what = {
        "space": {"name": "nao_cnn_small"},
        "genotype": CELL,
        "task": {"name": "image_folder", "path": str(tmp_path / "data")},
    }
    settings = ("channels=2", "cells_per_stage=1", "epochs=2", "device=cpu", "checkpoint_every=1")
    config = TrainConfig.make("short", what, settings)

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path / "out"), "cell", listener=stop)
    row = train(config, str(tmp_path / "out"), "cell")
    _, tensors = finished(str(tmp_path / "out" / row["checkpoint"]))
    assert {name.partition(".")[0] for name in tensors} == {"network", "normaliser", "legend"}
    assert json.loads(tensors["legend"].numpy().tobytes()) == {
        "classes": ["bear", "cat", "dog"],
        "numbering": None,
        "image_shape": [3, 8, 8],
        "network": "cifar10",
        "streams": False,
    }
