"""A pool on the same images: equal to one genotype at a time, and nothing computed twice."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import registry, rng
from nao_ray.networks import supernet as supernets
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.ops import OpOptions, SepConv, build_op
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from tests.networks.building import supernet

IMAGES = torch.from_numpy(rng.child(0, "one shot images").standard_normal((5, 1, 8, 8)))


def _pool(name, count=9):
    """Random genotypes, of which the last third share the normal cell of the first and some are there twice."""
    space = registry.load("space", name)()
    texts = [space.sample(rng.child(5, "one shot", index)).key for index in range(count)]
    first = texts[0].split()
    texts[-count // 3 :] = [" ".join(first[:20] + text.split()[20:]) for text in texts[-count // 3 :]]
    return [space.lower(space.parse(text)) for text in [*texts, texts[0], texts[-1]]]


def _net(name, **options):
    with rng.torch_seeded(0, "one shot weights"):
        settings = {"network": "small", "cells_per_stage": 1, "channels": 4, "dropout": 0.5, "drop_path": 0.5}
        return supernet.build(registry.load("space", name)(), **settings, **options).double()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nao_cnn_small", {}),
        ("nao_cnn_middle", {}),
        ("enas_micro", {}),
        ("enas_micro", {"reduce_last": True}),
        ("enas_macro", {}),
        ("nas_bench_201", {}),
    ],
)
def test_each_genotype_as_if_alone(name, options):
    net, graphs = _net(name, **options), _pool(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with supernet.batch_statistics(net), torch.inference_mode():
        alone = torch.stack([net(IMAGES, graph) for graph in graphs])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for keep_bytes in (2**30, 50_000, 0):
        together = pool_logits(net, IMAGES, graphs, keep_bytes=keep_bytes)
        assert together.shape == (len(graphs), 5, 10)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12, msg=f"kept at most {keep_bytes} bytes")
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_what_genotypes_share_is_computed_once(monkeypatch):
    net, graphs = _net("nao_cnn_small"), _pool("nao_cnn_small", 24)
    calls = []
    forward = SepConv.forward
    monkeypatch.setattr(SepConv, "forward", lambda self, x: calls.append(id(self)) or forward(self, x))
    pool_logits(net, IMAGES, graphs[:1] * 3)
    once = len(calls)
    with supernet.batch_statistics(net), torch.no_grad():
        calls.clear()
        net(IMAGES, graphs[0])
    assert once == len(calls)
    calls.clear()
    pool_logits(net, IMAGES, graphs)
    together = len(calls)
    calls.clear()
    with supernet.batch_statistics(net), torch.no_grad():
        for graph in graphs:
            net(IMAGES, graph)
    assert together < 0.85 * len(calls)


class Own(nn.Module):
    """A user's supernet: two layers, of which a genotype chooses an operation each; no class of ours."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        names = ("sep_conv_3x3", "max_pool_3x3")
        self.layers = nn.ModuleList(nn.ModuleDict({n: build_op(n, 4, 1, OpOptions()) for n in names}) for _ in range(2))

    def first(self, images):
        return (self.stem(images),)

    def values(self, how, first, graph):
        found = [*first]
        for layer, (edge,) in zip(self.layers, graph.cell("network").nodes, strict=True):
            found.append(how.apply(layer[edge.op], found[-1]))
        return [*found, how.join(lambda loose, _: loose[0].mean((2, 3)), [found[-1]], ())]

    def forward(self, images, choice):
        x = self.stem(images)
        for layer, (edge,) in zip(self.layers, choice.cell("network").nodes, strict=True):
            x = layer[edge.op](F.relu(x) if layer[edge.op].rectified_input else x)
        return x.mean((2, 3))


def test_a_supernet_of_ones_own_is_scored_together(monkeypatch):
    with rng.torch_seeded(0, "one shot weights"):
        net = Own().double()
    pairs = [(a, b) for a in ("sep_conv_3x3", "max_pool_3x3") for b in ("sep_conv_3x3", "max_pool_3x3")]
    cells = [Cell(1, tuple((Edge(i, op),) for i, op in enumerate(pair)), (2,)) for pair in pairs]
    graphs = [ArchGraph("own", (("network", cell),)) for cell in cells]
    with supernet.batch_statistics(net), torch.inference_mode():
        alone = torch.stack([net(IMAGES, graph) for graph in graphs])
    calls, forward = [], SepConv.forward
    monkeypatch.setattr(SepConv, "forward", lambda self, x: calls.append(self) or forward(self, x))
    torch.testing.assert_close(pool_logits(net, IMAGES, graphs), alone, rtol=0, atol=1e-12)
    assert len(calls) == 3, "of four, for two begin alike"


@pytest.mark.parametrize("name", ["nao_cnn_small", "enas_macro", "nas_bench_201"])
def test_statistics_of_first_examples_are_those_of_a_batch_of_them_and_go_for_the_others(name):
    """And nothing that is scored with them changes them: each example's logits are as if it alone were beside them."""
    net, graphs = _net(name), _pool(name, 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    first = partial(supernets.statistics_of_first, rows=3)
    whole = pool_logits(net, IMAGES, graphs, statistics=first)
    torch.testing.assert_close(whole[:, :3], pool_logits(net, IMAGES[:3], graphs), rtol=0, atol=1e-12)
    for row in (3, 4):
        alone = pool_logits(net, IMAGES[[0, 1, 2, row]], graphs, statistics=first)[:, 3]
        torch.testing.assert_close(whole[:, row], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(whole[:, 3:], pool_logits(net, IMAGES, graphs)[:, 3:], atol=1e-6)
    assert net.training
    assert not any("forward" in vars(module) for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_running_statistics_are_those_of_evaluation():
    net, graphs = _net("nas_bench_201"), _pool("nas_bench_201", 3)
    for graph in graphs:  # some of the averages are no longer what they begin as
        net(IMAGES, graph)
    with torch.inference_mode():
        expected = torch.stack([net.eval()(IMAGES, graph) for graph in graphs])
    net.train()
    found = pool_logits(net, IMAGES, graphs, statistics=supernets.running_statistics)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert net.training
    assert not torch.allclose(found, pool_logits(net, IMAGES, graphs), atol=1e-6)
