"""The measurement itself, on a tiny network: its table, and equality with the plain supernet."""

import pytest
import torch

from nao_ray.bench import supernet
from nao_ray.bench._result import machine


@pytest.mark.slow
def test_table():
    size = {"batch": 8, "pool": 3, "pool_batch": 8, "cells_per_stage": 1, "channels": 4}
    result = supernet.run(repeats=2, threads=1, **size)
    assert [row[0][:4] for row in result.rows] == ["step", "3 ge", "memo", "memo", "memo"]
    assert machine() in result.table
    assert all(len(times) == 2 and min(times) > 0 for times in result.data["seconds"].values())


def test_equal_results():
    differences = supernet.float64_differences(1, 4)
    assert differences["gradients"] < 1e-12
    assert differences["logits"] < 1e-12


def test_every_gradient_of_the_path_is_the_plain_supernets():
    ours, plain = (net.double() for net in supernet.networks(1, 4))
    for index in range(4):
        graph, norms = supernet.genotype(index), []
        for net in (ours, plain):
            net.zero_grad()
            net(supernet.images(4).double(), graph).square().sum().backward()
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            norms.append(sorted(float(gradient.norm()) for gradient in gradients if gradient.dim() > 1))
        torch.testing.assert_close(torch.tensor(norms[0]), torch.tensor(norms[1]), rtol=1e-9, atol=1e-12)
