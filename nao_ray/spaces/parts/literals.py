"""Python literals that users paste: ``Genotype(field=[('op', 1), ...], other=range(2, 6))``, or the JSON object of it.

Looked at word by word and read as literals; nothing is evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

MAX_TEXT = 10_000
"""Characters of a genotype; the published ones have under 600."""

_ASSIGNED = re.compile(r"[A-Za-z_]\w*\s*=\s*(?=Genotype\b)")
_WORDS = re.compile(r"""'[\w ]*'|"[\w ]*"|\w+|[][(){},:=]|\s+""", re.ASCII)
_BROKEN = (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
"""What Python's parser and its literals raise of texts that it was not made for."""


def is_literal(text: str, *, recurrent: bool) -> bool:
    """Whether a text is seen to be such a genotype, of a recurrent cell or of others."""
    begins = text.lstrip()[:200]
    return (begins.startswith("{") or "Genotype(" in begins[:100]) and ("recurrent" in begins) == recurrent


def read_fields(text: str, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a genotype as they stand there, each one of `names`.

    Raises:
        ValueError: in one line, why it cannot be read.
    """
    try:
        fields = _fields(text, names)
    except _BROKEN as error:
        raise ValueError(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from None
    unknown = [name for name in fields if name not in names]
    if unknown:
        raise ValueError(f"it has a field {unknown[0]!r}, expected {', '.join(names)}")
    return fields


def shown(value: object) -> str:
    """What was read instead, for an error."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def written_concat(concat: Sequence[int]) -> str:
    """Ascending states, as ``range(2, 6)`` where they are one."""
    first, last = concat[0], concat[-1]
    return f"range({first}, {last + 1})" if list(concat) == [*range(first, last + 1)] else str([*concat])


def _fields(text: str, names: Sequence[str]) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text):,} characters, at most {MAX_TEXT:,} are read")
    text = _ASSIGNED.sub("", text.strip(), count=1) if _ASSIGNED.match(text.strip()) else text.strip()
    _check_words(text, names)
    tree = ast.parse(text, mode="eval").body
    if isinstance(tree, ast.Call):
        if not isinstance(tree.func, ast.Name) or tree.func.id != "Genotype" or tree.args:
            raise ValueError(f"expected Genotype({', '.join(f'{name}=...' for name in names)})")
        items = [(word.arg, word.value) for word in tree.keywords]
    elif isinstance(tree, ast.Dict):
        items = [(ast.literal_eval(key), value) for key, value in zip(tree.keys, tree.values, strict=True) if key]
    else:
        raise ValueError("expected Genotype(...), or a JSON object")
    fields: dict[str, Any] = {}
    for name, value in items:
        if not isinstance(name, str) or name in fields:
            raise ValueError(f"the field {name!r} is no name, or stands there twice")
        fields[name] = _literal(value)
    return fields


def _check_words(text: str, names: Sequence[str]) -> None:
    """Refuse what has no place in a genotype, before Python's parser sees it; so no other expression comes to it."""
    at = 0
    known = {*names, "Genotype", "range"}
    while at < len(text):
        word = _WORDS.match(text, at)
        found = word.group() if word else text[at]
        if not word or not (found[0] in "'\"[](){},:= \t\r\n" or found in known or re.fullmatch(r"\d{1,4}", found)):
            raise ValueError(f"unexpected {found[:40]!r} at character {at + 1}; fields are {', '.join(names)}")
        at = word.end()


def _literal(value: ast.expr) -> Any:  # noqa: ANN401
    """A literal, or ``range(a, b)`` of literals."""
    if not isinstance(value, ast.Call):
        try:
            return ast.literal_eval(value)
        except ValueError:
            raise ValueError(f"{shown(ast.unparse(value))} is no list of literals") from None
    ends = [ast.literal_eval(argument) for argument in value.args]
    named_range = isinstance(value.func, ast.Name) and value.func.id == "range" and not value.keywords
    if not named_range or len(ends) not in (1, 2) or any(type(end) is not int for end in ends):
        raise ValueError("a list is written [2, 3] or range(2, 4)")
    return [*range(*ends)]
