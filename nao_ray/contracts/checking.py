"""How a contract is checked: by AssertionError, also where Python runs without assertions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def require(holds: object, broken: str) -> None:
    """Raise AssertionError unless it holds."""
    if not holds:
        raise AssertionError(broken)


@contextmanager
def refused(error: type[Exception], what: str) -> Iterator[list[str]]:
    """The block must raise this error, in one line; gives the line.

    Raises:
        AssertionError: it raises nothing, or says it in several lines.
    """
    said: list[str] = []
    try:
        yield said
    except error as caught:
        said.append(str(caught))
    require(said, f"{what} is not refused with {error.__name__}")
    require("\n" not in said[0], f"{what} is refused in more than one line: {said[0]!r}")


@contextmanager
def about(what: str) -> Iterator[None]:
    """The block's AssertionErrors begin with what is checked, and whatever else it raises becomes one.

    Raises:
        AssertionError: as told.
    """
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
