"""`import nao_ray`: its names are there, and cost nothing before they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nao_ray


def test_every_name_is_there_and_listed():
    assert [name for name in nao_ray.__all__ if not hasattr(nao_ray, name)] == []
    assert set(nao_ray.__all__) <= set(dir(nao_ray))
    assert set(nao_ray._HOMES) <= set(nao_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Stdy'"):
        nao_ray.Stdy  # noqa: B018


def test_the_import_loads_nothing_heavy():
    program = "import sys, nao_ray; dir(nao_ray); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "ray", "pandas", "numpy", "pyarrow", "matplotlib", "pydantic"}


def test_type_checkers_see_the_names():
    """Each name that is loaded late stands under TYPE_CHECKING, from the same home."""
    tree = ast.parse(Path(nao_ray.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: declared.get(name) for name in nao_ray._HOMES} == nao_ray._HOMES
    assert (Path(nao_ray.__file__).parent / "py.typed").is_file()
