import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from nao_ray import rng
from nao_ray.training.augment import Normaliser, augment, recolour
from nao_ray.training.augmentation import Augmentation

IDENTITY = Normaliser(torch.zeros(3), torch.full((3,), 1 / 255))  # bytes stay what they are


def generator(seed=0):
    return rng.torch_generator(seed, "test")


@pytest.fixture
def images():
    return torch.randint(1, 256, (64, 3, 8, 10), dtype=torch.uint8, generator=generator(1))


def test_without_augmentation_only_normalised(images):
    out = augment(images, generator(), IDENTITY, Augmentation(crop_padding=0, flip=False))
    assert torch.equal(out, images.float())
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_crops_are_windows_of_the_padded_image(images):
    out = augment(images, generator(), IDENTITY, Augmentation(crop_padding=2, flip=False))
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2))
    offsets = set()
    for image, whole in zip(out, padded, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(image, whole[:, y : y + 8, x : x + 10])]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 15  # of 25, by 64 draws


def test_half_of_the_images_are_mirrored(images):
    images = images.repeat(10, 1, 1, 1)
    out = augment(images, generator(), IDENTITY, Augmentation(crop_padding=0, flip=True))
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 270 < mirrored.sum() < 370  # 640 draws, 4 deviations


def test_cutout_is_a_square_clipped_at_the_borders(images):
    images = images.repeat(20, 1, 1, 1)
    out = augment(images, generator(), IDENTITY, Augmentation(crop_padding=0, flip=False, cutout=4))
    holes = (out == 0).all(1)  # no byte is 0, so only the cutout is
    assert torch.equal(out * ~holes.unsqueeze(1), images.float() * ~holes.unsqueeze(1))
    sizes = set()
    for hole in holes:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole.sum() == len(rows) * len(columns)  # a rectangle
        assert len(rows) == rows[-1] - rows[0] + 1
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (4, 4)
    assert min(sizes) == (2, 2)  # around a corner pixel: rows -2..1 and columns -2..1
    hits = holes.float().mean(0)
    assert hits[4, 5] == pytest.approx(16 / 80, abs=0.05)  # 16 of the 80 centres cover an inner pixel
    assert hits[0, 0] == pytest.approx(9 / 80, abs=0.04)  # centres (0..2, 0..2)


def test_the_generator_decides(images):
    settings = Augmentation(crop_padding=2, flip=True, cutout=3)
    first, again, other = (augment(images, generator(seed), IDENTITY, settings) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone(images):
    state = torch.random.get_rng_state()
    augment(images, generator(), IDENTITY, Augmentation(cutout=3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_normalised_images_have_mean_0_and_deviation_1(images):
    out = Normaliser.of(images)(images)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_an_empty_channel_is_centred_and_not_blown_up():
    images = torch.full((5, 1, 4, 4), 77, dtype=torch.uint8)
    assert Normaliser.of(images)(images).abs().max() < 1e-6


# -- ImageNet's -----------------------------------------------------------------------------------------------


def test_crops_of_random_area_are_made_as_large_as_the_image():
    """A picture of its own coordinates tells which part of it is left: its area, its shape and its place."""
    side = 64
    ramp = torch.arange(side) * 4
    picture = torch.stack([ramp.view(-1, 1).expand(side, side), ramp.expand(side, side), torch.zeros(side, side)])
    images = picture.to(torch.uint8).repeat(400, 1, 1, 1)
    out = augment(images, generator(), IDENTITY, Augmentation(crop_padding=0, flip=False, crop_area=0.08))
    rows, columns = out[:, 0, :, 0] / 4, out[:, 1, 0, :] / 4
    assert torch.allclose(out[:, 0].var(dim=2), torch.zeros(400, side), atol=1e-3), "rows stay rows"
    # pixel centres at the middle of a side are `length / side` apart; at the ends the crop's border is repeated
    heights, widths = ((line[:, 40] - line[:, 24]) / 16 * side for line in (rows, columns))
    share, shape = heights * widths / side**2, widths / heights
    assert 0.07 < share.min() < 0.12
    assert 0.95 < share.max() <= 1.001
    assert 0.45 < share.mean() < 0.6  # uniform from 0.08 to 1, but that large ones fit less often
    assert 0.72 < shape.min() < 0.8
    assert 1.25 < shape.max() < 1.38
    starts = rows[:, 0]
    assert starts.min() == 0
    assert torch.all(starts + heights <= side + 1e-3)
    assert len(starts.round().unique()) > 20
    whole = augment(images[:3], generator(), IDENTITY, Augmentation(crop_padding=0, flip=False, crop_area=1))
    torch.testing.assert_close(whole, images[:3].float(), rtol=0, atol=1e-3)


def test_other_colours_are_those_of_pillow():
    """One change at a time: Pillow rounds to bytes after each."""
    pictures = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8, generator=generator(2))
    for number, kind in enumerate((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)):
        factors = torch.ones(3, 5)
        factors[number] = torch.tensor([0.6, 0.8, 1.0, 1.2, 1.4])
        ours = recolour(pictures, factors, torch.zeros(5))
        for picture, factor, mine in zip(pictures, factors[number].tolist(), ours, strict=True):
            theirs = np.asarray(kind(Image.fromarray(picture.permute(1, 2, 0).numpy())).enhance(factor))
            assert (mine - torch.from_numpy(theirs.copy()).permute(2, 0, 1)).abs().max() < 1.6
    turns = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2])
    for picture, turn, mine in zip(pictures, turns, recolour(pictures, torch.ones(3, 5), turns), strict=True):
        for pixel, got in zip(picture.flatten(1).T.tolist(), mine.flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in pixel))
            wanted = colorsys.hsv_to_rgb((hue + turn.item()) % 1, saturation, value)
            assert got == pytest.approx([255 * part for part in wanted], abs=1e-3)


def test_colours_of_each_image_are_its_own_and_grey_stays_grey():
    grey = torch.full((200, 3, 2, 2), 100, dtype=torch.uint8)
    recipe = Augmentation(crop_padding=0, flip=False, colour_jitter=0.4, hue_jitter=0.2)
    out = augment(grey, generator(), IDENTITY, recipe)
    assert out.std(dim=1).max() < 1e-3
    levels = out[:, 0, 0, 0]
    assert 60 <= levels.min() < 65
    assert 135 < levels.max() <= 140
    one = augment(grey[:, :1], generator(), Normaliser(torch.zeros(1), torch.full((1,), 1 / 255)), recipe)
    assert one.shape == (200, 1, 2, 2)


def test_an_image_is_standardised_by_itself(images):
    scale = Normaliser.of(images, by_image=True)
    out = augment(images, generator(), scale, Augmentation(crop_padding=0, flip=False))
    torch.testing.assert_close(out.mean(dim=(1, 2, 3)), torch.zeros(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(dim=(1, 2, 3), unbiased=False), torch.ones(64), rtol=0, atol=1e-5)
    assert scale(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)).abs().max() == 0


def test_cutout_from_a_corner_is_clipped_below_and_to_the_right_alone(images):
    images = images.repeat(20, 1, 1, 1)
    recipe = Augmentation(crop_padding=0, flip=False, cutout=4, cutout_at="corner")
    holes = (augment(images, generator(), IDENTITY, recipe) == 0).all(1)
    assert holes[:, 0, 0].float().mean() == pytest.approx(1 / 80, abs=0.015)
    assert holes[:, -1, -1].float().mean() == pytest.approx(16 / 80, abs=0.05)


def test_what_leaves_images_unchanged_does(images):
    out = augment(images, generator(), IDENTITY, Augmentation(**Augmentation.unchanged))
    assert torch.equal(out, images.float())
