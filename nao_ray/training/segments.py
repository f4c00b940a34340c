"""Lengths of the segments that a text is read in: as many in every epoch, whose sum is the text's length.

Merity, Keskar, Socher, ICLR 2018, arXiv 1708.02182, section 5: about the window, now and then about its half, normally
distributed about that, so that no token is always the first of its segment.

Differs from the published codes, which draw until the text ends: exactly one in twenty is about the half, and lengths
are changed by single tokens, here and there, until they end with the text. So epochs have the same number of steps.

Legend: `S` segments.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["fixed", "normal", "truncated", "halved"]
"""See `Segments.segments`."""

_HALVED = 0.05  # share of the segments about half of the window
_DEVIATION, _LEAST, _MOST = 1 / 7, 1 / 7, 11 / 7  # of the window: 5, 5 and 55 of 35


def count(total: int, window: int, kind: Kind) -> int:
    """S of `total` tokens, at least 1."""
    if kind in ("normal", "truncated"):
        return max(1, round(total / max(1.0, (1 - _HALVED / 2) * window - 0.5)))  # lengths are cut down to integers
    number = max(1, math.ceil(total / window))
    while kind == "halved" and number * window - _halves(number) * (window - _half(window)) < total:
        number += 1
    return number


def lengths(total: int, window: int, kind: Kind, order: torch.Generator) -> list[int]:
    """Those of `count` segments in their order, each at least 1; `total` in all."""
    number = count(total, window, kind)
    if kind == "fixed":
        return [window] * (number - 1) + [total - (number - 1) * window]
    halves = torch.randperm(number, generator=order)[: _halves(number)]
    if kind == "halved":
        drawn = torch.full((number,), window)
        drawn[halves] = _half(window)
        return _cut_off(drawn.tolist(), total)
    about = torch.full((number,), float(window))
    about[halves] /= 2
    noise = torch.empty(number)
    if kind == "normal":
        noise.normal_(generator=order)
    else:
        torch.nn.init.trunc_normal_(noise, generator=order)  # within two deviations
    least, most = max(1, round(_LEAST * window)), max(1, round(_MOST * window))
    drawn = (about + _DEVIATION * window * noise).long().clamp(least, most)
    return _fitted(drawn, total, least, most, order)


def _halves(number: int) -> int:
    return round(_HALVED * number)


def _half(window: int) -> int:
    return max(1, window // 2)


def _cut_off(drawn: list[int], total: int) -> list[int]:
    """The last ones shortened to `total` in all."""
    beyond = sum(drawn) - total
    for index in reversed(range(len(drawn))):
        taken = min(beyond, drawn[index] - 1)
        drawn[index] -= taken
        beyond -= taken
    return drawn


def _fitted(drawn: Tensor, total: int, least: int, most: int, order: torch.Generator) -> list[int]:
    """With single tokens more or less, here and there, `total` in all."""
    while gap := total - int(drawn.sum()):
        can = (drawn < most if gap > 0 else drawn > least).nonzero()[:, 0]
        if not len(can):  # a text of a few segments
            least, most = 1, total
            continue
        chosen = can[torch.randperm(len(can), generator=order)[: abs(gap)]]
        drawn[chosen] += 1 if gap > 0 else -1
    found: list[int] = drawn.tolist()
    return found
