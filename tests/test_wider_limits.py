"""What a limit says, and a space that keeps to it."""

from __future__ import annotations

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.contracts.spaces import check_space
from nao_ray.errors import ConfigError
from nao_ray.limits import Limit, LimitError, Limits
from nao_ray.spaces.parts.within import within

SPACE = registry.load("space", "nao_cnn_small")()


def convolutions(genotype):
    ops = SPACE.lower(genotype).cells
    return {"convolutions": float(sum("conv" in edge.op for _, cell in ops for node in cell.nodes for edge in node))}


def limited(text):
    return within(SPACE, Limits({"convolutions": text}), convolutions)


@pytest.mark.parametrize(
    ("text", "value", "within_it", "outside"),
    [
        ("<= 3.3e6", 3.3e6, 3.3e6, 3.4e6),
        ("<3.3M", 3.3e6, 3.2e6, 3.3e6),
        (" >= 5k ", 5e3, 5e3, 4.9e3),
        ("> 1_000", 1e3, 1001, 1000),
        ("<= 0.5G", 5e8, 5e8, float("nan")),
    ],
)
def test_a_limit_is_a_sign_and_a_number(text, value, within_it, outside):
    limit = Limit.parse(text, "macs")
    assert limit.value == value
    assert limit.keeps(within_it)
    assert not limit.keeps(outside)


@pytest.mark.parametrize("text", [5, "3.3e6", "== 3", "<= three", "<= 3 MB", None])
def test_anything_else_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"constraints\.macs: expected a text like"):
        Limits({"macs": text})


def test_what_is_broken_is_said_with_both_numbers():
    limits = Limits({"macs": "<= 600M", "latency_ms": "<= 5"})
    assert limits.known == ("macs",)
    assert limits.broken({"macs": 6e8}) is None
    assert limits.broken({"macs": 6.1e8, "latency_ms": 7.25}) == (
        "macs is 610,000,000, the constraint is <= 600,000,000; latency_ms is 7.25, the constraint is <= 5"
    )
    with pytest.raises(LimitError, match="latency_ms is nan"):
        limits.refuse({"latency_ms": float("nan")})


def test_two_notations_are_one_limit():
    assert Limits({"macs": "<=0.4M"}).texts == Limits({"macs": "<= 4e5"}).texts == {"macs": "<= 400000"}


def test_a_space_within_limits_draws_and_mutates_nothing_outside():
    space, generator = limited("<= 6"), rng.child(0, "test")
    genotype = space.sample(generator)
    for _ in range(100):
        assert convolutions(genotype)["convolutions"] <= 6
        genotype = space.mutate(genotype, generator)
    assert space.refusal(SPACE.sample(rng.child(0, "many"))) == "convolutions is 11, the constraint is <= 6"
    assert (space.name, space.whole) == (SPACE.name, SPACE)
    assert SPACE.whole is SPACE
    assert np.array_equal(space.token_mask, SPACE.token_mask)


def test_limits_that_leave_nothing_end_with_one_line():
    with pytest.raises(ConfigError, match=r"none of 500 .* keeps convolutions >= 99; the nearest .* was .* 1\d"):
        limited(">= 99").sample(rng.child(0, "test"))


def test_where_no_neighbour_is_within_another_architecture_is_taken():
    space, generator = limited("<= 0"), rng.child(0, "test")
    lone = within(SPACE, Limits({"same": "<= 0"}), lambda genotype: {"same": float(genotype.key != first.key)})
    first = SPACE.sample(generator)
    assert space.refusal(first)
    with pytest.raises(ConfigError, match="none of 500"):
        lone.mutate(first, generator)


def test_a_space_within_limits_keeps_the_contract_of_spaces():
    check_space(limited("<= 10"), examples=3)
