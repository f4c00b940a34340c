"""A language model around a recurrent cell: tied embedding, the cell over a segment, and a decoder.

As NAO, ENAS and DARTS train it (`networks/recurrent.py` names them), after Merity, Keskar, Socher, "Regularizing and
Optimizing LSTM Language Models", ICLR 2018, arXiv 1708.02182. All matrices begin uniform in +-`init_range`.

Parameters: V H of the embedding, which is the decoder too, V of the decoder's bias, 4H^2 of W0 and 2H^2 of each node.

Legend: `B` columns of text, `T` tokens of a segment, `H` hidden units, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.recurrent_fast import segment
from nao_ray.networks.supernet import Supernet
from nao_ray.spaces.base import ArchGraph, Cell

ROLE = "recurrent"

Carry = tuple[Tensor, ...] | None
"""The hidden state ``[B, H]``; None: zeros."""
Result = tuple[Tensor, Carry] | tuple[Tensor, Carry, Tensor]
"""Logits ``[B, T, V]`` of the words that follow, what is carried on, and in training the penalty where there is one."""
Compute = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Inputs ``[T, B, H]``, state and mask ``[B, H]`` -> the cell's outputs ``[T, B, H]``; see `recurrent.segment`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentConfig:
    """Size and habits of a network."""

    vocabulary: int
    """V."""
    hidden: int
    """H."""
    decoder_bias: bool = True
    init_range: float = 0.04
    average_first: bool = False
    """Of shared weights: state 0 is averaged with the cell's output states."""
    dropout: float = 0.0
    """Probability of dropping a unit of the cell's outputs; this and the next four in [0, 1)."""
    dropout_hidden: float = 0.0
    """Of the hidden state in the cell's input, and of every node's source: one mask for all of them."""
    dropout_input: float = 0.0
    """Of the cell's input."""
    dropout_embedding: float = 0.0
    """Of an embedded word."""
    dropout_words: float = 0.0
    """Of a whole word of the vocabulary, wherever it stands."""
    activation_penalty: float = 0.0
    """On the mean square of the dropped outputs."""
    slowness_penalty: float = 0.0
    """On the mean square of the difference of successive outputs, none of them dropped."""


class LanguageModel(nn.Module):
    """All but the cell's nodes. Called with tokens ``[B, T]`` and what is carried; see `forward` of those below.

    What is dropped is drawn once a call from torch's global generator, and is the same at all tokens of the segment.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden
        self.embedding = nn.Parameter(torch.empty(config.vocabulary, width))
        self.w0 = nn.Parameter(torch.empty(2 * width, 2 * width))
        self.decoder_bias = nn.Parameter(torch.zeros(config.vocabulary)) if config.decoder_bias else None

    def draw_weights(self) -> None:
        """From torch's global generator; the bias stays 0."""
        for parameter in self.parameters():
            if parameter.dim() > 1 and not parameter.is_meta:
                nn.init.uniform_(parameter, -self.config.init_range, self.config.init_range)

    def run(self, compute: Compute, tokens: Tensor, carry: Carry) -> Result:
        """Read a segment.

        Args:
            compute: the cell.
            tokens: ``[B, T]``, int64.
            carry: what the segment before gave; None: it is the first.
        """
        told = self.config
        inputs = self._dropped(self._embedded(tokens.t()), told.dropout_embedding)
        state = inputs.new_zeros(inputs.shape[1:]) if carry is None else carry[0]
        inputs = self._dropped(inputs, told.dropout_input)
        raw = compute(inputs, state, self._mask(state, state.shape, told.dropout_hidden))
        outputs = self._dropped(raw, told.dropout)
        logits = F.linear(outputs.transpose(0, 1), self.embedding, self.decoder_bias)
        if not self.training or not (told.activation_penalty or told.slowness_penalty):
            return logits, (raw[-1],)
        penalty = told.activation_penalty * outputs.square().mean()
        if len(raw) > 1:
            penalty = penalty + told.slowness_penalty * raw.diff(dim=0).square().mean()
        return logits, (raw[-1],), penalty

    def _embedded(self, tokens: Tensor) -> Tensor:
        """``[T, B]`` -> ``[T, B, H]``."""
        embedded = F.embedding(tokens, self.embedding)
        words = self._mask(embedded, (self.config.vocabulary, 1), self.config.dropout_words)
        return embedded if words is None else embedded * F.embedding(tokens, words)

    def _dropped(self, values: Tensor, share: float) -> Tensor:
        """``[T, B, H]`` with units of a column dropped, the same at all its tokens."""
        mask = self._mask(values, values.shape[1:], share)
        return values if mask is None else values * mask

    def _mask(self, like: Tensor, shape: Sequence[int], share: float) -> Tensor | None:
        """1/keep where something is kept, and 0 elsewhere; None: nothing is dropped."""
        if not self.training or not share:
            return None
        return like.new_empty(tuple(shape)).bernoulli_(1 - share).div_(1 - share)


def of_cell(cell: Cell, w0: Tensor, nodes: Sequence[Tensor]) -> Compute:
    """A cell with its weights, as `run` wants it."""
    return lambda inputs, state, mask: segment(cell, w0, nodes, inputs, state, mask)


class RecurrentNetwork(LanguageModel):
    """Of one genotype; see `skeletons.base.Skeleton.build`."""

    def __init__(self, graph: ArchGraph, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.cell = graph.cell(ROLE)
        width = config.hidden
        self.nodes = nn.ParameterList(torch.empty(width, 2 * width) for _ in self.cell.nodes)
        self.draw_weights()

    def forward(self, tokens: Tensor, carry: Carry = None) -> Result:
        """See `run`."""
        return self.run(of_cell(self.cell, self.w0, list(self.nodes)), tokens, carry)


class RecurrentSupernet(LanguageModel, Supernet):
    """Shared weights of all genotypes of a space: one matrix per node, source and activation.

    A choice uses one matrix per node, and only those get a gradient.

    Args:
        activations: of the space.
        nodes: of its cells.
        config: size and habits.
    """

    def __init__(self, activations: Sequence[str], nodes: int, config: RecurrentConfig) -> None:
        super().__init__(config)
        width = config.hidden
        self.nodes = nn.ModuleList(
            nn.ParameterDict(
                {_name(source, op): torch.empty(width, 2 * width) for source in range(node) for op in activations}
            )
            for node in range(1, nodes + 1)
        )
        self.draw_weights()

    def forward(self, tokens: Tensor, carry: Carry, choice: ArchGraph) -> Result:
        """See `run`."""
        cell = self._cell(choice)
        return self.run(of_cell(cell, self.w0, self._chosen(cell)), tokens, carry)

    def derive(self, graph: ArchGraph) -> RecurrentNetwork:
        """A network of its own with copies of a genotype's weights; it computes what the choice of it does."""
        cell = self._cell(graph)
        network = RecurrentNetwork(replace(graph, cells=((ROLE, cell),)), self.config)
        network = network.to(self.w0.device, self.w0.dtype)
        with torch.no_grad():
            pairs = [(network.embedding, self.embedding), (network.w0, self.w0)]
            if network.decoder_bias is not None and self.decoder_bias is not None:
                pairs.append((network.decoder_bias, self.decoder_bias))
            for own, shared in [*pairs, *zip(network.nodes, self._chosen(cell), strict=True)]:
                own.copy_(shared)
        return network.train(self.training)

    def _cell(self, graph: ArchGraph) -> Cell:
        cell = graph.cell(ROLE)
        return replace(cell, output=tuple(sorted({0, *cell.output}))) if self.config.average_first else cell

    def _chosen(self, cell: Cell) -> list[nn.Parameter]:
        """``[H, 2H]`` by node."""
        chosen = []
        for (edge,), weights in zip(cell.nodes, self.nodes, strict=True):
            assert isinstance(weights, nn.ParameterDict)
            chosen.append(weights[_name(edge.source, edge.op)])
        return chosen


def _name(source: int, op: str) -> str:
    return f"{source}_{op}"
