"""What labels become, and which are none."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from nao_ray.errors import DataError
from nao_ray.tasks.cifar10 import Cifar10
from nao_ray.tasks.image_table import ImageTable
from tests.tasks import _made_up_data as made


def task(tmp_path, labels, **settings):
    cells = [made.encoded(image, "PNG") for image in made.images(len(labels), 0, (3, 8, 8))]
    columns = {"image": cells, "label": labels} | ({"split": settings.pop("split")} if "split" in settings else {})
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return ImageTable(ImageTable.Config(path=str(tmp_path / "t.parquet"), **settings))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2], ("0", "1", "2")),
        ([7, 3], ("3", "7")),
        ([10_000_000, 0], ("0", "10000000")),
        ([2**62, 5], ("5", str(2**62))),
        (pa.array([2**64 - 1, 1], pa.uint64()), ("1", str(2**64 - 1))),
        (["dog", "bear", "cat"], ("bear", "cat", "dog")),
        ([True, False], ("false", "true")),
        (pa.array(["b", "a"]).dictionary_encode(), ("a", "b")),
        (pa.array([4, 2], pa.int8()), ("2", "4")),
    ],
)
def test_classes_are_the_distinct_labels_in_their_order(tmp_path, labels, names):
    column = labels if isinstance(labels, pa.Array) else pa.array(labels)
    many = pa.concat_arrays([column] * 20)
    loaded = task(tmp_path, many)
    assert loaded.num_classes == len(names)
    assert tuple(loaded.class_names) == names
    texts = [str(value).lower() if isinstance(value, bool) else str(value) for value in many.to_pylist()]
    assert [names[number] for number in loaded.training_rows().labels] == texts


def test_names_and_counts_are_told(tmp_path):
    loaded = task(tmp_path, ["dog", "cat", "dog", "dog"] * 10)
    assert "2 classes (cat 9, dog 27 training images)" in loaded.facts().line


def test_classes_that_are_missing_are_told(tmp_path):
    split = ["train"] * 30 + ["val"] * 10
    loaded = task(tmp_path, ["a", "b", "c"] * 10 + ["a", "b"] * 5, split=split)
    assert loaded.facts().odd == ("no validation image of class c",)
    ten = task(tmp_path, [0, 1] * 20, num_classes=5)
    assert ten.facts().odd == (
        "no training image of class 2, 3, 4",
        "no validation image of class 2, 3, 4",
    )


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([3] * 40, {}, "every image has the label 3; there is nothing to tell apart"),
        ([3] * 40, {"num_classes": 5}, "every training image has one label"),
        (["cat"] * 40, {}, "every image has the label 'cat'"),
        (list(range(40)), {}, "40 distinct labels in 40 rows, e.g. 0, 1, 2, 3, 4 and 35 more: not classes"),
        ([-1, 0, 1, 2] * 10, {}, "label -1 in row 0, expected 0 or more; leave out rows without a label"),
        (["a", ""] * 20, {}, "20 empty labels"),
        (["a", "b"] * 20, {"num_classes": 3}, r"2 classes, 'a', 'b', and task\.num_classes is 3; leave it out"),
        ([0, 2**62] * 20, {"num_classes": 2}, rf"label {2**62} in row 1, expected 0\.\.1"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, labels, settings, message):
    with pytest.raises(DataError, match=message):
        task(tmp_path, labels, **settings).load()


def test_a_label_that_was_not_trained_on_is_refused_in_validation_and_test(tmp_path):
    for split in ("validation", "test"):
        loaded = task(tmp_path, ["a", "b"] * 10 + ["a", "fox"] * 5, split=["train"] * 20 + [split] * 10)
        message = f"{split} rows: label 'fox' in row 1, expected one of the training labels 'a', 'b'"
        with pytest.raises(DataError, match=message):
            (*loaded.load(), loaded.load_test())


def test_one_class_of_a_known_data_set_is_refused(tmp_path):
    made.table(tmp_path / "t.parquet", classes=1, shape=(3, 32, 32))
    with pytest.raises(DataError, match="every training image has one label"):
        Cifar10(Cifar10.Config(path=str(tmp_path))).load()


def test_more_classes_than_there_may_be_are_refused():
    with pytest.raises(ValidationError, match="less than or equal to 100000"):
        ImageTable.Config(path="x", num_classes=10_000_000)


def test_one_training_image_is_too_few(tmp_path):
    labels, split = [0, 1] * 25, ["train"] * 4 + ["val"] * 46
    with pytest.raises(DataError, match="1 training image makes no step of training"):
        task(tmp_path, labels, split=split, limit=10).load()


def test_the_numbers_0_to_n_are_their_own_classes(tmp_path):
    loaded = task(tmp_path, np.arange(60) % 6)
    assert loaded.training_rows().labels.tolist() == (np.arange(60) % 6).tolist()


def _of_a_hub(path, names):
    """A shard as data hubs write it: numbers, and what they stand for beside the columns."""
    cells = [made.encoded(image, "PNG") for image in made.images(20, len(path.name), (3, 8, 8))]
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": cells, "label": [0, 2] * 10})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), path)


def test_names_that_a_data_hub_wrote_are_kept(tmp_path):
    _of_a_hub(tmp_path / "train.parquet", ["cat", "dog", "eel"])
    _of_a_hub(tmp_path / "test.parquet", ["cat", "dog", "eel"])
    loaded = ImageTable(ImageTable.Config(path=str(tmp_path)))
    assert loaded.load_test().labels.tolist() == [0, 1] * 10
    assert "2 classes (cat 9, eel 9 training images)" in loaded.facts().line
    _of_a_hub(tmp_path / "test.parquet", ["eel", "dog", "cat"])
    with pytest.raises(
        DataError, match="the test rows number their classes otherwise than the training rows: label 0 is"
    ):
        ImageTable(ImageTable.Config(path=str(tmp_path))).load_test()
