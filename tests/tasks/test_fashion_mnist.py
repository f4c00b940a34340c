import gzip
from pathlib import Path

import numpy as np
import pytest

from nao_ray.errors import DataError
from nao_ray.tasks.fashion_mnist import FashionMnist, FashionMnistConfig
from tests.tasks import _made_up_data as made

DEBIAN = Path(FashionMnistConfig().folder)


def task(folder, **settings):
    return FashionMnist(FashionMnistConfig(folder=str(folder), **settings))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_the_whole_data_set():
    train, valid = task(DEBIAN).load()
    assert np.bincount(train.labels).tolist() == [5400] * 10
    assert np.bincount(valid.labels).tolist() == [600] * 10
    assert train.images.mean() / 255 == pytest.approx(0.286, abs=0.002)  # published mean of the training images
    assert len(task(DEBIAN).load_test()) == 10_000


def test_the_test_files_are_not_read_by_load(tmp_path):
    small = task(made.fashion(tmp_path))
    assert [len(split) for split in small.load()] == [54, 6]
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        small.load_test()


def test_images_may_be_shrunk(tmp_path):
    folder = made.fashion(tmp_path)
    whole, small = task(folder), task(folder, image_size=14)
    assert small.image_shape == (1, 14, 14)
    for before, after in zip(whole.load(), small.load(), strict=True):
        squares = before.images.reshape(-1, 1, 14, 2, 14, 2).astype(float).mean(axis=(3, 5))
        np.testing.assert_allclose(after.images, squares, atol=0.5)
    assert small.data_hash() != whole.data_hash()


def test_files_need_not_be_compressed(tmp_path):
    digest = task(made.fashion(tmp_path)).data_hash()
    for path in list(tmp_path.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert task(tmp_path).data_hash() == digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "cannot be read"),
        (gzip.compress(b"0" * 100, mtime=0)[:-20], "cannot be read"),
        (gzip.compress(b"0" * 100, mtime=0), "not an IDX file"),
        (gzip.compress(b"", mtime=0), "not an IDX file"),
        (
            gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\x3c\0\0\0\x1c\0\0\0\x1c" + b"\0" * 5, mtime=0),
            "has 5 bytes of data",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    made.fashion(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        task(tmp_path).load()


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"task\.folder says where it is; given out at https://\S+ and as"):
        task(tmp_path).load()
