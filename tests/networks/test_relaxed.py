"""The relaxed supernet: recorded numbers of the authors' code, and the plain one in `benchmarks/`."""

from functools import partial

import pytest
import torch
from relaxing import PUBLISHED, TINY, alphas, fill, train_batch, valid_batch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks.plain_darts import PlainDarts
from nao_ray.networks import fast, fast_norm
from nao_ray.networks.counting import count
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.networks.supernet import batch_statistics
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES, DartsCnn
from nao_ray.training import bilevel

NAMES = [LOWERED[name] for name in PRIMITIVES]


def relaxed(layers=3, channels=4):
    return RelaxedSupernet(NAMES, SEARCH_OPS, layers=layers, channels=channels)


BOTH = {"ours": relaxed, "plain": lambda layers=3, channels=4: PlainDarts(channels, layers)}


@pytest.fixture(params=BOTH)
def make(request):
    return BOTH[request.param]


def close(values, recorded):
    """To the ten digits that were recorded."""
    torch.testing.assert_close(values, torch.tensor(recorded, dtype=torch.float64), rtol=1e-8, atol=1e-9)


class Called(nn.Module):
    """With alphas of its own, for counting."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        for name in ("normal", "reduction"):
            self.register_buffer(name, torch.zeros(14, 8))

    def forward(self, images):
        return self.network(images, [self.normal, self.reduction])


def test_parameters(make):
    with torch.device("meta"):
        network = make(layers=8, channels=16)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED["total"]
    assert [sum(p.numel() for p in cell.parameters()) for cell in network.cells] == PUBLISHED["per_cell"]


def test_multiply_adds():
    with torch.device("meta"):
        counted = count(Called(relaxed(layers=8, channels=16)), torch.empty(1, 3, 32, 32))
    assert counted.macs == PUBLISHED["madds"]["total"]


def test_logits(make):
    network = fill(make().double())
    assert sum(parameter.numel() for parameter in network.parameters()) == TINY["params"]
    images, _ = train_batch()
    with torch.no_grad():
        close(network.eval()(images, alphas())[:2], TINY["eval_logits"])
        close(network.train()(images, alphas())[:2], TINY["train_logits"])


def losses(network):
    """Training and validation loss as functions of weights and alphas; statistics stay as they are."""
    names = [name for name, _ in network.named_parameters()]

    def loss(batch, weights, alphas):
        images, labels = batch
        logits = functional_call(network, dict(zip(names, weights, strict=True)), (images, alphas))
        return functional.cross_entropy(logits, labels)

    return partial(loss, train_batch()), partial(loss, valid_batch())


def check(gradient, recorded):
    normal, reduction = gradient
    close(normal[0], recorded["normal_row0"])
    close(reduction[13], recorded["reduce_row13"])
    close(normal.norm(), recorded["normal_l2"])
    close(reduction.norm(), recorded["reduce_l2"])


def test_first_order_of_the_plain_one():
    network = fill(PlainDarts(4, 3).double())
    _, valid = losses(network)
    check(bilevel.first_order(valid, list(network.parameters()), alphas()), TINY["first_order_grad"])


def test_gradients_of_the_alphas(monkeypatch):
    """By the paths that are made for float32, which are the quicker ones in float64, too."""
    monkeypatch.setattr(fast, "DTYPES", {torch.float64})
    network = fill(relaxed().double())
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    weights, before = list(network.parameters()), [p.detach().clone() for p in network.parameters()]
    product = bilevel.by_difference(0.01)
    train, valid = losses(network)
    with batch_statistics(network):
        with torch.no_grad():
            close(valid(weights, alphas()), TINY["val_loss"])
            close(train(weights, alphas()), TINY["train_loss"])
        check(bilevel.first_order(valid, weights, alphas()), TINY["first_order_grad"])
        for name, buffers in (("no_momentum", None), ("momentum_buffer_0.1w", [0.1 * w.detach() for w in weights])):
            unrolled = bilevel.Unrolled(rate=0.025, momentum=0.9, weight_decay=3e-4, buffers=buffers)
            found = bilevel.second_order(train, valid, weights, alphas(), unrolled, product)
            check(found, TINY[f"second_order_grad_eta0.025_{name}"])
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(torch.equal(statistics[name], value) for name, value in network.named_buffers())


def test_genotype():
    expected = TINY["genotype"]
    cells = f"normal={expected['normal']}, reduce={expected['reduce']}".replace("[[", "[(").replace("]]", ")]")
    text = f"Genotype({cells.replace('], [', '), (')})"
    assert DartsCnn().derive(alphas()) == DartsCnn().parse(text, "genotype")


def pair(layers, dtype):
    """Ours and the plain one, of the same random weights."""
    torch_seed = torch.Generator().manual_seed(1)
    ours, plain = relaxed(layers).to(dtype), PlainDarts(4, layers).to(dtype)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
            mine.normal_(generator=torch_seed).mul_((2 / max(1, mine[0].numel())) ** 0.5)
            other.copy_(mine)
    return ours, plain


def gradients(network, images, labels, choice):
    choice = [alpha.clone().requires_grad_() for alpha in choice]
    loss = functional.cross_entropy(network(images, choice), labels)
    leaves = [*choice, *network.parameters()]
    return [loss.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("layers", [1, 3])
def test_equals_the_plain_one(layers, monkeypatch):
    """By the paths that are made for float32, taken in float64."""
    monkeypatch.setattr(fast, "DTYPES", {torch.float64})
    monkeypatch.setattr(fast_norm, "FOLD_ROWS", 64)
    ours, plain = pair(layers, torch.float64)
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, 12, 12, generator=generator, dtype=torch.float64)
    labels = torch.arange(4)
    choice = [torch.randn(14, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    for _ in range(2):
        mine, other = (gradients(network, images, labels, choice) for network in (ours, plain))
        for left, right in zip(mine, other, strict=True):
            scale = right.abs().max()
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10 * max(scale.item(), 1e-3))
    ours.eval(), plain.eval()  # by the statistics that those steps have left
    torch.testing.assert_close(ours(images, choice), plain(images, choice), rtol=1e-10, atol=1e-10)


def test_an_odd_side(make):
    network = make()
    logits = network(torch.randn(2, 3, 7, 7), [torch.zeros(14, 8)] * 2)
    assert logits.shape == (2, 10)


def test_exact_products_take_operations_that_can_be_differentiated_twice(monkeypatch):
    monkeypatch.setattr(fast, "DTYPES", {torch.float64})
    monkeypatch.setattr(fast_norm, "FOLD_ROWS", 64)
    network = fill(relaxed(1).double())
    weights = list(network.parameters())
    train, _ = losses(network)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
    with batch_statistics(network):
        found = bilevel.exact(train, weights, alphas(), direction)
        near = bilevel.by_difference(1e-6)(train, weights, alphas(), direction)
    for left, right in zip(found, near, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5 * right.abs().max().item())
