"""`class/picture.png`, with or without folders of splits."""

import pytest
from PIL import Image

from nao_ray.errors import DataError
from nao_ray.tasks.image_folder import ImageFolder
from tests.tasks import _made_up_data as made


def task(path, **settings):
    return ImageFolder(ImageFolder.Config(path=str(path), **settings))


def test_a_folder_of_classes_is_a_task(tmp_path):
    loaded = task(made.folder(tmp_path))
    train, valid = loaded.load()
    assert (len(train), len(valid), loaded.num_classes) == (32, 4, 3)
    assert tuple(loaded.class_names) == ("bear", "cat", "dog")
    expected = {image.tobytes(): number for number in range(3) for image in made.images(12, number, (3, 8, 8))}
    for split in (train, valid):
        assert [expected[image.tobytes()] for image in split.images] == split.labels.tolist()
    with pytest.raises(DataError, match="has no test images: without splits, all pictures train and validate"):
        loaded.load_test()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "dev", "testing")])
def test_folders_of_splits(tmp_path, names):
    for seed, name in enumerate(names):
        made.folder(tmp_path / name, seed=seed, per_class=12 - seed)
    loaded = task(tmp_path)
    assert [len(split) for split in (*loaded.load(), loaded.load_test())] == [36, 33, 30]
    assert f"(train: {names[0]}/, validation: {names[1]}/, test: {names[2]}/)" in loaded.facts().line
    assert "36 images train, 33 validate; 3 classes (bear 12, cat 12, dog 12 training images)" in loaded.facts().line


def test_a_class_may_be_called_train(tmp_path):
    loaded = task(made.folder(tmp_path, classes=("bus", "train", "test")))
    assert tuple(loaded.class_names) == ("bus", "test", "train")


def test_the_same_pictures_elsewhere_are_the_same_data(tmp_path):
    made.folder(tmp_path / "here")
    digest = task(tmp_path / "here").data_hash()
    (tmp_path / "here").rename(tmp_path / "there")
    assert task(tmp_path / "there").data_hash() == digest
    (tmp_path / "there/cat/3.png").unlink()
    assert task(tmp_path / "there").data_hash() != digest


def test_what_is_left_out_is_told_unless_it_is_nobodys(tmp_path):
    made.folder(tmp_path)
    made.folder(tmp_path, classes=(".ipynb_checkpoints", "_tmp"))
    (tmp_path / "cat/._0.png").write_bytes(b"")
    (tmp_path / "cat/notes.txt").write_text("x")
    (tmp_path / "loose.png").write_bytes((tmp_path / "cat/0.png").read_bytes())
    loaded = task(tmp_path)
    assert sum(map(len, loaded.load())) == 36
    assert set(loaded.facts().odd) == {
        "1 left out: of type .txt",
        f"1 left out: beside the folders of {tmp_path.name}/",
    }


def test_pictures_of_several_sizes_need_a_shape(tmp_path):
    made.folder(tmp_path)
    Image.new("RGB", (9, 7)).save(tmp_path / "dog/9.png")
    with pytest.raises(DataError, match=r"dog/9.png: shape \(3, 7, 9\), expected \(3, 8, 8\); set image_shape"):
        task(tmp_path).load()
    assert task(tmp_path, image_shape=(1, 6, 6)).load()[0].images.shape[1:] == (1, 6, 6)


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path):
    made.folder(tmp_path / "train")
    made.folder(tmp_path / "test", classes=("bear", "fox"))
    loaded = task(tmp_path)
    loaded.load()
    with pytest.raises(DataError, match=r"the test split cannot be used: .*label 'fox' in row 12, expected one of"):
        loaded.load_test()


def test_classes_that_a_split_lacks_are_told(tmp_path):
    made.folder(tmp_path / "train")
    made.folder(tmp_path / "val", classes=("bear", "dog"), seed=1)
    assert task(tmp_path).facts().odd == ("no validation image of class cat",)


def test_other_folders_are_refused_in_one_line(tmp_path):
    made.folder(tmp_path / "mixed/train")
    made.folder(tmp_path / "mixed", classes=("cat",))
    made.folder(tmp_path / "years/2023")
    made.folder(tmp_path / "years/2024")
    made.folder(tmp_path / "blank")
    (tmp_path / "blank/empty").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file.png").write_bytes(b"")
    for place, message in {
        "mixed": "train/ holds folders and cat/ does not",
        "years": "the splits '2023', '2024' are not understood",
        "blank": "no picture of class empty; expected .jpg",
        "nothing": r"no folders of classes; expected class/picture\.png",
        "nowhere": "not a folder of this machine",
        "file.png": "not a folder of this machine",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            task(tmp_path / place).load()
        assert "\n" not in str(caught.value)
        assert place in str(caught.value)


def test_a_broken_picture_is_named(tmp_path):
    made.folder(tmp_path)
    (tmp_path / "cat/5.png").write_bytes(made.encoded(made.images(1, 0, (3, 8, 8))[0], "PNG")[:-40])
    with pytest.raises(DataError, match=r"cat/5\.png: a picture of \d+ bytes that cannot be read"):
        task(tmp_path).load()
