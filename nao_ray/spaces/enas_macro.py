"""The macro space of ENAS: a whole network (Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268).

Legend: `n` layers, `L` = n + n(n-1)/2 tokens.

Every layer is an operation on the layer before it, and skip connections from any entries before that one. Entry 0 is
the stem, entry j > 0 is layer j - 1, so layer i may skip from the entries 0..i-1 and always reads entry i.

Text: per layer i the operation's id 0..5 and i bits, bit j for entry j. Tokens: 0 start, 1..6 the operations, 7 no
skip, 8 a skip. Every text is an architecture of its own. As an arch graph the network is one cell whose nodes are the
layers: the first edge of a node is its operation, the others, of `identity`, are its skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import isqrt
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import ArchGraph, Cell, Edge, Genotype, SearchSpace, SpaceConfig, Tokens
from nao_ray.spaces.parts.operations import OPERATIONS, check_operations

_LEAST = 3
"""Layers: a network has three stages."""
_KNOWN = (*OPERATIONS, "conv_5x5", "conv_7x7")


class EnasMacroConfig(SpaceConfig):
    """Settings of the space."""

    layers: int = Field(default=12, ge=_LEAST)
    """n; searches have 12, the published network has 24."""


class EnasMacro(SearchSpace[EnasMacroConfig]):
    """Convolutions 3 and 5, the same separable, average and max pool 3; skips between any two layers.

    Raises:
        ConfigError: an operation of a derived space is unknown or given twice.
    """

    name: ClassVar[str] = "enas_macro"
    skeleton: ClassVar[str] = "enas_macro"
    Config: ClassVar[type[SpaceConfig]] = EnasMacroConfig
    ops: ClassVar[tuple[str, ...]] = (
        "conv_3x3",
        "sep_conv_3x3",
        "conv_5x5",
        "sep_conv_5x5",
        "avg_pool_3x3",
        "max_pool_3x3",
    )
    """Operation names, in the order of their ids."""
    dialects: ClassVar[tuple[str, ...]] = ("enas", "tokens")
    published: ClassVar[Mapping[str, str]] = {  # 24 layers
        "ENAS-macro": (
            "0 3 0 0 1 0 2 0 0 1 2 0 0 0 0 3 1 1 0 1 0 2 0 0 0 0 0 1 2 0 1 1 0 1 1 1 1 0 1 1 1 0 1 0 1 "
            "0 0 0 0 0 0 0 0 0 0 2 0 0 0 0 0 1 0 0 0 0 0 1 0 0 1 1 0 0 0 0 1 1 2 0 1 0 0 0 0 0 1 0 1 1 0 "
            "1 0 0 1 0 0 0 1 1 1 0 1 0 1 0 1 1 0 1 0 1 0 0 0 0 0 1 0 0 2 0 0 1 0 0 0 0 0 0 0 1 0 1 0 1 "
            "2 0 1 0 0 0 1 0 0 1 1 1 1 0 0 1 0 2 0 0 0 0 1 0 1 0 1 0 0 1 0 1 0 0 1 "
            "3 0 1 1 0 1 0 0 0 0 0 1 0 1 0 1 0 0 0 3 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1 "
            "0 1 0 0 1 0 1 1 0 0 0 1 0 0 0 0 0 1 1 0 0 3 0 1 0 1 1 0 0 1 0 1 1 0 1 1 0 1 0 0 1 0 0 "
            "0 1 0 1 0 1 0 0 0 0 0 0 0 0 1 0 1 0 0 1 0 0 0 0 1 1 0 0 0 1 1 1 0 1 0 0 0 1 0 1 0 0 1 1 0 0 0"
        ),
    }

    def __init__(self, config: EnasMacroConfig | None = None) -> None:
        super().__init__(config)
        check_operations(self, self.ops, _KNOWN)

    @classmethod
    def for_text(cls, text: str) -> Self:
        """The space of as many layers as the text has; the default one where no number of layers fits."""
        numbers = len(_words(cls.published.get(text.strip(), text)))
        layers = (isqrt(8 * numbers + 1) - 1) // 2
        if layers < _LEAST or layers * (layers + 1) // 2 != numbers:
            return cls()
        return cls(EnasMacroConfig(layers=layers))

    # -- size and tokens ----------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return self.config.layers * (self.config.layers + 1) // 2

    @property
    def vocabulary(self) -> int:
        return 1 + len(self.ops) + 2

    @property
    def tokens_per_step(self) -> int:
        return 1

    @cached_property
    def token_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros((self.length, self.vocabulary), dtype=bool)
        mask[self._is_op, 1 : 1 + len(self.ops)] = True
        mask[~self._is_op, 1 + len(self.ops) :] = True
        return mask

    @cached_property
    def _is_op(self) -> NDArray[np.bool_]:
        """``[L]``: where the text has an operation's id; elsewhere it has a bit."""
        return np.concatenate([np.arange(layer + 1) == 0 for layer in range(self.config.layers)])

    @property
    def _token_shift(self) -> Tokens:
        return np.where(self._is_op, 1, 1 + len(self.ops))

    @property
    def num_genotypes(self) -> int:
        return int(len(self.ops) ** self.config.layers * 2 ** (self.length - self.config.layers))

    @property
    def num_architectures(self) -> int:
        return self.num_genotypes

    # -- genotypes ----------------------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Genotype:
        return self._genotype(rng.integers(0, self._choices))

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        numbers = self._numbers(genotype)
        at = int(rng.integers(self.length))
        choices = self._choices[at]
        numbers[at] = (numbers[at] + rng.integers(1, choices)) % choices
        return self._genotype(numbers)

    @property
    def _choices(self) -> Tokens:
        """``[L]``: how many numbers may stand at a position."""
        return np.where(self._is_op, len(self.ops), 2)

    def encode(self, genotype: Genotype) -> Tokens:
        return self._numbers(genotype) + self._token_shift

    def decode(self, tokens: Tokens) -> Genotype:
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.shape != (self.length,):
            raise GenotypeError(f"space {self.name}: expected {self.length} tokens, got shape {tokens.shape}")
        return self._checked(tokens, self._token_shift, "token")

    def canonical(self, genotype: Genotype) -> Genotype:
        return genotype

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        return tokens.copy()

    def lower(self, genotype: Genotype) -> ArchGraph:
        numbers = iter(self._numbers(genotype).tolist())
        nodes = []
        for layer in range(self.config.layers):
            operation = Edge(layer, self.ops[next(numbers)])
            skips = [Edge(entry, "identity") for entry in range(layer) if next(numbers)]
            nodes.append((operation, *skips))
        return ArchGraph(self.skeleton, (("network", Cell(1, tuple(nodes), output=(self.config.layers,))),))

    # -- text ---------------------------------------------------------------------------------------------

    def read(self, text: str, dialect: str) -> Genotype:
        wanted = f"a genotype of {self.config.layers} layers is {self.length} integers"
        try:
            numbers = np.array([int(word) for word in _words(text)], dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise GenotypeError(f"space {self.name}: {wanted}; {error}") from None
        if len(numbers) != self.length:
            raise GenotypeError(f"space {self.name}: {wanted}, got {len(numbers)}")
        return self.decode(numbers) if dialect == "tokens" else self._checked(numbers, np.zeros_like(numbers), "number")

    def _checked(self, numbers: Tokens, shift: Tokens, what: str) -> Genotype:
        """The genotype of ``[L]`` ids and bits, each raised by its `shift`."""
        values = numbers - shift
        legal = (values >= 0) & (values < self._choices)
        if not legal.all():
            at = int(np.argmin(legal))
            expected = f"expected {shift[at]}..{shift[at] + self._choices[at] - 1}"
            layer = int(self._is_op[: at + 1].sum()) - 1
            raise GenotypeError(
                f"space {self.name}: {what} {numbers[at]} at position {at} (layer {layer}) is illegal, {expected}"
            )
        return self._genotype(values)

    def _genotype(self, numbers: Tokens) -> Genotype:
        return Genotype(self.name, " ".join(map(str, numbers.tolist())))

    def _numbers(self, genotype: Genotype) -> Tokens:
        return np.array(genotype.key.split(), dtype=np.int64)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
