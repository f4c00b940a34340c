"""The measurement itself, on a tiny network: its table, its gradients, its processes."""

import pytest

from nao_ray.bench import child
from nao_ray.bench._process import Worker
from nao_ray.bench._result import BenchResult, machine

SIZE = {"batch": 8, "cells_per_stage": 1, "channels": 4}


@pytest.fixture(scope="module")
def gradients():
    return child.gradient_differences(**SIZE)


def test_table(no_processes, gradients, monkeypatch):
    no_processes(child)
    asked = []
    monkeypatch.setattr(child, "gradient_differences", lambda **size: asked.append(size) or gradients)
    result = child.run(repeats=2, threads=1, **SIZE)
    assert asked == [SIZE]
    assert isinstance(result, BenchResult)
    assert [row[0] for row in result.rows] == list(child.VARIANTS)
    assert result.rows[0][3] == 1.0
    assert machine() in result.table
    assert result.table.count("\n| ") == 4
    assert all(len(times) == 2 and min(times) > 0 for times in result.data["seconds"].values())
    assert list(result.data["peak_memory_bytes"].values()) == [1.000e9, 1.001e9, 1.002e9]
    assert [row[4] for row in result.rows] == [1000, 1001, 1002]


@pytest.mark.usefixtures("forked")
def test_a_process_of_its_own_answers():
    worker = Worker(child.MODULE, "plain", 1, SIZE)
    assert worker.ask("step") > 0
    assert 100e6 < worker.ask("memory") < 100e9
    worker.close()


def test_gradients(gradients):
    assert gradients["float64"] < 1e-12
    assert gradients["float32_smooth"] < 1e-4
    assert 0 < gradients["float32"] < 0.1
