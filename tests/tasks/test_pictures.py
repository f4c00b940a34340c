"""What becomes of a picture of each of Pillow's modes."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nao_ray.errors import DataError
from nao_ray.tasks.image_table import ImageTable
from nao_ray.tasks.images import pictures
from tests.tasks import _made_up_data as made

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def saved(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def load(tmp_path, cells, **settings):
    """The first image as a task gives it, of a table that begins with `cells` and goes on with copies of the last."""
    cells = [*cells, *[cells[-1]] * (20 - len(cells))]
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 10}), tmp_path / "t.parquet")
    task = ImageTable(ImageTable.Config(path=str(tmp_path / "t.parquet"), **settings))
    return task.training_rows().images


def test_sixteen_bits_of_grey_keep_their_steps(tmp_path):
    wide = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        images = load(tmp_path, [saved(Image.fromarray(wide), form)])
        assert images.shape[1:] == (1, 8, 8)
        np.testing.assert_array_equal(images[0, 0], np.round(wide / 257))


def test_what_transparency_hides_does_not_show(tmp_path):
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[..., 0] = 200  # red, hidden but for one row
    pixels[0, :, 3] = 255
    images = load(tmp_path, [saved(Image.fromarray(pixels))])
    assert images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert (images[0, :, 1:] == 255).all()
    four = load(tmp_path, [saved(Image.fromarray(pixels))], image_shape=(4, 8, 8))
    assert (four[0, :, 1:] == 0).all()
    assert four[0, :, 0, 0].tolist() == [200, 0, 0, 255]


def test_transparent_palettes_and_grey(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    assert load(tmp_path, [saved(palette)])[0, :, 0, 0].tolist() == [10, 20, 30]
    assert (load(tmp_path, [saved(palette, transparency=1)]) == 255).all()
    faint = np.stack([GREY, np.zeros_like(GREY)], axis=2)
    assert (load(tmp_path, [saved(Image.fromarray(faint, "LA"))]) == 255).all()


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, :4] = 255  # left, and above once turned
    images = load(tmp_path, [saved(Image.fromarray(wide), exif=exif)])
    assert images.shape[1:] == (1, 8, 4)
    assert (images[0, 0, :4] == 255).all()
    assert (images[0, 0, 4:] == 0).all()


def test_a_grey_first_picture_makes_no_other_grey(tmp_path):
    colour = np.zeros((8, 8, 3), dtype=np.uint8)
    colour[..., 1] = 99
    images = load(tmp_path, [saved(Image.fromarray(GREY)), saved(Image.fromarray(colour))])
    assert images.shape[1:] == (3, 8, 8)
    assert (images[0] == GREY).all()
    assert images[1, :, 0, 0].tolist() == [0, 99, 0]
    grey = load(tmp_path, [saved(Image.fromarray(GREY)), saved(Image.fromarray(colour))], image_shape=(1, 8, 8))
    assert grey.shape[1:] == (1, 8, 8)


def test_a_colour_validation_picture_among_grey_ones_is_refused(tmp_path):
    cells = [saved(Image.fromarray(GREY))] * 20 + [saved(Image.new("RGB", (8, 8)))] * 10
    columns = {"image": cells, "label": [0, 1] * 15, "split": ["train"] * 20 + ["val"] * 10}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="image 0 of the validation split: a colour picture among grey ones"):
        ImageTable(ImageTable.Config(path=str(tmp_path))).load()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "a picture of mode F, of no known range"),
        (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "a picture of mode I, of no known range"),
        (
            saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
            "a picture of 2 frames, expected one",
        ),
        (saved(Image.fromarray(made.images(1, 0, (8, 8, 3))[0]))[:-40], "a picture of .* bytes that cannot be read"),
        (b"nothing", "7 bytes that are no image"),
    ],
)
def test_other_pictures_are_refused_with_their_row(tmp_path, cell, message):
    cells = [saved(Image.fromarray(made.images(1, 1, (8, 8, 3))[0]))] * 3 + [cell]
    with pytest.raises(DataError, match=f"t.parquet, image 3 of the train split: {message}") as caught:
        load(tmp_path, cells)
    assert "\n" not in str(caught.value)


def test_cmyk_is_colour(tmp_path):
    images = load(tmp_path, [saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")])
    assert images.shape[1:] == (3, 8, 8)
    assert (images > 250).all()


# -- raw bytes or image files -------------------------------------------------------------------------------


def a_picture_of_as_many_bytes_as_it_has_pixels():
    """An encoded picture, neither PNG nor JPEG, that is exactly as long as its raw bytes would be."""
    picture = Image.fromarray(GREY)
    whole = saved(picture, "GIF")
    side = 40
    while len(whole) != side * side:  # a GIF may be followed by anything
        whole += b"\0"
        assert len(whole) <= side * side
    return whole, (1, side, side)


def test_an_image_file_is_not_taken_for_raw_bytes_because_its_length_fits(tmp_path):
    content, shape = a_picture_of_as_many_bytes_as_it_has_pixels()
    images = load(tmp_path, [content], image_shape=shape)
    assert abs(int(images[0, 0, 0, 0]) - int(GREY[0, 0])) < 10  # the picture, enlarged; raw it would be "GIF8..."
    assert images[0, 0, 0, 0] != ord("G")


def test_a_column_of_a_fixed_size_is_raw(tmp_path):
    pixels = made.images(20, 0, (1, 4, 4))
    pixels[0].reshape(-1)[:3] = (0xFF, 0xD8, 0xFF)  # begins like a JPEG
    cells = pa.array([image.tobytes() for image in pixels], pa.binary(16))
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 10}), tmp_path / "t.parquet")
    task = ImageTable(ImageTable.Config(path=str(tmp_path / "t.parquet"), image_shape=(1, 4, 4)))
    np.testing.assert_array_equal(task.training_rows().images, pixels)


def test_a_column_is_raw_or_encoded_as_a_whole(tmp_path):
    pixels = made.images(1, 0, (3, 8, 8))[0]
    with pytest.raises(DataError, match="image 1 of the train split: 192 bytes that are no image"):
        load(tmp_path, [made.encoded(pixels, "PNG"), pixels.tobytes()], image_shape=(3, 8, 8))
    with pytest.raises(DataError, match=r"image 1 of the train split: \d+ raw bytes, expected 192"):
        load(tmp_path, [pixels.tobytes(), made.encoded(pixels, "PNG")], image_shape=(3, 8, 8))
    with pytest.raises(DataError, match=r"image 0 of the train split: \d+ raw bytes, expected 192"):
        load(tmp_path, [made.encoded(pixels, "PNG")], image_shape=(3, 8, 8), image_format="raw")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "DDS", "JPEG2000"])
def test_damaged_pictures_raise_nothing_but_a_line(form):
    whole, draw = saved(Image.fromarray(made.images(1, 0, (8, 8, 3))[0]), form), np.random.default_rng(0)
    lines = []
    for _ in range(60):
        content = bytearray(whole)
        for place in draw.integers(0, len(content), size=3):
            content[place] = draw.integers(0, 256)
        cut = bytes(content[: draw.integers(1, len(content) + 1)])
        try:
            pictures.shape_of(cut, "x")
            pictures.decode(cut, (3, 8, 8), "x", convert=True)
        except DataError as error:
            lines.append(str(error))
    assert lines
    assert not [line for line in lines if "\n" in line]
