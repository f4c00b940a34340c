"""The measurement of recurrent cells itself, on tiny ones: its table, and what it refuses."""

import re

import pytest

from nao_ray.bench import rnn
from nao_ray.errors import ConfigError

TINY = {"units": 3, "batch": 2, "steps": 4}


@pytest.fixture(autouse=True)
def _no_processes(no_processes):
    no_processes(rnn)


def test_table():
    result = rnn.run(["NAO-RNN", "ENAS-RNN"], rounds=2, threads=1, lengths=[3, 2], genotypes=1, **TINY)
    assert [row[0] for row in result.rows] == ["NAO-RNN", "ENAS-RNN"]
    assert result.columns[1:4] == ["plain, tokens/s", "nao_ray, tokens/s", "products, tokens/s"]
    assert all(len(row) == len(result.columns) for row in result.rows)
    assert {len(steps) for cell in result.data["seconds"].values() for steps in cell.values()} == {2}
    assert "2 steps" in result.notes[1]
    assert re.fullmatch(
        r"The first step of 1 new genotypes: at most \d+\.\d\d s, \d+\.\d\d CPU seconds\.", result.notes[2]
    )
    assert not result.wrong


def test_gradients_that_differ_are_wrong(monkeypatch):
    monkeypatch.setattr(rnn, "difference", lambda *_, **__: float("nan"))
    result = rnn.run(["DARTS-RNN"], rounds=1, threads=1, lengths=[], genotypes=0, **TINY)
    assert len(result.wrong) == 1
    assert result.wrong[0].startswith("DARTS-RNN: gradients in float64")


@pytest.mark.parametrize("setting", [{"cells": ["LSTM"]}, {"dtype": "bfloat16"}, {"device": "tpu"}])
def test_what_is_not_there_is_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        rnn.run(**setting)
