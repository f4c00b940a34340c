"""The step that `bench gpu` measures, on a CPU: ours is a Trainer's, the plain network's is made by hand."""

import math

import pytest
import torch

from nao_ray.bench._device_step import DeviceStep, seconds_of_child


@pytest.mark.parametrize("variant", ["plain", "eager"])
def test_a_variant_is_trained_and_evaluated(variant):
    step = DeviceStep(variant, torch.device("cpu"), {"batch": 4, "cells_per_stage": 1, "channels": 2, "steps": 1})
    before = next(step.network.parameters()).clone()
    measured = step.measure(1, 1)
    step.close()
    assert (step.trainer is None) == (variant == "plain")
    assert not torch.equal(before, next(step.network.parameters()))
    assert math.isfinite(measured["loss"])
    assert measured["execution"].startswith("eager")
    assert seconds_of_child(measured, 4) > measured["ready_seconds"] >= measured["first_seconds"] > 0
