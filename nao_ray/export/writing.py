"""A generated file: what its parts are, and how they are put together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from nao_ray.export import pieces

WIDTH = 120
"""Columns of a line, at most."""
INDENT = "    "
INSIDE = 2 * len(INDENT)
"""How far in the body of a method is."""


@dataclass
class Written:
    """The classes of a network, and what they use."""

    classes: list[str]
    """Source of classes, those first that others use."""
    pieces: set[str]
    """Names of what is copied from `pieces`."""
    call: str
    """What the network is called with, and what that gives: for the file's docstring."""
    example: str
    """An expression that makes such an input of a batch of two."""
    rename: Callable[[str], str]
    """The name of our network's tensor -> its name in the generated one."""


def edge_name(state: int, number: int) -> str:
    """``op3a``: the operation of an edge of a state."""
    letter = ascii_lowercase[number] if number < len(ascii_lowercase) else f"_{number}"
    return f"op{state}{letter}"


def indented(lines: Iterable[str], depth: int = 2) -> list[str]:
    """Those lines, so far in; empty ones stay empty."""
    return [INDENT * depth + line if line else line for line in lines]


def added(name: str, terms: Sequence[str]) -> list[str]:
    """``name = a + b``, over several lines where one is too long."""
    line = f"{name} = {' + '.join(terms)}"
    if len(line) <= WIDTH - INSIDE:
        return [line]
    return [f"{name} = (", f"{INDENT}{terms[0]}", *(f"{INDENT}+ {term}" for term in terms[1:]), ")"]


def call(before: str, items: Sequence[str], after: str) -> list[str]:
    """``before a, b after``, with an item a line where one line is too long."""
    line = f"{before}{', '.join(items)}{after}"
    return [line] if len(line) <= WIDTH - INSIDE else [before, *(f"{INDENT}{item}," for item in items), after]


def docstring(line: str, more: Sequence[str] = ()) -> list[str]:
    """A docstring of a line, and of further ones below an empty one."""
    return [f'"""{line}"""'] if not more else [f'"""{line}', "", *more, '"""']


def constructor(**sizes: int) -> list[str]:
    """The head of a network's constructor, whose arguments have these defaults."""
    arguments = ["self", *(f"{name}: int = {value}" for name, value in sizes.items())]
    line = f"def __init__({', '.join(arguments)}) -> None:"
    broken = ["def __init__(", *(f"{INDENT}{argument}," for argument in arguments), ") -> None:"]
    return [line] if len(line) <= WIDTH - len(INDENT) else broken


def source(written: Written, title: Sequence[str], weights: bool, extra: Sequence[str]) -> str:
    """The file.

    Args:
        written: the network.
        title: lines that say what it is.
        weights: they are in a file of safetensors beside it.
        extra: source of what stands before the network, as how images are prepared.
    """
    copied = "\n\n\n".join(_copied(written.pieces))
    body = "\n\n\n".join(part for part in (copied, *written.classes) if part)
    told = [
        *title,
        "",
        "    network = load()" if weights else "    network = Network()",
        f"    {written.call}",
        "",
        "It needs torch" + (", and safetensors for the weights, which are beside it." if weights else " alone."),
    ]
    tail = [_LOAD] if weights else []
    main = _MAIN.format(make="load()" if weights else "Network().eval()", example=written.example)
    parts = [body, *extra, *tail, main]
    text = "\n\n\n".join(parts)
    head = "\n".join(told).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')  # a name may hold anything
    return f'"""{head}\n"""\n\n{_imports(text)}\n\n\n{text}\n'


def _copied(names: set[str]) -> list[str]:
    """Source of pieces, and of what they need, in the order that they stand in there."""
    wanted, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += pieces.NEEDS.get(name, ())
    found = {name: value for name, value in vars(pieces).items() if name in wanted}
    assert found.keys() == wanted, wanted - found.keys()
    blocks = [inspect.getsource(value).rstrip() for value in found.values()]
    return sorted(blocks, key=inspect.getsource(pieces).index)


_LOAD = '''WEIGHTS = Path(__file__).with_suffix(".safetensors")


def load(weights: str | Path = WEIGHTS) -> Network:
    """The network with its trained weights, ready to be evaluated."""
    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()'''

_MAIN = """if __name__ == "__main__":
    network = {make}
    print(f"{{sum(parameter.numel() for parameter in network.parameters()):,}} parameters")
    with torch.no_grad():
        out = network({example})
    print("logits", list((out[0] if isinstance(out, tuple) else out).shape))"""

_IMPORTS = [
    (r"\bPath\(", "from pathlib import Path"),
    ("", ""),
    (r"\btorch\.", "import torch"),
    (r"\bF\.", "import torch.nn.functional as F"),
    (r"\bload_file\(", "from safetensors.torch import load_file"),
    (r"\bTensor\b", "from torch import Tensor, nn"),
]


def _imports(text: str) -> str:
    lines = ["from __future__ import annotations", ""]
    if abstract := [name for name in ("Callable", "Sequence") if re.search(rf"\b{name}\[", text)]:
        lines.append(f"from collections.abc import {', '.join(abstract)}")
    lines += [line for pattern, line in _IMPORTS if re.search(pattern, text)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
