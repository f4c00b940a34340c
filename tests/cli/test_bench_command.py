"""What ``nao-ray bench`` says of itself."""

import inspect

import pytest

from nao_ray.cli import bench
from nao_ray.cli.app import main


def _said(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["bench", *words])
    told = capsys.readouterr()
    return left.value.code, told.out + told.err


@pytest.mark.parametrize("name", bench.names())
def test_every_measurement_tells_its_settings(name, capsys):
    code, told = _said(capsys, name, "--help")
    assert code == 0
    lines = [line for line in told.partition("Settings:\n")[2].splitlines() if not line.startswith("    ")]
    for parameter in inspect.signature(bench._load(name)).parameters.values():
        word = "SECTION.KEY" if parameter.kind is inspect.Parameter.VAR_KEYWORD else parameter.name
        (line,) = [line for line in lines if line.split()[0] == word]
        assert len(line.split()) > 2, f"{line}: says nothing"


def test_without_a_name_the_measurements_are_listed(capsys):
    for words, expected in (((), 2), (("--help",), 0)):
        code, told = _said(capsys, *words)
        assert code == expected
        assert ", ".join(bench.names()) in told
    assert "did you mean tabular?" in _said(capsys, "tabula", "--help")[1]
