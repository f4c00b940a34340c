"""The relaxed supernet that mixes a part of the channels (PC-DARTS) against its code's modules; and what is derived."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import plain_darts
from nao_ray import registry, rng
from nao_ray.errors import ConfigError
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.skeletons.darts import Darts, DartsSize
from nao_ray.skeletons.nas_bench_201 import NasBench201
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES
from nao_ray.spaces.parts.relaxed import strongest
from nao_ray.strategies.parts.alpha_watch import Seen, figures, split
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig

PARTS, CHANNELS = 4, 8
WHOLE = plain_darts.MixedOperation
NAMES = [LOWERED[name] for name in PRIMITIVES]


class PartialOperation(nn.Module):
    """A mixed operation on the first channels; the others pass by, and both are shuffled."""

    def __init__(self, channels, stride):
        super().__init__()
        self.mixed = WHOLE(channels // PARTS, stride)
        self.pool = nn.MaxPool2d(2, 2) if stride == 2 else nn.Identity()

    def forward(self, x, weights):
        cut = x.shape[1] // PARTS
        out = torch.cat([self.mixed(x[:, :cut], weights), self.pool(x[:, cut:])], dim=1)
        batch, channels, height, width = out.shape
        return out.view(batch, PARTS, channels // PARTS, height, width).transpose(1, 2).reshape(out.shape)


class PartialCell(plain_darts.PlainCell):
    """`weights`: ``[14, 9]``, the last column that of the edges."""

    def forward(self, before, last, weights):
        states, edge = [self.first(before), self.last(last)], 0
        for _ in range(plain_darts.NODES):
            rows = weights[edge : edge + len(states)]
            shares = rows[:, -1].softmax(0)
            outs = [
                share * self.edges[edge + index](state, rows[index, :-1].softmax(0))
                for index, (state, share) in enumerate(zip(states, shares, strict=True))
            ]
            edge += len(states)
            states.append(sum(outs))
        return torch.cat(states[2:], dim=1)


class PartialNet(plain_darts.PlainDarts):
    def forward(self, images, alphas):
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last, alphas[cell.reduction])
        return self.classifier(last.mean(dim=(2, 3)))


@pytest.fixture
def pair(monkeypatch):
    """Ours and the naive one with equal weights, in float64."""
    monkeypatch.setattr(plain_darts, "MixedOperation", PartialOperation)
    monkeypatch.setattr(plain_darts, "PlainCell", PartialCell)
    naive = PartialNet(CHANNELS, 3).double()
    with rng.torch_seeded(0, "weights"):
        ours = RelaxedSupernet(NAMES, SEARCH_OPS, layers=3, channels=CHANNELS, partial=PARTS).double()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), naive.parameters(), strict=True):
            other.copy_(mine)
    return ours, naive


def test_logits_and_gradients_are_those_of_the_naive_one(pair):
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 8, 8, generator=draw, dtype=torch.float64)
    first = [torch.randn(14, 9, generator=draw, dtype=torch.float64) for _ in range(2)]
    found = []
    for network in pair:
        alphas = [alpha.clone().requires_grad_() for alpha in first]
        logits = network(images, alphas)
        loss = logits.square().sum()
        found.append([logits, *torch.autograd.grad(loss, [*alphas, *network.parameters()])])
    assert all(gradient.abs().max() > 0 for gradient in found[0][1:3])
    assert found[0][1][:, -1].abs().max() > 0, "edges are weighed"
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10 * theirs.abs().max().item())


def test_of_a_quarter_of_the_channels_an_edge_has_fewer_parameters():
    def edges(channels, parts):
        with torch.device("meta"):
            net = RelaxedSupernet(NAMES, SEARCH_OPS, layers=1, channels=channels, partial=parts)
        return sum(p.numel() for name, p in net.named_parameters() if ".edges." in name)

    assert edges(16, 4) == edges(4, 1), "one cell doubles its channels, in both"
    c = 2 * 16 // PARTS
    of_convolutions = (2 * 9 + 2 * 25 + 9 + 25) * c + 6 * c * c
    assert edges(16, 4) == 14 * of_convolutions + 8 * c * c, "eight of the skips halve the map"


@pytest.mark.parametrize("channels", [4, 18])
def test_channels_that_cannot_be_cut_are_refused(channels):
    shapes = Synthetic(SyntheticConfig()).shapes
    words = f"^partial_channels 4: {channels} channels cannot be cut so; give a multiple of 8$"
    with pytest.raises(ConfigError, match=words):
        Darts().check_relaxed(shapes, DartsSize(channels=channels), 4)
    with pytest.raises(ConfigError, match="relaxed supernet of nas_bench_201 mixes all channels; leave it out"):
        NasBench201().check_relaxed(shapes, None, 4)


def test_a_cell_is_derived_by_operations_and_edges_together():
    ops = ("none", "skip_connect", "sep_conv_3x3")
    alphas = np.zeros((5, 4))  # a node of two edges, one of three
    alphas[:, 2] = [1, 1, 3, 2, 1]
    assert [source for _, source in strongest(alphas[:, :3], ops)[1]] == [0, 1]
    assert strongest(alphas, ops) == strongest(alphas[:, :3], ops), "edges that weigh the same change nothing"
    alphas[:, 3] = [9, 0, 0, 1, 4]  # of the softmax within a node: the first node's 9 is no matter of the second
    assert strongest(alphas, ops)[1] == [("sep_conv_3x3", 2), ("sep_conv_3x3", 1)]


def test_what_is_watched_is_of_the_operations_alone():
    space = registry.load("space", "darts_cnn")()
    alphas = [rng.child(0, "alphas", role).normal(size=(14, 9)) for role in range(2)]
    again = split(space, [value for alpha in alphas for value in alpha.ravel()])
    assert all(np.array_equal(a, b) for a, b in zip(again, alphas, strict=True))
    derived = space.derive(alphas)
    told = figures(space, Seen(derived, alphas))
    assert told == figures(space, Seen(derived, [alpha[:, :8] for alpha in alphas]))
