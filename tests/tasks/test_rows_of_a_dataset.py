"""Rows of whatever is used like a data set of torch's."""

import numpy as np
import pytest
import torch
from PIL import Image

from nao_ray.errors import DataError
from nao_ray.tasks.images.dataset import rows

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Pairs(list):
    """A data set of these items."""


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (GREY[None], GREY[None]),
        (torch.from_numpy(GREY)[None], GREY[None]),
        (torch.from_numpy(GREY)[None] / 255, GREY[None]),
        (Image.fromarray(GREY), GREY[None]),
        (Image.fromarray(np.stack([GREY] * 3, axis=-1)), np.stack([GREY] * 3)),
    ],
)
def test_images_of_several_kinds(image, pixels):
    made = rows(Pairs([(image, 1), (image, torch.tensor(0))]))
    assert made.images.dtype == np.uint8
    assert made.labels.dtype == np.int64
    np.testing.assert_array_equal(made.images, np.stack([pixels, pixels]))
    assert made.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set Pairs is empty"),
        ([(GREY[None], 0), 3], "item 1 of Pairs is no pair of an image and a label"),
        ([(GREY[None], "cat")], "item 0 of Pairs is no pair of an image and a label"),
        ([(GREY, 0)], r"item 0 of Pairs has an image of shape \[3, 4\]; expected \[channels, height, width\]"),
        ([(GREY[None] / 2, 0)], "item 0 of Pairs has values from 0 to 5.5; expected floats of 0 to 1"),
        ([(np.full((1, 3, 4), np.nan), 0)], "item 0 of Pairs has values from nan to nan"),
        ([(GREY[None].astype(int), 0)], "item 0 of Pairs has an image of int64; expected 8 bits"),
        (
            [(GREY[None], 0), (GREY[None, :2], 0)],
            r"item 1 .* shape \[1, 2, 4\], that of item 0 \[1, 3, 4\]",
        ),
    ],
)
def test_others_are_refused_with_their_number(items, message):
    with pytest.raises(DataError, match=message) as told:
        rows(Pairs(items))
    assert "\n" not in str(told.value)
