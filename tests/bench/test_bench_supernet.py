"""The measurement itself, on a tiny network: its table, and equality with the plain supernet."""

from functools import cache

import pytest
import torch

from nao_ray.bench import supernet
from nao_ray.bench._epoch import seconds_of_epochs
from nao_ray.bench._result import machine


@pytest.fixture(scope="module")
def differences():
    return supernet.float64_differences(1, 4)


def test_table(no_processes, differences, monkeypatch):
    no_processes(supernet)
    monkeypatch.setattr(supernet, "networks", cache(supernet.networks))  # a variant trains its own of the two
    asked = []
    monkeypatch.setattr(supernet, "float64_differences", lambda *size: asked.append(size) or differences)
    monkeypatch.setattr(supernet, "_memory", lambda variant, _, size: len(variant) * size["batch"] * 1e6)
    size = {"batch": 8, "pool": 3, "pool_batch": 8, "cells_per_stage": 1, "channels": 4}
    result = supernet.run(repeats=2, threads=1, **size, memory_batches=[8, 24], epochs=0)
    assert asked == [(1, 4, "cpu")]
    assert [row[0][:4] for row in result.rows] == ["step", "step", "step", "3 ge", "memo", "memo", "memo"]
    assert result.rows[2] == ["step, run", "eager", "eager", ""]
    assert result.rows[4][1:] == [40, 56, 1.4]
    assert result.rows[-1][0] == "memory of a step per image, MB"
    assert result.rows[-1][1:] == pytest.approx([5, 7, 1.4])
    assert machine() in result.table
    assert all(len(times) == 2 and min(times) > 0 for times in result.data["seconds"].values())


@pytest.mark.usefixtures("forked")
def test_memory_is_that_of_a_process_of_its_own():
    size = {"batch": 32, "pool": 3, "pool_batch": 8, "n": 1, "f": 4, "device": "cpu"}
    assert 0.5e6 < supernet._memory("plain", 1, size) < 1e9


def test_memory_per_image_is_a_slope():
    assert supernet._slope([16, 32, 64], [105.0, 185.0, 345.0]) == pytest.approx(5.0)


@pytest.mark.slow
@pytest.mark.ray
def test_epochs_of_one_and_two_workers():
    waits = seconds_of_epochs(images=32, epochs=1, batch=16, n=1, f=2)
    assert set(waits) == {(1, 1), (1, 2), (2, 1)}
    assert all(len(times) == 1 and times[0] > 0 for times in waits.values())
    rows = supernet._epoch_rows({(1, 1): [4.0, 6.0, 9.0], (1, 2): [3.0], (2, 1): [2.0]}, 64)
    assert [row[1:] for row in rows] == [[6.0, 2.0, 3.0], [3.0, 2.0, 1.5]]


def test_equal_results(differences):
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
