"""Generators by (seed, purpose, index)."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from nao_ray import rng


def test_same_name_same_numbers():
    assert rng.child(3, "a", 5).integers(2**60) == rng.child(3, "a", 5).integers(2**60)


def test_every_part_of_the_name_counts():
    names = [(3, "a", 5), (4, "a", 5), (3, "b", 5), (3, "a", 6), (5, "a", 3)]
    assert len({int(rng.child(*name).integers(2**60)) for name in names}) == len(names)
    assert len({rng.child_seed(*name) for name in names}) == len(names)


def test_numbers_are_the_same_in_other_processes():
    program = "from nao_ray import rng; print(rng.child(1, 'p', 2).integers(2**60), rng.child_seed(1, 'p', 2))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(rng.child(1, "p", 2).integers(2**60)), str(rng.child_seed(1, "p", 2))]


def test_streams_of_neighbours_are_independent():
    draws = np.stack([rng.child(0, "trial", k).normal(size=400) for k in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.2


@pytest.mark.parametrize("index", range(20))
def test_seeds_are_in_range(index):
    assert 0 <= rng.child_seed(2**62, "x", index) < 2**31


def test_negative_names_are_refused():
    with pytest.raises(ValueError, match="non-negative"):
        rng.child(-1, "a")


def test_torch_generators():
    first = torch.rand(4, generator=rng.torch_generator(1, "a"))
    assert torch.equal(first, torch.rand(4, generator=rng.torch_generator(1, "a")))
    assert not torch.equal(first, torch.rand(4, generator=rng.torch_generator(1, "b")))


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    with rng.torch_seeded(1, "init"):
        inside = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with rng.torch_seeded(1, "init"):
        assert torch.equal(torch.rand(3), inside)
