import numpy as np

from nao_ray.tasks.digits import Digits
from nao_ray.tasks.images.image_task import ImageTaskConfig


def test_three_splits_that_share_no_image_and_lose_none():
    task = Digits(ImageTaskConfig())
    train, valid = task.load()
    test = task.load_test()
    assert [len(split) for split in (train, valid, test)] == [1294, 144, 359]
    assert max(split.images.max() for split in (train, valid, test)) == 255


def test_the_test_split_does_not_depend_on_the_seed():
    tasks = [Digits(ImageTaskConfig(split_seed=seed)) for seed in (0, 1)]
    assert (tasks[0].load_test().images == tasks[1].load_test().images).all()
    seen = [np.concatenate([split.images for split in task.load()]) for task in tasks]
    assert {image.tobytes() for image in seen[0]} == {image.tobytes() for image in seen[1]}
    assert tasks[0].data_hash() != tasks[1].data_hash()
