"""A language model around a recurrent cell: tied embedding, the cell over a segment, and a decoder.

As NAO, ENAS and DARTS train it (`networks/recurrent.py` names them), after Merity, Keskar, Socher, "Regularizing and
Optimizing LSTM Language Models", ICLR 2018, arXiv 1708.02182. All matrices begin uniform in +-`init_range`.

Parameters: V H of the embedding, which is the decoder too, V of the decoder's bias, 4H^2 of W0 and 2H^2 of each node.

Legend: `B` columns of text, `T` tokens of a segment, `H` hidden units, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.recurrent_fast import segment
from nao_ray.spaces.base import ArchGraph, Cell

ROLE = "recurrent"

Carry = tuple[Tensor, ...] | None
"""The hidden state ``[B, H]``; None: zeros."""


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
    """Probability of dropping a unit of the cell's outputs, in [0, 1)."""


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

    def run(self, cell: Cell, nodes: Sequence[Tensor], tokens: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Tokens ``[B, T]`` -> logits ``[B, T, V]`` of those that follow, and what is carried on.

        Args:
            cell: whose nodes are computed.
            nodes: their weights, ``[H, 2H]`` each.
            tokens: int64.
            carry: what the segment before gave; None: it is the first.
        """
        inputs = F.embedding(tokens.t(), self.embedding)
        state = inputs.new_zeros(inputs.shape[1:]) if carry is None else carry[0]
        raw = segment(cell, self.w0, nodes, inputs, state, None)
        outputs = self._dropped(raw, self.config.dropout)
        return F.linear(outputs.transpose(0, 1), self.embedding, self.decoder_bias), (raw[-1],)

    def _dropped(self, values: Tensor, share: float) -> Tensor:
        """``[T, B, H]`` with units of a column dropped, the same at all its tokens."""
        if not self.training or not share:
            return values
        keep = 1 - share
        return values * values.new_empty(values.shape[1:]).bernoulli_(keep).div_(keep)


class RecurrentNetwork(LanguageModel):
    """Of one genotype; see `skeletons.base.Skeleton.build`."""

    def __init__(self, graph: ArchGraph, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.cell = graph.cell(ROLE)
        width = config.hidden
        self.nodes = nn.ParameterList(torch.empty(width, 2 * width) for _ in self.cell.nodes)
        self.draw_weights()

    def forward(self, tokens: Tensor, carry: Carry = None) -> tuple[Tensor, Carry]:
        """See `run`."""
        return self.run(self.cell, list(self.nodes), tokens, carry)


class RecurrentSupernet(LanguageModel):
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

    def forward(self, tokens: Tensor, carry: Carry, choice: ArchGraph) -> tuple[Tensor, Carry]:
        """See `run`."""
        cell = self._cell(choice)
        return self.run(cell, self._chosen(cell), tokens, carry)

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
