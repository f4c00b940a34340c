"""The relaxed recurrent cell of DARTS: each node mixes all activations of all states before it.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, as the authors' code: a
node has one matrix, whatever it reads; one batch norm without scale normalises state 0 and every node at every step;
the output is the mean of the nodes. `none` takes its share of the softmax and adds nothing.

Legend: `B` columns, `T` tokens, `H` hidden units, `n` nodes, `E` = n(n+1)/2 edges, by node and then by source, `O`
operations, `none` among them or not, `i` states before a node.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nao_ray.networks.recurrent import ACTIVATIONS, highway
from nao_ray.networks.recurrent_network import Carry, LanguageModel, RecurrentConfig, Result


class RelaxedRecurrent(LanguageModel):
    """Called with tokens, what is carried, and alphas, which are not among its parameters.

    Args:
        names: of the operations, in the order of the columns of alpha.
        nodes: n.
        config: size and habits.
    """

    roles = ("recurrent",)

    def __init__(self, names: Sequence[str], nodes: int, config: RecurrentConfig) -> None:
        super().__init__(config)
        width = config.hidden
        self.names = tuple(names)
        self._functions = [name for name in names if name in ACTIVATIONS]
        self.nodes = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(nodes))
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.draw_weights()

    def forward(self, tokens: Tensor, carry: Carry, alphas: Sequence[Tensor]) -> Result:
        """See `run`; `alphas`: one of ``[E, O]``, before the softmax."""
        (alpha,) = alphas
        columns = [self.names.index(name) for name in self._functions]
        weights = alpha.softmax(dim=-1)[:, columns]
        count = len(self.nodes)
        mixtures = torch.split(weights.to(self.w0.dtype), list(range(1, count + 1)))
        sums = [shares.sum(dim=1)[:, None, None] for shares in mixtures]

        def compute(inputs: Tensor, state: Tensor, mask: Tensor | None) -> Tensor:
            outputs = []
            from_input, from_state = torch.split(self.w0, self.config.hidden)
            for x in inputs @ from_input:  # all tokens at once
                first = highway(x + _masked(state, mask) @ from_state, state, torch.tanh)
                states = self.norm(first)[None]
                for weight, shares, share in zip(self.nodes, mixtures, sums, strict=True):
                    states = torch.cat((states, self._node(states, mask, weight, shares, share)))
                state = states[1:].mean(dim=0)
                outputs.append(state)
            return torch.stack(outputs)

        return self.run(compute, tokens, carry)

    def _node(self, states: Tensor, mask: Tensor | None, weight: Tensor, shares: Tensor, share: Tensor) -> Tensor:
        """``[1, B, H]`` of states ``[i, B, H]``; `shares` ``[i, O]`` are without `none`, `share` their sums."""
        product = _masked(states, mask) @ weight
        squashed = torch.sigmoid(product)
        gate, width = squashed[..., : self.config.hidden], self.config.hidden
        candidate, known = product[..., width:], {"sigmoid": squashed[..., width:]}
        found = [known[name] if name in known else ACTIVATIONS[name](candidate) for name in self._functions]
        mixed = torch.bmm(shares[:, None], torch.stack(found, dim=1).flatten(2)).view_as(states)
        normed: Tensor = self.norm(torch.lerp(share * states, mixed, gate).sum(dim=0))
        return normed[None]


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask
