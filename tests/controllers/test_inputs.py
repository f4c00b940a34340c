"""Genotypes as vectors, and what a process may look at of them."""

import numpy as np
import pytest
import torch

from nao_ray import registry, rng
from nao_ray.controllers.inputs import VIEWS, Inputs, ViewName
from nao_ray.controllers.kernels import median_distance, squared_distances, squared_exponential
from nao_ray.spaces.base import Genotype, SearchSpace

ALL: tuple[ViewName, ...] = (*VIEWS, "subtrees")


def space_of(name: str, **settings: str) -> SearchSpace:  # type: ignore[type-arg]
    cls = registry.load("space", name)
    return cls(cls.Config(**settings))  # type: ignore[no-any-return]


def sample(space: SearchSpace, count: int) -> list[Genotype]:  # type: ignore[type-arg]
    return [space.sample(rng.child(0, "inputs", k)) for k in range(count)]


@pytest.mark.parametrize("name", ["nas_bench_201", "nao_cnn_small", "darts_rnn"])
def test_every_view_is_a_kernel_in_units_of_the_space(name: str) -> None:
    space = space_of(name)
    genotypes = sample(space, 60)
    inputs = Inputs(space, genotypes, ALL)
    rows = inputs(genotypes)
    assert rows.shape == (60, len(inputs))
    assert list(inputs.views) == list(ALL)
    for view in inputs.views.values():
        seen = view(rows)
        assert median_distance(seen) == pytest.approx(1)
        kernel = squared_exponential(squared_distances(seen, seen), 0.75)
        assert torch.equal(kernel, kernel.T) or torch.allclose(kernel, kernel.T, atol=1e-12)
        assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-9, "positive semi-definite"


def test_twins_are_one_point_in_every_view() -> None:
    space = space_of("nao_cnn_small")
    genotypes = sample(space, 40)
    inputs = Inputs(space, genotypes, ALL)
    tokens = np.stack([space.encode(genotype) for genotype in genotypes])
    twins = [space.decode(row) for row in space.twins(tokens, rng.child(0, "twins"))]
    assert [twin.key for twin in twins] != [genotype.key for genotype in genotypes]
    assert torch.equal(inputs(twins), inputs(genotypes))


def test_where_twins_are_distinct_tokens_alone_tell_them_apart() -> None:
    space = space_of("nas_bench_201", twins="distinct")
    inputs = Inputs(space, sample(space, 100), ALL)
    texts = (
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
        "|nor_conv_1x1~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    )
    first, second = inputs([space.parse(text) for text in texts])
    apart = {name for name, view in inputs.views.items() if not torch.equal(view(first[None]), view(second[None]))}
    assert apart == {"tokens", "graph+tokens"}, "what they have on dead edges is in no graph"


def test_subtrees_are_counted_where_they_are_looked_at() -> None:
    space = space_of("nas_bench_201")
    genotypes = sample(space, 50)
    without, with_them = Inputs(space, genotypes), Inputs(space, genotypes, ALL)
    assert list(without.views) == list(VIEWS)
    assert len(with_them) > len(without)
    assert torch.equal(with_them(genotypes)[:, : len(without)], without(genotypes))
