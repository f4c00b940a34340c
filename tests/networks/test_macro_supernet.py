"""The supernet of ENAS's macro space: parameters by formula, and the forward pass against a second implementation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import rng
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig
from tests.networks.building import reached, supernet


def _space(layers):
    return EnasMacro(EnasMacroConfig(layers=layers))


def _net(layers, **options):
    with rng.torch_seeded(layers, "macro supernet"):
        net = supernet.build(_space(layers), network="cifar10", **{"channels": 4, **options}).double()
        for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            tensor.data.add_(torch.rand_like(tensor), alpha=0.2)
    return net


def _rows(text):
    numbers, arc = list(map(int, text.split())), []
    while numbers:
        arc.append([numbers.pop(0) for _ in range(len(arc) + 1)])
    return arc


@pytest.mark.parametrize(("layers", "params"), [(12, 697_860), (14, 810_756)])
def test_published_counts(layers, params):
    with torch.device("meta"):
        assert sum(p.numel() for p in supernet.build(_space(layers)).parameters()) == params


def _norm(n, x, eps=1e-5):
    return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=eps)


def _naive(net, images, arc):
    """The search network as the code lists it, every reduction computed, with the weights of `net`."""
    entries = [_norm(net.stem_norm, F.conv2d(images, net.stem.weight, padding=1))]
    for i, (op, *bits) in enumerate(arc):
        branch = list(net.layers[i].branches.values())[op]
        x = _norm(branch.entry.norm, F.conv2d(entries[-1], branch.entry.conv.weight)).relu()
        k = (3, 3, 5, 5, 0, 0)[op]
        weights = [m.weight for m in branch.operation.modules() if isinstance(m, nn.Conv2d)]
        assert [tuple(w.shape) for w in weights] == (
            [] if not k else [(4, 4, k, k)] if op in (0, 2) else [(4, 1, k, k), (4, 4, 1, 1)]
        )
        if op == 4:
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        elif op == 5:
            x = F.max_pool2d(x, 3, 1, 1)
        else:
            for weight in weights:
                x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=4 // weight.shape[1])
            x = _norm(branch.operation.norm, x, eps=1e-3).relu()
        if i:
            x = _norm(net.layers[i].norm, x + sum(entries[j] for j, bit in enumerate(bits) if bit))
        entries.append(x)
        if i in (len(arc) // 3 - 1, 2 * (len(arc) // 3) - 1):
            entries = [_halve(r, e) for r, e in zip(net.reductions[str(i)], entries, strict=True)]
    return entries[-1].mean((2, 3)) @ net.classifier.weight.T


def _halve(reduction, x):
    moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    halves = [
        F.conv2d(part[:, :, ::2, ::2], conv.weight)
        for part, conv in ((x, reduction.conv_even), (moved, reduction.conv_odd))
    ]
    return _norm(reduction.norm, torch.cat(halves, 1))


@pytest.mark.parametrize("layers", [3, 7, 12])
def test_logits(layers):
    net, space, images = _net(layers).eval(), _space(layers), torch.from_numpy(_images())
    for index in range(6):
        text = space.sample(rng.child(4, "macro supernet", index)).key
        with torch.no_grad():
            logits, expected = net(images, space.lower(space.parse(text))), _naive(net, images, _rows(text))
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-10)


def _images():
    return rng.child(0, "macro supernet images").standard_normal((2, 3, 16, 16))


def test_no_parameter_is_dead():
    net, space = _net(4), _space(4)
    seen = set()
    for op in range(6):
        for bit in (0, 1):
            text = " ".join(f"{op}" + f" {bit}" * layer for layer in range(4))
            seen |= reached(net, torch.from_numpy(_images()), space.lower(space.parse(text))).keys()
    assert seen == {name for name, _ in net.named_parameters()}


def test_drop_path_spares_layers_without_skips():
    space, images = _space(3), torch.from_numpy(_images())
    net = _net(3, drop_path=0.9)
    for text, changes in (("0 0 0 0 0 0", False), ("0 0 1 0 1 1", True)):
        graph = space.lower(space.parse(text))
        outputs = []
        for seed in range(6):
            with rng.torch_seeded(seed, "drop path"):
                outputs.append(net(images, graph))
        assert any(not torch.equal(outputs[0], other) for other in outputs[1:]) == changes
