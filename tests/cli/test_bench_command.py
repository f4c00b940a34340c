"""What ``nao-ray bench`` says of itself."""

import inspect
from collections.abc import Sequence

import pytest

from nao_ray.bench._result import BenchResult
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


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("names=NAO-RNN,DARTS-RNN", ["NAO-RNN", "DARTS-RNN"]),
        ("names=NAO-RNN", ["NAO-RNN"]),
        ("names=[NAO-RNN, DARTS-RNN]", ["NAO-RNN", "DARTS-RNN"]),
        ("names=9, 18", [9, 18]),
        ("names=9", [9]),
        ("names=[]", []),
    ],
)
def test_a_list_is_what_stands_between_commas(given, means, monkeypatch, capsys):
    said = []

    def run(names: "Sequence[str]" = ("A", "B"), text: "str" = "") -> BenchResult:
        """Measure.

        Args:
            names: of cells.
            text: of no list.
        """
        said.append((names, text))
        return BenchResult(name="rnn", columns=[], rows=[])

    monkeypatch.setattr(bench, "_load", lambda _: run)
    assert _said(capsys, "rnn", given, "text=a,b")[0] == 0
    assert said == [(means, "a,b")]
    assert "names              of cells. [default: A,B]" in _said(capsys, "rnn", "--help")[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("rounds=abc", "bench rnn rounds: expected a whole number, got 'abc'"),
        ("rounds=1.5", "bench rnn rounds: expected a whole number, got 1.5"),
        ("rounds=true", "bench rnn rounds: expected a whole number, got True"),
        ("rounds=null", "bench rnn rounds: expected a whole number, got None"),
        ("seconds=long", "bench rnn seconds: expected a number, got 'long'"),
        ("lengths=9,x", "bench rnn lengths: expected a whole number, got 'x'"),
    ],
)
def test_what_is_no_number_is_refused_before_anything_is_measured(given, message, monkeypatch, capsys):
    def run(rounds: "int" = 7, seconds: "float | None" = None, lengths: "Sequence[int]" = (9,)) -> BenchResult:
        """Measure."""
        return BenchResult(name="rnn", columns=[], rows=[])

    monkeypatch.setattr(bench, "_load", lambda _: run)
    assert _said(capsys, "rnn", given) == (2, f"nao-ray: {message}\n")
    assert _said(capsys, "rnn", "rounds=3", "seconds=null", "lengths=9,18")[0] == 0
    assert _said(capsys, "rnn", "seconds=2")[0] == 0


def test_every_measurement_that_takes_a_list_says_so():
    """Lists are known by their annotation."""
    for name in bench.names():
        for parameter in inspect.signature(bench._load(name)).parameters.values():
            assert bench._is_list(parameter) == isinstance(parameter.default, tuple | list), (name, parameter)
