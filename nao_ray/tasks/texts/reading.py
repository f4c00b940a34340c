"""Bytes of a file as text, and text as words: what is not text is refused in one line."""

from __future__ import annotations

import re
from typing import Literal

from nao_ray.errors import DataError
from nao_ray.tasks.texts.vocabulary import UNKNOWN

Unit = Literal["word", "space", "character"]
"""What a text is cut into: words and marks of punctuation, what stands between spaces, or characters."""
END = "<eos>"
"""Stands at the end of every line."""

_WORD = re.compile(rf"{UNKNOWN}|{END}|\w+|[^\w\s]|\n")
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def decode(data: bytes, where: str) -> str:
    """UTF-8 with or without its mark, and with any ends of lines, as text whose lines end with a newline.

    Args:
        data: of a file.
        where: begins the message.

    Raises:
        DataError: it is empty, or not such text; says which line.
    """
    if data[:2] in _MARKS:
        raise DataError(f"{where}: is {_MARKS[data[:2]]}, expected UTF-8; iconv -f UTF-16 -t UTF-8 makes it that")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if (zero := data.find(0)) >= 0:
        raise DataError(f"{where}: is not text: byte {zero} is 0; expected UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: byte {error.start} is not UTF-8 (0x{data[error.start]:02x})") from None
    if not text.strip():
        raise DataError(f"{where}: is empty, expected text")
    return with_end(text.replace("\r\n", "\n").replace("\r", "\n"))


def with_end(text: str) -> str:
    """The text, whose last line ends too."""
    return text if text.endswith("\n") else f"{text}\n"


def units(text: str, unit: Unit) -> list[str]:
    """Of a text whose lines end with a newline, with `END` at the end of each."""
    if unit == "space":
        return text.replace("\n", f" {END} ").split()
    found = list(text) if unit == "character" else _WORD.findall(text)
    return [END if piece == "\n" else piece for piece in found]
