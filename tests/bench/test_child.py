"""The measurement itself, on a tiny network: its table, its gradients, its processes."""

from types import SimpleNamespace

import pytest

from nao_ray.bench import child, gpu, supernet
from nao_ray.bench._process import Worker
from nao_ray.bench._result import BenchResult, machine
from nao_ray.errors import ConfigError
from nao_ray.training.capture import WARM_UP

SIZE = {"batch": 8, "cells_per_stage": 1, "channels": 4}
GRADIENTS = ("float64", "float32", "float32_smooth", "float32_moved")


@pytest.fixture(scope="module")
def gradients():
    return child.gradient_differences(**SIZE)


def test_table(no_processes, gradients, monkeypatch):
    no_processes(child)
    asked = []
    monkeypatch.setattr(child, "gradient_differences", lambda *size: asked.append(size) or gradients)
    result = child.run(repeats=2, threads=1, **SIZE)
    assert asked == [(*SIZE.values(), "cpu")]
    assert isinstance(result, BenchResult)
    assert [row[0] for row in result.rows] == list(child.VARIANTS)
    assert result.rows[0][3] == 1.0
    assert machine() in result.table
    assert result.table.count("\n| ") == 4
    assert all(len(times) == 2 and min(times) > 0 for times in result.data["seconds"].values())
    assert list(result.data["peak_memory_bytes"].values()) == [1.000e9, 1.001e9, 1.002e9]
    assert [row[6:] for row in result.rows] == [[1000, "eager"], [1001, "eager"], [1002, "eager"]]
    assert min(result.data["cpu_seconds"]["plain"]) > 0


@pytest.mark.usefixtures("forked")
def test_a_process_of_its_own_answers():
    worker = Worker(child.MODULE, "plain", 1, {**SIZE, "device": "cpu"})
    assert worker.ask("step")["wall"] > 0
    assert 100e6 < worker.ask("memory") < 100e9
    worker.close()


@pytest.mark.parametrize("bench", [child, supernet, gpu])
def test_a_device_that_is_not_there_is_refused(bench, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^bench \w+ device=cuda: expected cpu, or cuda where there is one"):
        bench.run(device="cuda")


def test_on_a_gpu_ours_is_launched_and_in_a_graph(monkeypatch):
    asked = []

    def worker(_module, variant, _threads, size):
        def ask(question):
            asked.append((variant, question))
            told = {"execution": "graph" if variant == child.GRAPH else "eager", "memory": 1e6, "augment": 1e-3}
            return told.get(question, {"wall": 2.0 if variant == "plain" else 1.0, "cpu": 1.0})

        assert size["device"] == "cuda"
        return SimpleNamespace(variant=variant, ask=ask, close=lambda: None)

    monkeypatch.setattr(child, "Worker", worker)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(child, "machine", lambda: "a machine")
    monkeypatch.setattr(child, "gradient_differences", lambda *size: dict.fromkeys(GRADIENTS, size[-1] == "cuda"))
    result = child.run(repeats=2, device="cuda")
    assert [(row[0], row[3], row[7]) for row in result.rows][-2:] == [
        ("nao_ray", 2.0, "eager"),
        ("nao_ray, graph", 2.0, "graph"),
    ]
    assert asked.count((child.GRAPH, "step")) > WARM_UP + 2  # a recording is not timed
    assert set(result.data["gradients"].values()) == {True}


def test_gradients(gradients):
    assert gradients["float64"] < 1e-12
    assert gradients["float32_smooth"] < 1e-4
    assert 0 < gradients["float32"] < 0.1
