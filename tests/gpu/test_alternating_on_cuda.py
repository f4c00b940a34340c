"""A step of alphas and weights on a device, in one graph: ``pytest -m gpu tests/gpu``."""

import pytest
import torch

from nao_ray.bench import darts
from nao_ray.training import capture

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SIZE = {"batch": 16, "layers": 3, "channels": 8}
STEPS = 50


def trained(order):
    """Losses, the state at the end, the most that was allocated; eleven steps an epoch, the last of another shape."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with (
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        darts.our_training(order, **SIZE, device="cuda", per_class=41) as training,
    ):
        losses = [training.step().item() for _ in range(STEPS)]
        state = {name: tensor.clone() for name, tensor in training.state().items()}
        return losses, state, torch.cuda.max_memory_allocated(), training.execution


@pytest.mark.parametrize("order", ["first", "second", "exact"])
def test_replayed_steps_are_those_that_are_launched(order, monkeypatch):
    losses, state, memory, execution = trained(order)
    assert execution == "graph"
    monkeypatch.setattr(capture, "WARM_UP", 10**9)
    expected, launched, eager, _ = trained(order)
    furthest = max(
        (
            (state[name].double() - launched[name].double()).norm() / launched[name].double().norm().clamp_min(1e-3)
        ).item()
        for name in state
    )
    print(f"{order}: furthest {furthest:.1e}, memory {memory / 2**20:.0f} MiB in a graph, {eager / 2**20:.0f} launched")
    assert losses == pytest.approx(expected, rel=1e-3)
    assert furthest < 1e-2
    assert memory < 1.5 * eager
