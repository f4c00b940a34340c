import pickle
import struct

import numpy as np
import pytest

from nao_ray.errors import DataError
from nao_ray.tasks.cifar10 import Cifar10
from nao_ray.tasks.cifar100 import Cifar100
from nao_ray.tasks.images.cifar import CifarConfig
from tests.tasks import _made_up_data as made


def rows(task):
    """All training and validation rows, in a fixed order."""
    pairs = [
        (image.tobytes(), int(label))
        for split in task.load()
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    return sorted(pairs)


@pytest.mark.parametrize(("cls", "hundred"), [(Cifar10, False), (Cifar100, True)])
def test_all_forms_hold_the_same_images(tmp_path, cls, hundred):
    binary = made.cifar_binary(tmp_path / "binary", hundred=hundred)
    expected = rows(cls(CifarConfig(path=str(binary))))
    assert len(expected) == (200 if hundred else 100)
    assert max(label for _, label in expected) == (99 if hundred else 9)
    for python2 in (True, False):
        folder = made.cifar_python(tmp_path / f"python{python2}", hundred=hundred, python2=python2)
        assert rows(cls(CifarConfig(path=str(folder)))) == expected


def test_the_made_up_python_batch_is_what_pickle_reads():
    """The test's own writer is right: the unpickler finds the same array and labels in it."""
    data = made.images(20, 0).reshape(20, -1)
    batch = pickle.loads(made.python2_batch(data, "labels", made.labels(20, 10).tolist()), encoding="bytes")
    assert (batch[b"data"] == data).all()
    assert batch[b"labels"] == made.labels(20, 10).tolist()


def test_the_folder_above_will_do(tmp_path):
    made.cifar_binary(tmp_path / "cifar-10-batches-bin")
    assert len(rows(Cifar10(CifarConfig(path=str(tmp_path))))) == 100


def test_a_python_batch_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    folder = made.cifar_python(tmp_path / "data")
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Trap(), "labels": [1, 2, 3]}))
    with pytest.raises(DataError, match="not a batch of cifar10"):
        Cifar10(CifarConfig(path=str(folder))).load()
    assert not (tmp_path / "executed").exists()


def test_the_test_batch_is_not_read_by_load(tmp_path):
    task = Cifar10(CifarConfig(path=str(made.cifar_binary(tmp_path))))
    task.load()  # there is no test file
    with pytest.raises(DataError, match=r"test_batch.bin: cannot be read"):
        task.load_test()
    (tmp_path / "test_batch.bin").write_bytes((tmp_path / "data_batch_1.bin").read_bytes())
    task.check_test()
    assert len(task.load_test()) == 20


def test_smaller_images_are_means_of_squares(tmp_path):
    folder = made.cifar_binary(tmp_path)
    whole, _ = Cifar10(CifarConfig(path=str(folder))).load()
    task = Cifar10(CifarConfig(path=str(folder), image_size=16))
    small, _ = task.load()
    assert task.image_shape == (3, 16, 16)
    corner = whole.images[:, :, :2, 2:4].astype(float).mean(axis=(2, 3))
    np.testing.assert_allclose(small.images[:, :, 0, 1], corner, atol=0.5)


def test_real_images_of_a_table(data_folder):
    path = str(data_folder / "cifar10" / "cifar10_jpeg_25k.parquet")
    task = Cifar10(CifarConfig(path=path, limit=500))
    train, valid = task.load()
    assert train.images.shape == (450, 3, 32, 32)
    assert np.bincount(valid.labels).tolist() == [5] * 10
    mean = train.images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(mean, [0.491, 0.482, 0.447], atol=0.03)  # CIFAR-10's own


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are not whole records of 3073"),
        (b"x" * 5000, "5000 bytes are not whole records"),
        (bytes([10]) + bytes(made.PIXELS), r"label 10 in row \d+, expected 0..9"),
    ],
)
def test_bad_binary_files_are_refused(tmp_path, content, message):
    folder = made.cifar_binary(tmp_path)
    (folder / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Cifar10(CifarConfig(path=str(folder))).load()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"short"])
def test_bad_python_files_are_refused(tmp_path, content):
    folder = made.cifar_python(tmp_path)
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_1: not a"):
        Cifar10(CifarConfig(path=str(folder))).load()


def test_bad_places_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"give task\.path"):
        Cifar10(CifarConfig()).load()
    with pytest.raises(DataError, match=r"no cifar10 here; expected data_batch_1\.bin"):
        Cifar10(CifarConfig(path=str(tmp_path))).load()
    with pytest.raises(DataError, match="no such file"):
        Cifar10(CifarConfig(path=str(tmp_path / "nowhere"))).load()
    made.table(tmp_path / "t.parquet", shape=(3, 12, 12))
    with pytest.raises(DataError, match=r"shape \(3, 12, 12\), expected \(3, 32, 32\)"):
        Cifar10(CifarConfig(path=str(tmp_path / "t.parquet"))).load()


def test_missing_data_say_where_they_were_looked_for_and_where_they_are_given_out(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in ((None, "no data; give task.path"), ("gone", "gone: no such file or folder"),
                          ("empty", "empty: no cifar10 here")):  # fmt: skip
        task = Cifar10(CifarConfig(path=None if path is None else str(tmp_path / path)))
        with pytest.raises(DataError, match=rf"{message}.*https://www\.cs\.toronto\.edu/~kriz/cifar\.html"):
            task.load()
