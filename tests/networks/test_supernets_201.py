"""Shared weights of NAS-Bench-201's cells, by path and by alphas, against networks on their own and naive ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from nao_ray import rng
from nao_ray.networks import fast, fast_norm
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.ops import Conv
from nao_ray.networks.supernet import batch_statistics
from nao_ray.networks.supernets_201 import SharedSummingCell
from nao_ray.skeletons.images.base import StackSize
from nao_ray.skeletons.nas_bench_201 import NasBench201 as Skeleton
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.tasks.images.base import ImageShapes
from tests.networks.building import build, reached, supernet
from tests.networks.pairs_201 import pairs

SPACE = NasBench201()
TEXTS = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|",
    "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
)
SMALL = {"network": "small", "cells_per_stage": 1, "channels": 4}


def graph(text):
    return SPACE.lower(SPACE.parse(text))


def images(count=4, channels=1, size=8):
    return torch.from_numpy(rng.child(0, "images").standard_normal((count, channels, size, size)))


def unsettled(net):
    """Weights and statistics that no two modules share, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.1)
    return net


@pytest.fixture
def shared():
    torch.manual_seed(0)
    return unsettled(supernet.build(SPACE, **SMALL).double())


@pytest.mark.parametrize("text", TEXTS)
def test_a_derived_network_is_the_same_function(shared, text):
    """By running statistics, by those of the batch, and in training, after which the running ones are the same too."""
    choice, x = graph(text), images()
    derived = shared.derive(choice)
    alone = build(choice, **SMALL).double()
    alone.load_state_dict(derived.state_dict())
    for mode in ("running", "batch", "training", "running"):
        nets = [net.train(mode == "training") for net in (shared, derived, alone)]
        if mode == "batch":
            with batch_statistics(shared), batch_statistics(derived), batch_statistics(alone):
                outs = [shared(x, choice), derived(x), alone(x)]
        else:
            outs = [nets[0](x, choice), nets[1](x), nets[2](x)]
        for out in outs[1:]:
            torch.testing.assert_close(out, outs[0], rtol=0, atol=1e-9, msg=lambda text, mode=mode: f"{mode}: {text}")
        assert outs[0].std() > 1e-3


def test_a_step_reaches_what_it_computes_alone(shared):
    names = reached(shared, images(), graph(TEXTS[1])).keys()
    reached_edges = {name for name in names if ".nodes." in name}
    assert reached_edges == {f"stages.{i}.0.nodes.2.0.conv_3x3.conv.weight" for i in range(3)}, "none cuts node 2 off"


def test_batch_norms_of_edges_only_normalise(shared):
    names = [name for name, _ in shared.named_parameters() if ".nodes." in name]
    assert len(names) == 3 * 6 * 2
    assert all(name.endswith("conv.weight") for name in names)


def test_what_cells_share_is_computed_once(shared, monkeypatch):
    alike = [TEXTS[0], TEXTS[0].replace("nor_conv_1x1~2", "skip_connect~2")]  # but for the last edge
    graphs, calls, forward = [graph(text) for text in alike], [], Conv.forward
    monkeypatch.setattr(Conv, "forward", lambda self, x: calls.append(self) or forward(self, x))
    pool_logits(shared, images(), [*graphs, *graphs])
    together = len(calls)
    calls.clear()
    for each in graphs:
        pool_logits(shared, images(), [each])
    assert together == len(calls) - 4, "those on edges to the first two nodes and from them, of the first cell"


def test_a_genotype_is_wired_once(shared, monkeypatch):
    """Steps of a training and scores draw the same ones again."""
    wired, wire = [], SharedSummingCell.wire
    monkeypatch.setattr(SharedSummingCell, "wire", lambda self, cell: wired.append(cell) or wire(self, cell))
    choice = graph("|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|")
    for _ in range(3):
        shared(images(), choice)
        pool_logits(shared, images(), [choice])
    assert len(wired) == 3, "one for each cell"


# -- all at once --------------------------------------------------------------------------------------------------


class Nothing(nn.Module):
    def forward(self, x):
        return x * 0.0


class NaiveRelaxed(nn.Module):
    """One module per operation, one call per module."""

    def __init__(self, cells, channels):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.stages, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stage in range(3):
            c = channels * 2**stage
            if stage:
                self.blocks.append(self._block(c // 2, c))
            cell = [nn.ModuleList(nn.ModuleList(self._ops(c)) for _ in range(6)) for _ in range(cells)]
            self.stages.append(nn.ModuleList(cell))
        self.norm, self.head = nn.BatchNorm2d(c), nn.Linear(c, 10)

    @staticmethod
    def _conv(into, c, kernel, stride=1, *, affine=True):
        conv = nn.Conv2d(into, c, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c, affine=affine))

    def _block(self, into, c):
        beside = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(into, c, 1, bias=False))
        return nn.ModuleList([self._conv(into, c, 3, 2), self._conv(c, c, 3), beside])

    def _ops(self, c):
        convs = [self._conv(c, c, kernel, affine=False) for kernel in (1, 3)]
        return [Nothing(), nn.Identity(), *convs, nn.AvgPool2d(3, 1, 1, count_include_pad=False)]

    def forward(self, x, alphas):
        weights = alphas[0].softmax(-1)
        x = self.stem(x)
        for stage, cells in enumerate(self.stages):
            if stage:
                first, second, beside = self.blocks[stage - 1]
                x = beside(x) + second(first(x))
            for edges in cells:
                mixed = zip(edges, weights, strict=True)
                states = [x]
                for node in range(3):
                    terms = [next(mixed) for _ in range(node + 1)]
                    states.append(
                        sum(
                            weight * op(state)
                            for state, (ops, row) in zip(states, terms, strict=True)
                            for op, weight in zip(ops, row, strict=True)
                        )
                    )
                x = states[-1]
        return self.head(functional.relu(self.norm(x)).mean(dim=(2, 3)))


def relaxed(cells):
    shapes = ImageShapes(1, 8, 8, 10, "small")
    return Skeleton().relaxed_supernet(SPACE, shapes, StackSize(cells_per_stage=cells, channels=4))


def gradients(network, x, alpha):
    alpha = alpha.clone().requires_grad_()
    loss = functional.cross_entropy(network(x, [alpha]), torch.arange(len(x)))
    return [loss.detach(), *torch.autograd.grad(loss, [alpha, *network.parameters()])]


def test_the_relaxed_one_equals_the_naive_one(monkeypatch):
    """By the paths that are made for float32, taken in float64."""
    monkeypatch.setattr(fast, "DTYPES", {torch.float64})
    monkeypatch.setattr(fast_norm, "FOLD_ROWS", 64)
    ours, naive = unsettled(relaxed(2).double()), NaiveRelaxed(2, 4).double()
    names = [name for name, _ in ours.named_parameters()]
    assert len(names) == len(list(naive.parameters()))
    _pair(ours, naive)
    alpha = torch.from_numpy(rng.child(0, "alpha").standard_normal((6, 5)))
    for _ in range(2):
        mine, other = gradients(ours, images(), alpha), gradients(naive, images(), alpha)
        torch.testing.assert_close(mine[:2], other[:2], rtol=1e-10, atol=1e-10)
        by_shape = [sorted((tuple(g.shape), g.norm().item()) for g in found[2:]) for found in (mine, other)]
        for left, right in zip(*by_shape, strict=True):
            assert left[0] == right[0]
            assert left[1] == pytest.approx(right[1], rel=1e-9, abs=1e-12)
    ours.eval(), naive.eval()  # by the statistics that those steps have left
    torch.testing.assert_close(ours(images(), [alpha]), naive(images(), [alpha]), rtol=1e-10, atol=1e-10)


def _pair(ours, naive):
    for mine, its in pairs(ours, naive, _of_cell):
        its.load_state_dict(mine.state_dict())


def _of_cell(cell, other):
    return [
        pair
        for ops, others in zip(cell.edges, other, strict=True)
        for name, its in (("conv_1x1", others[2]), ("conv_3x3", others[3]))
        for pair in ((ops[name].conv, its[1]), (ops[name].norm, its[2]))
    ]


def test_one_operation_alone_is_the_path_of_it():
    """Alphas that are all but one-hot: the mixture is the genotype that is derived of them."""
    mixed, shared = relaxed(1).double(), supernet.build(SPACE, **SMALL).double()
    state = {key.replace(".edges.", ".nodes."): value for key, value in mixed.state_dict().items()}
    place = dict(enumerate(["0.0", "1.0", "1.1", "2.0", "2.1", "2.2"]))
    for edge, where in place.items():
        state = {key.replace(f".nodes.{edge}.conv", f".nodes_.{where}.conv"): value for key, value in state.items()}
    shared.load_state_dict({key.replace("nodes_", "nodes"): value for key, value in state.items()})
    alpha = torch.from_numpy(rng.child(1, "alpha").standard_normal((6, 5))) * 1000
    choice = SPACE.lower(SPACE.derive([alpha.numpy()]))
    torch.testing.assert_close(mixed(images(), [alpha]), shared(images(), choice), rtol=0, atol=1e-9)
