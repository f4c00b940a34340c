"""torch's optimisers to the bit, without its compiler."""

import subprocess
import sys

import pytest
import torch

from nao_ray import optimisers

OURS_AND_TORCHS = [
    (optimisers.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "fused": True}),
    (optimisers.SGD, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1, "foreach": True}),
    (optimisers.Adam, torch.optim.Adam, {"weight_decay": 0.1, "foreach": True}),
]


@pytest.mark.parametrize(("ours", "torchs", "settings"), OURS_AND_TORCHS)
def test_steps_are_torchs_to_the_bit(ours, torchs, settings):
    weights = []
    for kind in (ours, torchs):
        parameter = torch.nn.Parameter(torch.linspace(-1, 1, 50))
        optimiser = kind([parameter], lr=0.1, **settings)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)
        for step in range(5):
            optimiser.zero_grad()
            assert parameter.grad is None
            (parameter * (parameter - step)).square().sum().backward()
            optimiser.step()
            schedule.step()
        weights.append(parameter.detach())
        assert isinstance(optimiser, torchs)
    assert torch.equal(*weights)


def test_orthogonal_steps_of_kernels_are_those_of_torchs_muon_on_matrices():
    """Which computes in bfloat16; all other weights move as by SGD, a whole step of the matrices by its share."""
    draw = torch.Generator().manual_seed(0)
    kernels = [torch.randn(shape, generator=draw) for shape in ((8, 4, 3, 3), (16, 4, 1, 1), (8, 4, 3, 3))]
    others = [torch.randn(shape, generator=draw) for shape in ((6, 1, 3, 3), (5, 4), (8,))]
    settings = {"momentum": 0.9, "nesterov": True}
    ours = [torch.nn.Parameter(value.clone(memory_format=torch.channels_last)) for value in kernels]
    ours += [torch.nn.Parameter(value.clone()) for value in others]
    muon = optimisers.Muon(ours, share=0.1, lr=0.2, **settings)
    matrices = [torch.nn.Parameter(value.flatten(1).clone()) for value in kernels]
    plain = [torch.nn.Parameter(value.clone()) for value in others]
    torchs = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0, **settings),
        torch.optim.SGD(plain, lr=0.2, **settings),
    ]
    for _ in range(3):
        for mine, theirs in zip(ours, [*matrices, *plain], strict=True):
            gradient = torch.randn(mine.shape, generator=draw)
            mine.grad, theirs.grad = gradient, gradient.reshape(theirs.shape).clone()
        for optimiser in (muon, *torchs):
            optimiser.step()
    for value, mine, theirs in zip(kernels, ours, matrices, strict=False):
        moved = (theirs - value.flatten(1)).norm()
        assert (mine.flatten(1) - theirs).norm() < 0.02 * moved
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours[3:], plain, strict=True))
    assert len(muon.param_groups[0]["params"]) == 6


def test_orthogonal_steps_bring_singular_values_near_one_and_decay_by_what_momentum_makes_of_it():
    draw = torch.Generator().manual_seed(1)
    values = torch.linalg.svdvals(optimisers.orthogonal(torch.randn(5, 12, 7, generator=draw)))
    assert 0.5 < values.min() < values.max() < 1.3
    weight = torch.nn.Parameter(torch.ones(2, 2, 1, 1))
    weight.grad = torch.zeros_like(weight)
    optimisers.Muon([weight], share=1.0, lr=0.1, momentum=0.9, weight_decay=0.01).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2, 1, 1), 1 - 0.1 * 0.01 / 0.1))


_TRAINS = """
import sys, torch
from nao_ray import build_network, optimisers
from nao_ray.controllers import fit, policy_gradient, pretraining
from nao_ray.networks import counting
from nao_ray.training import trainer
cell_201 = "|nor_conv_3x3~0|+|avg_pool_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
cells, layers, small = {"cells_per_stage": 1}, {"layers": 4, "auxiliary": True}, {"network": "cifar10", "channels": 4}
for genotype, space, more in [
    (cell_201, "nas_bench_201", cells),
    ("DARTS_V2", "darts_cnn", layers),
    ("ENAS-micro", "enas_micro", cells),
    ("ENAS-macro", "enas_macro", {}),
    ("NAONet-A", "nao_cnn", {**cells, "auxiliary": True}),
    ("NAONet-B", "nao_cnn_small", {**cells, "auxiliary": True}),
]:
    network = build_network(genotype, space=space, **small, **more)
    assert counting.count(network, torch.empty(1, 3, 32, 32)).macs > 0
recurrent = build_network("NAO-RNN", space="nao_rnn", hidden=4)
assert counting.count(recurrent, torch.zeros(1, 3, dtype=torch.int64)).macs > 0
for kind in (optimisers.SGD, optimisers.Adam):
    optimiser = kind(network.parameters(), lr=0.1)
    optimiser.zero_grad()
    sum(out.sum() for out in network(torch.ones(2, 3, 8, 8))).backward()
    optimiser.step()
sys.exit("torch._dynamo" in sys.modules or "sympy" in sys.modules)
"""


def test_what_trains_and_counts_loads_no_compiler():
    assert subprocess.run([sys.executable, "-c", _TRAINS], check=False).returncode == 0
