import pytest
import torch

from nao_ray import rng
from nao_ray.training.augment import Normaliser, augment
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
