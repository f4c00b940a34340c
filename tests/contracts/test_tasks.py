"""What every task promises, and every one of images, run over all that are registered."""

import subprocess
import sys

import numpy as np
import pytest

from nao_ray import registry
from nao_ray.bench import _imagenet as imagenet
from nao_ray.contracts.tasks import CHECKS
from nao_ray.errors import DataError
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.image_task import ImageTask
from tests.tasks import _made_up_data as made


def _table(folder):
    made.table(folder / "t.parquet")
    return {"path": str(folder)}


SETTINGS = {
    "cifar10": lambda folder: {"path": str(made.cifar_binary(folder))},
    "cifar100": lambda folder: {"path": str(made.cifar_binary(folder, hundred=True))},
    "fashion_mnist": lambda folder: {"folder": str(made.fashion(folder))},
    "image_folder": lambda folder: {"path": str(made.folder(folder))},
    "image_shards": lambda folder: {
        "path": str(imagenet.shards(folder / "shards", 3, 12, 0)),
        "image_shape": (3, 8, 8),
    },
    "image_table": _table,
    "imagenet": lambda folder: {"path": str(imagenet.folders(folder, 3, 12)), "image_shape": (3, 8, 8)},
    "ptb": lambda folder: {"path": str(made.text(folder))},
    "text_folder": lambda folder: {"path": str(made.text(folder))},
    "wikitext2": lambda folder: {"path": str(made.text(folder))},
}
"""Data for the tasks that read files; a task without an entry has to work as it is."""
IMAGE_TASKS = [name for name in registry.names("task") if issubclass(registry.load("task", name), ImageTask)]


def _maker(name, folder):
    """Makes the task; settings on top of those that give it its data."""
    cls = registry.load("task", name)
    data = SETTINGS.get(name, lambda _: {})(folder)
    return lambda **settings: cls(cls.Config(**data, **settings))


@pytest.fixture(scope="module", params=IMAGE_TASKS)
def make(request, tmp_path_factory):
    return _maker(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("task"))
def test_it_keeps_the_contract(name, check, tmp_path):
    check(_maker(name, tmp_path))


def test_a_tenth_validates_and_no_image_does_both(make):
    train, valid = make().load()
    assert len(valid) == round((len(train) + len(valid)) / 10)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in valid.images}


def test_the_hash_tells_apart_what_is_read(make):
    digest = make().data_hash()
    assert digest != make(split_seed=1).data_hash()
    assert digest != make(limit=20).data_hash()


def test_the_limit_counts_both_splits(make):
    assert sum(map(len, make(limit=30).load())) == 30


def test_a_test_split_that_cannot_be_used_is_found_by_asking(make, monkeypatch):
    """The files of CIFAR and Fashion-MNIST that are made up here have none."""
    try:
        make().load_test()
    except DataError:
        with pytest.raises(DataError, match="test"):
            make().check_test()
        return
    make().check_test()
    task = make()
    rows = task.load_test()
    bad = Images(rows.images, np.full_like(rows.labels, task.num_classes))
    monkeypatch.setattr(type(task), "test_rows", lambda self: bad)
    with pytest.raises(DataError, match=f"the test split cannot be used: .*label {task.num_classes} in row 0"):
        make().check_test()


def test_counts_and_classes_are_told(make):
    facts = make().facts()
    train, valid = make().load()
    assert f"{len(train):,} images train, {len(valid):,} validate" in facts.line
    assert f"{make().num_classes} classes" in facts.line


def test_a_task_needs_no_torch():
    code = (
        "import sys; from nao_ray import registry; [registry.load('task', n) for n in registry.names('task')];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
