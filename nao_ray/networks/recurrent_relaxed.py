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
        self.nodes = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(nodes))
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.draw_weights()

    def forward(self, tokens: Tensor, carry: Carry, alphas: Sequence[Tensor]) -> Result:
        """See `run`; `alphas`: one of ``[E, O]``, before the softmax."""
        (alpha,) = alphas
        columns = [index for index, name in enumerate(self.names) if name in ACTIVATIONS]
        weights = alpha.softmax(dim=-1)[:, columns]

        def compute(inputs: Tensor, state: Tensor, mask: Tensor | None) -> Tensor:
            outputs = []
            for x in inputs:
                state = self._step(x, state, mask, weights)
                outputs.append(state)
            return torch.stack(outputs)

        return self.run(compute, tokens, carry)

    def _step(self, x: Tensor, state: Tensor, mask: Tensor | None, weights: Tensor) -> Tensor:
        masked = state if mask is None else state * mask
        states = self.norm(highway(torch.cat((x, masked), dim=1) @ self.w0, state, torch.tanh))[None]
        for weight in self.nodes:
            count = len(states)
            masked = states if mask is None else states * mask
            gate, candidate = (masked @ weight).chunk(2, dim=-1)  # [i, B, H] each
            edge = count * (count - 1) // 2
            shares = weights[edge : edge + count].to(states.dtype)  # [i, O]
            found = torch.stack([ACTIVATIONS[name](candidate) for name in self.names if name in ACTIVATIONS], dim=1)
            mixed = torch.einsum("io,iobh->ibh", shares, found)
            kept = shares.sum(dim=1)[:, None, None] * states
            node = (kept + torch.sigmoid(gate) * (mixed - kept)).sum(dim=0)
            states = torch.cat((states, self.norm(node)[None]))
        output: Tensor = states[1:].mean(dim=0)
        return output
