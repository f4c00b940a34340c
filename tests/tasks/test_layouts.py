"""Which files and rows train, validate and test: known layouts are told, all others refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nao_ray.errors import DataError
from nao_ray.tasks.cifar10 import Cifar10
from nao_ray.tasks.image_table import ImageTable
from nao_ray.tasks.parts.layouts import Wanted, assign, split_files, visible
from tests.tasks import _made_up_data as made

ROWS = 20
SHAPE = (3, 32, 32)


def shard(path, seed, *, rows=ROWS, **columns):
    """A Parquet file of noise whose first pixel is `seed`; extra columns as they are given."""
    pixels = made.images(rows, seed, SHAPE)
    pixels[:, :, 0, 0] = seed
    cells = [made.encoded(image, "PNG") for image in pixels]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": np.arange(rows) % 10, **columns}), path)


def image_table(path, **settings):
    return ImageTable(ImageTable.Config(path=str(path), **settings))


def cifar10(path):
    return Cifar10(Cifar10.Config(path=str(path)))


def seeds(split):
    """Which shards a split's images come from."""
    return set(split.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("make", [image_table, cifar10])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/0000", "test/0000"),
        ("default/train/0000", "default/test/0000"),
        ("Train/a-1", "Test/a-2"),
        ("training/0", "testing/0"),
        ("cifar10-train", "cifar10-test"),
        ("cifar10-train/0", "cifar10-test/0"),
        ("split=train/0", "split=test/0"),
        ("train-00000-of-00001-0a1b2c3d4e5f6071", "test-00000-of-00001-8f1b2c3d4e5f6072"),
        ("train", "test"),
        ("data/train.snappy", "data/test.snappy"),
        ("train/0000", "test"),
    ],
)
def test_splits_are_told_by_folders_and_by_files(tmp_path, make, train, test):
    shard(tmp_path / f"{train}.parquet", 1)
    shard(tmp_path / f"{test}.parquet", 2)
    task = make(tmp_path)
    assert [seeds(split) for split in task.load()] == [{1}, {1}]
    assert seeds(task.load_test()) == {2}
    assert "(train: 1 file, test: 1 file)" in task.facts().line


@pytest.mark.parametrize("make", [image_table, cifar10])
@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev", "Validation"])
def test_a_validation_split_that_is_there_validates(tmp_path, make, name):
    shard(tmp_path / "train/0.parquet", 1)
    shard(tmp_path / f"{name}/0.parquet", 2, rows=10)
    task = make(tmp_path)
    train, valid = task.load()
    assert (len(train), len(valid)) == (20, 10)
    assert (seeds(train), seeds(valid)) == ({1}, {2})
    assert "20 images train, 10 validate; 10 classes" in task.facts().line


def test_the_limit_is_shared_with_the_validation_split(tmp_path):
    shard(tmp_path / "train.parquet", 1, rows=30)
    shard(tmp_path / "val.parquet", 2, rows=10)
    assert [len(split) for split in image_table(tmp_path, limit=20).load()] == [15, 5]
    assert [len(split) for split in image_table(tmp_path, limit=400).load()] == [30, 10]


@pytest.mark.parametrize("values", [("train", "val", "test"), ("Training", "dev", "TEST")])
def test_a_column_names_three_splits(tmp_path, values):
    shard(tmp_path / "t.parquet", 1, rows=40, split=np.repeat(values, [20, 10, 10]))
    task = image_table(tmp_path)
    assert [len(split) for split in (*task.load(), task.load_test())] == [20, 10, 10]
    assert "column split, train: 20 rows, validation: 10 rows, test: 10 rows" in task.facts().line


def test_any_column_of_any_names(tmp_path):
    shard(tmp_path / "t.parquet", 1, rows=80, fold=np.repeat([0, 1, 2, 3], 20))
    names = {"split_column": "fold", "train_split": "0", "valid_split": "1", "test_split": "2"}
    with pytest.raises(DataError, match="the splits '0', '1', '2', '3' are not understood: '3' is none of"):
        image_table(tmp_path, **names).load()
    task = image_table(tmp_path, **names, unused_splits=("3",))
    assert [len(split) for split in (*task.load(), task.load_test())] == [20, 20, 20]
    with pytest.raises(DataError, match="no split column subset; the columns are image, label, fold"):
        image_table(tmp_path, split_column="subset").load()


def test_a_validation_split_that_is_asked_for_has_to_be_there(tmp_path):
    shard(tmp_path / "train.parquet", 1)
    with pytest.raises(DataError, match="has no validation images: train: 1 file"):
        image_table(tmp_path, valid_split="holdout").load()


def test_files_that_are_nobodys_data_are_not_read(tmp_path):
    shard(tmp_path / "train/0.parquet", 1)
    for place in ("_tmp/train/0", ".cache/train/0", "train/._0", "train/_1", "__MACOSX/train/1"):
        shard(tmp_path / f"{place}.parquet", 9)
    task = image_table(tmp_path)
    assert seeds(task.load()[0]) == {1}
    assert "(train: 1 file)" in task.facts().line


@pytest.mark.parametrize("make", [image_table, cifar10])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/train/0", "b/train/0", "b/validation/0"], "2 configs or revisions|not one table: .*a/train/0.parquet"),
        (["1.0.0/train/0", "1.1.0/train/0"], "not one table"),
        (["default/train/0", "default/partial-train/0"], "not one table"),
        (["cifar10-train", "cifar100-train"], "not one table"),
        (["train-00000-of-00001-0a1b2c3d4e5f6071", "train-00000-of-00001-8f1b2c3d4e5f6072"], "a shard is there twice"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "of 1 and of 2; keep one revision"),
        (["a/0", "b/0"], "not one table: a/0.parquet, b/0.parquet; point task.path at one"),
        (["trainset", "testset"], "name files of one table after their splits"),
        (["train", "more"], "train.parquet is named after a split and more.parquet is not"),
        (["train/test-0", "train/train-0"], "train/test-0.parquet is named after test and train; rename it"),
        (["test-0", "test-1"], "has no train images: test: 2 files"),
        (["train", "val", "dev"], "two are of validation; name them"),
    ],
)
def test_other_layouts_are_refused_with_what_was_found(tmp_path, make, names, message):
    for seed, name in enumerate(names):
        shard(tmp_path / f"{name}.parquet", seed)
    with pytest.raises(DataError, match=message) as caught:
        make(tmp_path).load()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("first", [0, 1])
def test_shards_of_which_some_have_a_split_column_are_refused(tmp_path, first):
    columns = {"split": ["train"] * 10 + ["test"] * 10}
    for number in (0, 1):
        shard(tmp_path / f"{number:04}.parquet", number, **(columns if number == first else {}))
    with pytest.raises(DataError, match=r"000[01].parquet are not of one table: they differ in the columns split"):
        image_table(tmp_path).load()


def test_shards_with_labels_of_two_types_are_refused(tmp_path):
    shard(tmp_path / "0.parquet", 0)
    shard(tmp_path / "1.parquet", 1)
    table = pq.read_table(tmp_path / "1.parquet")
    pq.write_table(table.set_column(1, "label", table["label"].cast(pa.string())), tmp_path / "1.parquet")
    with pytest.raises(DataError, match="differ in the columns label"):
        image_table(tmp_path).load()


def test_shards_without_splits_all_train_and_that_is_told(tmp_path):
    for number in (0, 1):
        shard(tmp_path / f"part-{number:05}.parquet", number)
    task = image_table(tmp_path)
    assert sum(map(len, task.load())) == 2 * ROWS
    assert "(2 files without splits, all rows train and validate)" in task.facts().line


@pytest.mark.parametrize(
    "column",
    [{"subset": ["train"] * 10 + ["test"] * 10}, {"is_test": [False] * 15 + [True] * 5}, {"set": ["Train"] * ROWS}],
)
def test_a_column_that_seems_to_name_splits_is_not_overlooked(tmp_path, column):
    shard(tmp_path / "t.parquet", 0, **column)
    with pytest.raises(DataError, match=f"the column {next(iter(column))} seems to name splits; set task.split_column"):
        image_table(tmp_path).load()
    assert sum(map(len, image_table(tmp_path, split_column=None).load())) == ROWS


def test_files_and_a_column_that_disagree_are_refused(tmp_path):
    shard(tmp_path / "train.parquet", 0, split=["train"] * 10 + ["validation"] * 10)
    with pytest.raises(DataError, match=r"files named train hold other rows by their column split \('train': 10, 'val"):
        image_table(tmp_path).load()
    assert sum(map(len, image_table(tmp_path, split_column=None).load())) == ROWS


def test_rows_without_a_split_are_refused(tmp_path):
    shard(tmp_path / "t.parquet", 0, split=["train"] * 15 + [None] * 5)
    with pytest.raises(DataError, match="5 rows have no value in the split column split"):
        image_table(tmp_path).load()


def test_shards_that_are_missing_are_told(tmp_path):
    shard(tmp_path / "train-00000-of-00040.parquet", 0)
    assert "1 of 40 train files are there" in image_table(tmp_path).facts().odd


def test_pictures_in_two_splits_are_counted_and_told(tmp_path):
    shard(tmp_path / "train.parquet", 1)
    shard(tmp_path / "validation.parquet", 1, rows=10)
    assert "10 of 10 validation images are training images too" in image_table(tmp_path).facts().line


def test_the_validation_split_may_be_the_test_split():
    wanted = Wanted(test="validation", unused=("test",))
    assert assign(["train", "validation", "test"], wanted, "x") == {
        "train": "train",
        "validation": "test",
        "test": None,
    }


def test_a_configured_name_may_have_several_words():
    wanted = Wanted(train="train_clean", unused=("train_noisy",))
    layout = split_files(["train_clean-0.parquet", "train_noisy-0.parquet", "test-0.parquet"], wanted, "x")
    assert layout.files == {"train": ["train_clean-0.parquet"], "test": ["test-0.parquet"]}


def test_a_filesystem_whose_package_is_missing_is_one_line():
    with pytest.raises(DataError, match=r"hf://datasets/a/b: Install huggingface_hub") as caught:
        image_table("hf://datasets/a/b").load()
    assert "\n" not in str(caught.value)


def test_what_a_search_wrote_is_no_data():
    found = visible(["a.parquet", "p/run.yaml", "p/trials/a.parquet", "px/a.parquet", ".c/a.parquet", "run.yaml"])
    assert found == ["a.parquet", "px/a.parquet", "run.yaml"]
