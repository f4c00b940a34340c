"""What every search space keeps, whatever its name: a new file is tested the moment it exists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nao_ray import registry
from nao_ray.contracts.spaces import CHECKS, OF_EXAMPLES


@pytest.fixture(scope="module", params=registry.names("space"))
def space(request):
    return registry.load("space", request.param)()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_of_the_space(space, check):
    check(space)


@pytest.mark.parametrize("check", OF_EXAMPLES, ids=lambda check: check.__name__)
@settings(max_examples=50)  # others each time; `check_space` looks at 30
@given(index=st.integers(0, 2**40))
def test_of_its_genotypes(space, check, index):
    check(space, index)
