"""The step that `bench gpu` measures, on a CPU: ours is a Trainer's, the plain network's is made by hand."""

import math

import pytest
import torch

from nao_ray.bench import child, gpu
from nao_ray.bench._device_step import DeviceStep, seconds_of_child
from nao_ray.errors import ConfigError


@pytest.mark.parametrize(("variant", "cell"), [("plain", "random"), ("eager", "random"), ("eager", "NAONet-B")])
def test_a_variant_is_trained_and_evaluated(variant, cell):
    size = {"batch": 4, "cells_per_stage": 1, "channels": 2, "steps": 1, "cell": cell}
    step = DeviceStep(variant, torch.device("cpu"), size)
    before = next(step.network.parameters()).clone()
    measured = step.measure(1, 1)
    step.close()
    assert (step.trainer is None) == (variant == "plain")
    assert not torch.equal(before, next(step.network.parameters()))
    assert math.isfinite(measured["loss"])
    assert measured["execution"].startswith("eager")
    assert seconds_of_child(measured, 4) > measured["ready_seconds"] >= measured["first_seconds"] > 0


class Stand:
    """In the place of a process: steps of a random network take twice as long, in a graph a third."""

    def __init__(self, _module, _variant, _threads, size, _environ=None):
        self.random, self.batch = size["cell"] == "random", size["batch"]

    def ask(self, question, _seconds):
        took = (20.0 if self.random else 10.0) / (3 if "graph" in question else 1)
        how = "graph" if "graph" in question and not self.random else "eager"
        return {"milliseconds": took, "evaluation_milliseconds": 0.01, "ready_seconds": 1.0, "execution": how}

    def send(self, question):
        self.question = question

    def receive(self, _seconds):
        assert not self.random, "beside each other the first network alone"
        return self.batch / 0.01

    def close(self):
        pass


def test_children_per_hour_of_both_networks(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "Worker", Stand)
    variants = ["plain", "graph bfloat16"]
    result = gpu.run(batches=[8], variants=variants, processes=[2], mps=False, device="cpu")
    assert [row[:4] for row in result.rows] == [
        ["NAONet-B", 8, "plain", 1],
        ["NAONet-B", 8, "graph bfloat16", 1],
        ["random", 8, "plain", 1],
        ["random", 8, "graph bfloat16 (eager)", 1],
        ["NAONet-B", 8, "graph bfloat16, in turns", 2],
    ]
    assert [row[6] for row in result.rows] == [1, pytest.approx(3), 1, pytest.approx(3), None]
    assert set(result.data["measured"]) > {"NAONet-B 8 plain", "random 8 plain"}
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("| network | batch | step | processes | ms a step |")
    assert len(shown) == 2 + len(result.rows)
    with pytest.raises(ConfigError, match=r"^bench gpu networks=\['NAONet-A'\]: expected some of NAONet-B, random"):
        gpu.run(["NAONet-A"], device="cpu")


def test_the_random_network_is_the_same_each_time_and_not_the_published_one():
    assert child.graph_of("random") == child.graph_of("random") != child.graph_of("NAONet-B")
