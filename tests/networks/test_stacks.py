"""Training mode: equality with the plain network, sharing, drop path, dropout and the auxiliary head."""

import pytest
import torch

from benchmarks.plain import PlainNetwork, copy_parameters
from nao_ray import registry, rng
from nao_ray.bench.child import loss_of, relative
from nao_ray.networks import fast, fast_norm
from nao_ray.networks.ops import Pool
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from tests.networks.building import build

SPACES = ("nao_cnn", "nao_cnn_small", "nao_cnn_middle")


def _graph(space, index):
    space = registry.load("space", space)()
    return space.lower(space.sample(rng.child(11, "stacks", index)))


def _one(*nodes, output):
    cell = Cell(2, nodes, output)
    return ArchGraph("nao", (("normal", cell), ("reduction", cell)))


def _batch(size=32, count=4, dtype=torch.float32):
    generator = rng.torch_generator(0, "stacks")
    images = torch.randn(count, 3, size, size, generator=generator, dtype=dtype)
    return images, torch.randint(0, 10, (count,), generator=generator)


@pytest.mark.parametrize("paths", ["own", "fast"])
@pytest.mark.parametrize("space", SPACES)
def test_gradients_equal_those_of_the_plain_network(space, paths, monkeypatch):
    """Random weights, so that a weight in the wrong place shows; every path also in double precision."""
    if paths == "fast":
        monkeypatch.setattr(fast, "DTYPES", {torch.float64})
        monkeypatch.setattr(fast_norm, "FOLD_ROWS", 192)
    images, labels = _batch(count=3, dtype=torch.float64)
    for index in range(4):
        graph = _graph(space, index)
        ours = build(graph, cells_per_stage=1, channels=4, auxiliary=True).double()
        plain = PlainNetwork(graph, ours.config).double()
        copy_parameters(ours, plain)
        gradients = []
        for network in (ours, plain):
            loss_of(network, images, labels).backward()
            gradients.append([torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()])
        assert relative(*gradients) < 1e-11
        buffers = zip(ours.buffers(), plain.buffers(), strict=True)
        assert all(torch.allclose(mine, theirs, rtol=1e-10) for mine, theirs in buffers)


def test_a_repeated_pool_is_computed_once(monkeypatch):
    calls = []
    forward = Pool.forward
    monkeypatch.setattr(Pool, "forward", lambda self, x: calls.append(self.signature) or forward(self, x))
    pool, other = Edge(0, "avg_pool_3x3"), Edge(1, "avg_pool_3x3")
    network = build(_one((pool, pool), (pool, other), output=(2, 3)), cells_per_stage=1, channels=4)
    images, labels = _batch(16)
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    assert len(calls) == 2 * len(network.cells)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_states_are_not_overwritten_while_somebody_reads_them():
    """Each state feeds a convolution (rectified) and an identity (not): the plain network says what must come out."""
    nodes = (
        (Edge(0, "conv_3x3"), Edge(0, "identity")),
        (Edge(2, "identity"), Edge(2, "conv_1x1")),
        (Edge(3, "identity"), Edge(3, "zero")),
        (Edge(4, "sep_conv_3x3"), Edge(3, "max_pool_3x3")),
        (Edge(1, "identity"), Edge(1, "identity")),
    )
    images, labels = _batch(dtype=torch.float64)
    for output in ((5, 6), (3, 4, 5, 6), (0, 1, 2, 5, 6)):
        ours = build(_one(*nodes, output=output), cells_per_stage=2, channels=4, auxiliary=True).double()
        plain = PlainNetwork(_one(*nodes, output=output), ours.config).double()
        copy_parameters(ours, plain)
        losses = [loss_of(network, images, labels) for network in (ours, plain)]
        for loss in losses:
            loss.backward()
        assert relative(*([p.grad for p in network.parameters()] for network in (ours, plain))) < 1e-11


# -- drop path ------------------------------------------------------------------------------------------------


def test_keep_probability_follows_cell_and_step():
    network = build(_graph("nao_cnn", 0), cells_per_stage=2, channels=4, drop_path=0.3)  # L = 8 cells
    network.set_step(0, 1000)
    assert network.keep_probability(0) == pytest.approx(1 - 1 / 1000 * 1 / 8 * 0.3)
    network.set_step(499, 1000)
    assert network.keep_probability(3) == pytest.approx(1 - 0.5 * 0.5 * 0.3)
    network.set_step(999, 1000)
    assert network.keep_probability(7) == pytest.approx(0.7)
    for step in (-1, 1000):
        with pytest.raises(ValueError, match=r"is not in 0\.\.999"):
            network.set_step(step, 1000)


def test_no_drop_path_unless_asked():
    network = build(_graph("nao_cnn", 0), cells_per_stage=1, channels=4)
    assert [network.keep_probability(cell) for cell in range(5)] == [1.0] * 5
    images, _ = _batch(16)
    assert torch.equal(network(images), network(images))


def _cell_output(op, keep, *, drop_identity=False, batch=4000):
    """A cell of one edge `op`, in evaluation but for drop path, at `keep` and at 1."""
    with rng.torch_seeded(0, "weights"):
        network = build(_one((Edge(0, op),), output=(2,)), network="small", cells_per_stage=1, channels=8).eval()
    images = torch.randn(batch, 1, 2, 2, generator=rng.torch_generator(0, "images"))
    with rng.torch_seeded(0, "drop path"), torch.no_grad():
        states = network.stem(images)
        cell = network.cells[0]
        dropped = cell(states, cell.wiring, keep, drop_identity=drop_identity)
        return dropped.value, cell(states, cell.wiring, 1.0).value


def test_drop_path_drops_samples_and_scales_the_kept():
    dropped, whole = _cell_output("conv_1x1", keep=0.8)
    zero = (dropped == 0).flatten(1).all(1)
    assert zero.float().mean().item() == pytest.approx(0.2, abs=0.03)
    torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.8)
    assert (whole != 0).flatten(1).any(1).all()


def test_identity_is_dropped_only_on_request():
    kept, whole = _cell_output("identity", keep=0.5)
    assert torch.equal(kept, whole)
    dropped, whole = _cell_output("identity", keep=0.5, drop_identity=True)
    zero = (dropped == 0).flatten(1).all(1)
    assert zero.float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(dropped[~zero], whole[~zero] * 2)


def test_evaluation_drops_nothing():
    network = build(_graph("nao_cnn_small", 1), cells_per_stage=1, channels=4, dropout=0.5, drop_path=0.5).eval()
    images, _ = _batch(16)
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))


def test_dropout_scales_the_pooled_features():
    network = build(_graph("nao_cnn_small", 1), cells_per_stage=1, channels=4, dropout=0.5)
    seen = []
    network.classifier.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
    images, _ = _batch(16, count=64)
    with rng.torch_seeded(0, "dropout"):
        network(images)
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


# -- auxiliary head -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 7, 8, 9, 28, 30, 32])
def test_auxiliary_head_takes_any_map(size):
    network = build(_graph("nao_cnn", 2), cells_per_stage=1, channels=4, auxiliary=True)
    logits, auxiliary = network(_batch(size)[0])
    assert logits.shape == auxiliary.shape == (4, 10)


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])
def test_auxiliary_pool_is_the_published_one(size, stride):
    network = build(_graph("nao_cnn", 2), cells_per_stage=1, channels=4, auxiliary=True)
    seen = []
    network.auxiliary.conv1.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    x = torch.rand(2, network.auxiliary.conv1.in_channels, size, size)
    network.auxiliary(x)
    torch.testing.assert_close(seen[0], torch.nn.functional.avg_pool2d(x, 5, stride))
    assert seen[0].shape[-2:] == (2, 2)
