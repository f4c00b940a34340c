"""Words and their numbers, in the order in which they first appear.

That is the published order (there over the training, the validation and the test text), and with it the numbers of the
training text's words are the same whether the others' words follow or not; sorted ones would not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nao_ray.tasks.texts.base import Tokens

UNKNOWN = "<unk>"
"""What stands for a word that is none of the vocabulary; the Penn Treebank and WikiText have it in their texts."""


@dataclass(frozen=True)
class Vocabulary:
    """The words, the unknown one among them."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]], min_count: int = 1, most: int | None = None) -> Vocabulary:
        """Of texts.

        Args:
            texts: words in their order.
            min_count: how often a word has to appear in all.
            most: words at most, the commonest; of equally common ones the first.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        kept = [word for word, count in counts.items() if count >= min_count and word != UNKNOWN]
        if most is not None and len(kept) >= most:
            best = set(sorted(kept, key=lambda word: -counts[word])[: most - 1])
            kept = [word for word in kept if word in best]
        if UNKNOWN not in counts:
            return cls((*kept, UNKNOWN))
        wanted = {*kept, UNKNOWN}
        return cls(tuple(word for word in counts if word in wanted))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: Sequence[str]) -> Tokens:
        """``[n]``."""
        numbers, unknown = self._numbers, self._numbers[UNKNOWN]
        return np.fromiter((numbers.get(word, unknown) for word in text), dtype=np.int64, count=len(text))

    def foreign(self, text: Sequence[str]) -> int:
        """How many words of a text are none of these."""
        return sum(word not in self._numbers for word in text)
