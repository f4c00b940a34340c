"""What is installed with nao_ray: ranges for those who have other packages, pins within them for everyone else."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def _ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {item.name.lower(): item for item in map(Requirement, project["dependencies"])}


def _pins():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    given = [line.partition("#")[0].strip() for line in lines]
    return {item.name.lower(): item for item in map(Requirement, filter(None, given))}


def test_what_is_pinned_has_a_range_and_what_has_a_range_is_pinned():
    assert _ranges().keys() == _pins().keys()


@pytest.mark.parametrize("name", sorted(_pins()))
def test_a_pin_lies_within_its_range_which_has_both_ends(name):
    wanted, (pin,) = _ranges()[name], _pins()[name].specifier
    assert pin.operator == "=="
    assert wanted.specifier.contains(pin.version)
    assert {end.operator for end in wanted.specifier} == {">=", "<"}
    assert wanted.extras == _pins()[name].extras
