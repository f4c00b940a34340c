"""The shared supernet of ENAS's macro space: all operations of all layers, of which a step computes one genotype's.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268;
the search network of its code: n layers of C channels throughout; after layers n//3 - 1 and 2(n//3) - 1 every entry
(the stem and the layers so far) is halved by a factorised reduction of its own; global pool, linear without bias. An
operation is conv 1x1, BN, ReLU, then a convolution, BN (eps 1e-3), ReLU, or a pool. From the second layer on, the
entries it skips from and that result are added up (the final network concatenates them) and pass BN.

Parameters at C = 36 for CIFAR-10: 697,860 with n = 12, 810,756 with n = 14.

Differs from the code: a layer's operation is the one its genotype names (there each is the max pool, the last of the
list); reductions whose result no layer reads are not computed; drop path, which the code ignores, drops on request the
operations of layers that skip; one-shot scores take the statistics of the batch. There is no auxiliary head.

Legend: `B` batch, `C` channels, `H` `W` pixels, `K` classes, `n` layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.eager import State, dropping
from nao_ray.networks.enas_macro import BaseMacroStack, operation
from nao_ray.networks.fast_norm import batch_norm
from nao_ray.networks.ops import ConvNorm, Operation, Pool, conv_norm
from nao_ray.networks.stacks import StackConfig, tensors_of
from nao_ray.networks.supernet import Supernet
from nao_ray.spaces.base import ArchGraph, Edge

BRANCH_EPS = 1e-3


class Branch(Operation):
    """Conv 1x1, BN, ReLU, convolution, BN, ReLU, or conv 1x1, BN, ReLU, pool: ``[B, C, H, W]`` -> ``[B, C, H, W]``."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.entry = ConvNorm(channels, channels)
        self.operation = operation(name, channels, plain_separable=False)
        for module in self.operation.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = BRANCH_EPS

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(conv_norm(self.entry.conv, self.entry.norm, x, relu=True))
        return x if isinstance(self.operation, Pool) else F.relu(x, inplace=True)


class SearchLayer(nn.Module):
    """One layer: the branch of each operation in `names`, and the batch norm of the sum."""

    def __init__(self, names: Sequence[str], channels: int, *, joins: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({name: Branch(name, channels) for name in names})
        self.norm = nn.BatchNorm2d(channels) if joins else None

    def forward(self, entries: dict[int, State], edges: Sequence[Edge], keep: float | Tensor) -> State:
        """Entries ``[B, C, H, W]`` by number -> ``[B, C, H, W]``; `keep`: probability of keeping the operation."""
        source, *skips = [entries[edge.source] for edge in edges]
        x: Tensor = self.branches[edges[0].op](source.value)
        if self.norm is None:
            return State(x)
        if skips and dropping(keep):
            x = x * source.draw(1, keep)[0]
        for number, skip in enumerate(skips):
            x = x.add_(skip.value) if number else x + skip.value
        return State(batch_norm(self.norm, x))


class MacroSearchStack(BaseMacroStack):
    """A stand-alone network of one genotype in the supernet's layout."""

    def __init__(self, graph: ArchGraph, config: StackConfig) -> None:
        nodes = graph.cell("network").nodes

        def layer(index: int, channels: int) -> SearchLayer:
            return SearchLayer([nodes[index][0].op], channels, joins=index > 0)

        super().__init__(config, len(nodes), growth=1, make=layer)
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``."""
        return self._run(images, self.graph)


class MacroSupernet(BaseMacroStack, Supernet):
    """Shared weights of all genotypes of n layers; see `skeletons.base.Skeleton.supernet`."""

    def __init__(self, names: Sequence[str], num_layers: int, config: StackConfig) -> None:
        super().__init__(
            config, num_layers, growth=1, make=lambda index, channels: SearchLayer(names, channels, joins=index > 0)
        )

    def forward(self, images: Tensor, choice: ArchGraph) -> Tensor:
        """``[B, in_channels, H, W]`` -> logits ``[B, K]``.

        Only the operations and reductions of the `choice` are computed, and only their parameters get a gradient.
        """
        return self._run(images, choice)

    def derive(self, graph: ArchGraph) -> MacroSearchStack:
        """A stand-alone network of the supernet's layout with copies of a genotype's weights and statistics."""
        like = self.classifier.weight
        derived = MacroSearchStack(graph, self.config).to(like.device, like.dtype)
        names = list(derived.state_dict())
        derived.load_state_dict(dict(zip(names, tensors_of(self, names), strict=True)))
        return derived.train(self.training)
