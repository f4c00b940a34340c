import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from nao_ray.errors import DataError
from nao_ray.tasks.image_table import ImageTable, ImageTableConfig
from tests.tasks import _made_up_data as made


def task(path, **settings):
    return ImageTable(ImageTableConfig(path=str(path), **settings))


def all_rows(splits):
    return {image.tobytes() for split in splits for image in split.images}


@pytest.mark.parametrize("struct_column", [False, True])
@pytest.mark.parametrize(("form", "shape"), [("PNG", (3, 12, 12)), ("PNG", (1, 9, 7)), ("raw", (3, 12, 12))])
def test_images_come_back_exactly(tmp_path, form, shape, struct_column):
    pixels = made.table(tmp_path / "t.parquet", form=form, shape=shape, struct_column=struct_column)
    loaded = task(tmp_path / "t.parquet", image_shape=shape if form == "raw" else None)
    assert loaded.image_shape == shape
    assert all_rows(loaded.load()) == {image.tobytes() for image in pixels}


def test_jpeg_is_close(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 16, dtype=np.uint8)[:, None], (3, 16, 16))
    cells = [made.encoded(smooth, "JPEG")] * 20
    pq.write_table(pa.table({"img": cells, "label": [0, 1] * 10}), tmp_path / "t.parquet")
    train, _ = task(tmp_path).load()
    assert np.abs(train.images.astype(int) - smooth).max() < 16


def test_test_rows_are_not_decoded(tmp_path):
    made.table(tmp_path / "t.parquet", broken_test=True)
    loaded = task(tmp_path / "t.parquet")
    assert sum(map(len, loaded.load())) == 40
    with pytest.raises(DataError, match="no image"):
        loaded.load_test()


def test_files_named_by_split_and_test_files_not_opened(tmp_path):
    made.table(tmp_path / "data/train-00000-of-00002.parquet", test=0, split_column=False)
    made.table(tmp_path / "data/train-00001-of-00002.parquet", test=0, split_column=False)
    (tmp_path / "data/test-00000-of-00001.parquet").write_bytes(b"not even Parquet")
    loaded = task(tmp_path)
    assert sum(map(len, loaded.load())) == 80
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        loaded.load_test()


def test_without_a_split_all_rows_train_and_validate(tmp_path):
    made.table(tmp_path / "t.parquet", test=0, split_column=False)
    loaded = task(tmp_path / "t.parquet")
    assert sum(map(len, loaded.load())) == 40
    with pytest.raises(DataError, match="has no test images: 1 file without splits, all rows train and validate"):
        loaded.load_test()


def test_columns_and_splits_by_name(tmp_path):
    made.table(tmp_path / "t.parquet", names=("picture", "class", "part"))
    named = {"image_column": "picture", "label_column": "class", "split_column": "part"}
    assert len(task(tmp_path, **named).load_test()) == 10
    task(tmp_path, **named).check_test()
    with pytest.raises(DataError, match="'test' is none of train, validation and test; name them"):
        task(tmp_path, **named, test_split="held_out").check_test()
    assert sum(map(len, task(tmp_path, **named, train_split="test", test_split="train").load())) == 10


def test_labels_belong_to_their_images(tmp_path):
    """Each image's first pixel is its label, through the filter, the limit and the split."""
    pixels = np.zeros((90, 1, 8, 8), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(90) % 3
    columns = {
        "image": [made.encoded(image, "PNG") for image in pixels],
        "label": np.arange(90) % 3,
        "split": ["train", "train", "test"] * 30,
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=7)
    for limit in (None, 20):
        loaded = task(tmp_path, limit=limit, num_classes=3)
        for split in (*loaded.load(), loaded.load_test()):
            assert (split.images[:, 0, 0, 0] == split.labels).all()


def test_limit_is_stratified_and_decodes_no_more(tmp_path):
    made.table(tmp_path / "t.parquet", train=80, test=20)
    train, valid = task(tmp_path, limit=40).load()
    assert (len(train), len(valid)) == (36, 4)
    assert np.bincount(np.concatenate([train.labels, valid.labels])).tolist() == [10, 10, 10, 10]


def test_resizes_to_the_shape_that_is_asked_for(tmp_path):
    made.table(tmp_path / "t.parquet", shape=(3, 12, 12))
    train, _ = task(tmp_path, image_shape=(1, 6, 8)).load()
    assert train.images.shape == (36, 1, 6, 8)


def test_network_follows_the_size(tmp_path):
    made.table(tmp_path / "colour.parquet")
    made.table(tmp_path / "grey.parquet", shape=(1, 12, 12))
    made.table(tmp_path / "large.parquet", shape=(3, 96, 96))
    assert [task(tmp_path / f"{name}.parquet").network for name in ("colour", "grey", "large")] == [
        "cifar10",
        "small",
        "imagenet",
    ]
    assert task(tmp_path / "colour.parquet", network="cifar100").network == "cifar100"


def write(path, **columns):
    pq.write_table(pa.table(columns), path)


def png(size=8):
    return made.encoded(np.zeros((3, size, size), dtype=np.uint8), "PNG")


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"image": [png()] * 20, "label": [0, 1, 2, -1] * 5}, {}, "label -1 in row 3, expected 0 or more"),
        ({"image": [png()] * 20, "label": [0, 9] * 10}, {"num_classes": 9}, r"label 9 in row 1, expected 0\.\.8"),
        ({"image": [png()] * 20, "label": [0.5] * 20}, {}, "column label is double, expected integers or text"),
        ({"image": [png()] * 20, "label": [0, None] * 10}, {}, "10 empty labels"),
        (
            {"image": [png()] * 20, "tag": [0, 1] * 10},
            {},
            "no label column; expected label, the columns are image, tag",
        ),
        ({"photo": [png()] * 20, "label": [0, 1] * 10}, {}, "no image column; expected image or img"),
        ({"image": [b"xyz"] * 20, "label": [0, 1] * 10}, {}, "3 bytes that are no image; raw bytes need image_shape"),
        ({"image": ["a.png"] * 20, "label": [0, 1] * 10}, {}, "expected the bytes of an image, got string"),
        ({"image": [png(8), png(9)] * 10, "label": [0, 1] * 10}, {}, "set image_shape to resize"),
        ({"image": [png()] * 20, "label": [0, 1] * 10, "split": ["test"] * 20}, {}, "has no train images"),
        ({"image": [png()] * 3, "label": [0, 1, 0]}, {}, "too few"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, columns, settings, message):
    write(tmp_path / "t.parquet", **columns)
    with pytest.raises(DataError, match=message) as caught:
        task(tmp_path / "t.parquet", **settings).load()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_bad_places_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="no such file or folder"):
        task(tmp_path / "nowhere").load()
    with pytest.raises(DataError, match=r"the folder has no \*.parquet files"):
        task(tmp_path / "empty").load()
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        task(tmp_path / "broken.parquet").load()
    with pytest.raises(ValidationError, match="1, 3 or 4 channels"):
        ImageTableConfig(path="x", image_shape=(2, 8, 8))
