import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nao_ray.errors import DataError
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images

LABELS = st.lists(st.integers(0, 6), min_size=10, max_size=200).map(lambda values: np.array(values, dtype=np.int64))


@given(LABELS, st.integers(0, 2**32))
def test_a_split_is_a_partition_with_a_tenth_of_every_class(labels, seed):
    train, valid = splits.split(labels, seed)
    assert sorted([*train, *valid]) == list(range(len(labels)))
    assert len(valid) == round(len(labels) / 10)
    for label in np.unique(labels):
        share = (labels == label).sum() / len(labels) * len(valid)
        assert abs((labels[valid] == label).sum() - share) < 1


def test_the_seed_names_the_split():
    labels = np.arange(1000) % 10
    first, again, other = (splits.split(labels, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[:5] == [7, 40, 51, 70, 76]  # a change would change every published score


def test_a_share_keeps_proportions():
    labels = np.arange(100) % 4
    part = splits.share(labels, 0.2, 0)
    assert np.bincount(labels[part]).tolist() == [5, 5, 5, 5]
    assert splits.share(labels, 1.0, 0) is None
    assert len(splits.share(labels, 0.001, 0)) == 2  # one image makes no step of training


def test_labels_out_of_range_name_the_row():
    with pytest.raises(DataError, match=r"there: label 4 in row 2, expected 0\.\.3"):
        splits.check_labels(np.array([0, 3, 4, 5]), 4, "there")


def test_the_digest_sees_every_image_label_and_split():
    rows = Images(np.zeros((4, 1, 2, 2), dtype=np.uint8), np.zeros(4, dtype=np.int64))
    other_image = Images(rows.images + np.eye(1, 4, dtype=np.uint8).reshape(4, 1, 1, 1), rows.labels)
    other_label = Images(rows.images, np.array([0, 0, 0, 1]))
    digests = [splits.digest(rows, rows), splits.digest(other_image, rows), splits.digest(rows, other_label)]
    assert len({*digests, splits.digest(rows)}) == 4
