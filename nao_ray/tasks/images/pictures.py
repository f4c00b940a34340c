"""From an encoded picture (PNG, JPEG, ...) to bytes, by Pillow and one rule for each of its modes.

| Pillow's mode | becomes |
| --- | --- |
| `L` | grey, as it is |
| `1` | grey, 0 and 255 |
| `I;16`, `I;16B`, `I;16L`, `I;16N` | grey: the whole range, 0..65535, becomes 0..255 (divided by 257, rounded) |
| `LA`, `La`, `L` with a transparent value | grey on white |
| `RGB` | colour, as it is (of 16 bits a channel Pillow keeps the upper 8) |
| `RGBA`, `RGBa`, `PA`, `RGB` and `P` with transparency | colour on white: what transparency hides does not show |
| `P` | the colours of its palette |
| `CMYK`, `YCbCr` | colour, by Pillow's conversion; colour profiles are not applied |
| `I`, `F` (integers or fractions of no known range), `LAB`, `HSV` | refused |

A picture is turned as its EXIF orientation says. One with several frames is refused (of MPO, a camera's JPEG with a
preview, the first is the picture). Grey serves as colour; colour is made grey only where the config asks for one
channel.

Legend: `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError
from nao_ray.tasks.images.views import Box

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Shape = tuple[int, int, int]

_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_GREY = frozenset({"L", "1", "LA", "La", *_SIXTEEN_BITS})
_COLOUR = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr"})
_WITH_ALPHA = frozenset({"LA", "La", "RGBA", "RGBa", "PA"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112
_WHITE = 255
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
)
"""What Pillow's readers raise at damaged files."""


def check_shape(shape: Shape) -> Shape:
    """``(C, H, W)`` with 1, 3 or 4 channels and at least one pixel; for configs."""
    if shape[0] not in _MODES or min(shape) < 1:
        raise ValueError(f"image_shape is (channels, height, width) with 1, 3 or 4 channels, got {shape}")
    return shape


def is_encoded(content: bytes) -> bool:
    """Whether the bytes begin as those of an encoded picture, however they end."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)):
            return True
    except (*_BROKEN, Image.DecompressionBombError):
        return False


def shape_of(content: bytes, where: str) -> Shape:
    """``(1 or 3, H, W)`` by the picture's header.

    Raises:
        DataError: it is no picture, or one of a mode that is refused.
    """

    def look(picture: Picture) -> Shape:
        width, height = picture.size
        if picture.getexif().get(_ORIENTATION, 1) > 4:  # turned by 90 degrees
            width, height = height, width
        return (1 if picture.mode in _GREY else 3, height, width)

    shape: Shape = _opened(content, where, look)
    return shape


def decode(content: bytes, shape: Shape, where: str, *, convert: bool = False) -> NDArray[np.uint8]:
    """``[C, H, W]``.

    Args:
        content: of an image file.
        shape: what is expected.
        where: begins the message.
        convert: resize to `shape`, and make colour grey, instead of refusing.

    Raises:
        DataError: it is no picture, one of a mode that is refused, or has another shape.
    """

    def read(picture: Picture) -> NDArray[np.uint8]:
        from PIL import Image

        plain = _plain(picture, with_alpha=shape[0] == 4)
        if plain.mode == "RGB" and shape[0] == 1 and not convert:
            raise DataError(f"{where}: a colour picture among grey ones; set image_shape to make all grey, or colour")
        target = plain if plain.mode == _MODES[shape[0]] else plain.convert(_MODES[shape[0]])
        if convert and target.size != (shape[2], shape[1]):
            target = target.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
        pixels = np.asarray(target, dtype=np.uint8)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    pixels: NDArray[np.uint8] = _opened(content, where, read)
    if pixels.shape != shape:
        raise DataError(f"{where}: shape {pixels.shape}, expected {shape}; set image_shape to resize")
    return pixels


def view(content: bytes, shape: Shape, where: str, box: Callable[[int, int], Box]) -> NDArray[np.uint8]:
    """A part of a picture, ``[C, H, W]``, made that large whatever it is; of a large JPEG no more is decoded than that.

    Args:
        content: of an image file.
        shape: wanted.
        where: begins the message.
        box: the part, of a picture of this height and width.

    Raises:
        DataError: it is no picture, or one of a mode that is refused.
    """

    def read(picture: Picture) -> NDArray[np.uint8]:
        from PIL import Image

        is_turned = picture.getexif().get(_ORIENTATION, 1) > 4
        width, height = picture.size[::-1] if is_turned else picture.size
        part = box(height, width)
        tall, wide = height * shape[1] / part.height, width * shape[2] / part.width  # of a picture that suffices
        picture.draft(picture.mode, (round(tall), round(wide)) if is_turned else (round(wide), round(tall)))
        plain = _plain(picture, with_alpha=shape[0] == 4)
        plain = plain if plain.mode == _MODES[shape[0]] else plain.convert(_MODES[shape[0]])
        down, across = plain.size[1] / height, plain.size[0] / width
        bounds = (
            part.left * across,
            part.top * down,
            (part.left + part.width) * across,
            (part.top + part.height) * down,
        )
        within = (*bounds[:2], min(bounds[2], plain.size[0]), min(bounds[3], plain.size[1]))
        pixels = np.asarray(plain.resize((shape[2], shape[1]), Image.Resampling.BILINEAR, box=within))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    pixels: NDArray[np.uint8] = _opened(content, where, read)
    return pixels


def _opened(content: bytes, where: str, use: Any) -> Any:  # noqa: ANN401
    """What `use` makes of the opened picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
            if getattr(picture, "is_animated", False) and picture.format != "MPO":
                frames = getattr(picture, "n_frames", "several")
                raise DataError(f"{where}: a picture of {frames} frames, expected one; keep the frame that is meant")
            if picture.mode not in _GREY | _COLOUR:
                raise DataError(
                    f"{where}: a picture of mode {picture.mode}, of no known range; save it with 8 or 16 bits"
                )
            return use(picture)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace("<_io.BytesIO object at", "bytes at")
        if isinstance(error, Image.UnidentifiedImageError):
            raise DataError(f"{where}: {len(content)} bytes that are no image") from None
        raise DataError(f"{where}: a picture of {len(content)} bytes that cannot be read: {reason}") from None


def _plain(picture: Picture, *, with_alpha: bool) -> Picture:
    """Of mode `L` or `RGB`, turned upright; of mode `RGBA` if `with_alpha` and the picture is transparent."""
    from PIL import Image, ImageOps

    if picture.getexif().get(_ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in _SIXTEEN_BITS:
        values = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    is_grey = picture.mode in _GREY
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        if with_alpha:
            hidden = Image.new("RGBA", whole.size, (0, 0, 0, 0))
            return Image.composite(whole, hidden, whole.getchannel("A").point(lambda value: _WHITE if value else 0))
        page = Image.new("RGBA", whole.size, (_WHITE,) * 4)
        return Image.alpha_composite(page, whole).convert("L" if is_grey else "RGB")
    return picture.convert("L" if is_grey else "RGB") if picture.mode not in ("L", "RGB") else picture
