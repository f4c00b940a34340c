"""What a CUDA graph does on a device: ``pytest -m gpu tests/gpu``. Needs torch and triton alone."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nao_ray import registry, rng
from nao_ray.training.capture import Capture

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _exact():
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


class Small(nn.Module):
    """Everything that a graph could freeze: drop path by a tensor, dropout, batch norm, a separable convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 5, padding=2, groups=32, bias=False)
        self.pointwise = nn.Conv2d(32, 32, 1, bias=False)
        self.head = nn.Linear(32, 10)
        self.register_buffer("progress", torch.zeros(()), persistent=False)

    def forward(self, x):
        from nao_ray.networks.fast import average_pool
        from nao_ray.networks.fast_depthwise import depthwise

        x = F.relu(self.norm(self.stem(x)))
        branch = average_pool(self.pointwise(depthwise(self.depthwise, x)), 3, count_padding=False)
        keep = 1 - 0.5 * self.progress
        x = x + branch * (torch.rand(len(x), 1, 1, 1, device=x.device) < keep) / keep
        return self.head(F.dropout(x.mean((2, 3)), 0.2, self.training))


class Training:
    def __init__(self, execution, batch=32):
        with rng.torch_seeded(0, "weights"):
            self.network = Small().to(CUDA, memory_format=torch.channels_last)
        self.generator = rng.torch_generator(0, "augmentation", device="cuda")
        self.rate = torch.zeros((), device=CUDA)
        self.optimiser = torch.optim.SGD(self.network.parameters(), self.rate, 0.9, weight_decay=1e-3, fused=True)
        self.capture = Capture(CUDA, [self.generator], execution=execution)
        self.run, self.batch = self.capture.of(self._step), batch

    def _step(self, images, labels):
        images = images + 0.1 * torch.rand(images.shape, generator=self.generator, device=CUDA)
        self.optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.network(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        return loss.detach()

    def step(self, step, total):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(self.batch, 3, 16, 16, generator=generator).to(CUDA)
        labels = torch.randint(10, (self.batch,), generator=generator).to(CUDA)
        self.rate.fill_(0.1 * (1 - step / total))
        self.network.progress.fill_((step + 1) / total)
        return self.run(images, labels)

    def tensors(self):
        moments = [state["momentum_buffer"] for state in self.optimiser.state.values()]
        return [*self.network.state_dict().values(), *moments]


def test_replay_equals_eager_step_by_step_through_schedules_drop_path_and_random_numbers():
    graph, eager, steps = Training("graph"), Training("eager"), 200
    furthest = 0.0
    for step in range(steps):
        drawn = torch.cuda.get_rng_state()
        loss = graph.step(step, steps).item()
        torch.cuda.set_rng_state(drawn)
        expected = eager.step(step, steps).item()
        assert loss == pytest.approx(expected, rel=1e-5)
        for mine, theirs in zip(graph.tensors(), eager.tensors(), strict=True):
            difference = (mine.double() - theirs.double()).norm() / theirs.double().norm().clamp_min(1e-3)
            furthest = max(furthest, difference.item())
            theirs.copy_(mine)
    assert torch.equal(graph.generator.get_state(), eager.generator.get_state())
    assert graph.network.norm.num_batches_tracked.item() == steps
    assert graph.capture.execution == "graph"
    print(f"furthest: {furthest:.1e}")
    assert furthest < 1e-5
    graph.capture.close()


def test_a_graph_goes_on_where_another_one_ends():
    """pytorch#193402: the second took the first one's cuBLAS workspace with it."""

    def products(weight):
        return lambda x: (x @ weight).relu() @ weight.T

    x = torch.randn(4096, 640, device=CUDA, dtype=torch.bfloat16)
    first, second = (torch.randn(640, 640, device=CUDA, dtype=torch.bfloat16) / 25 for _ in range(2))
    lasting = Capture(CUDA, execution="graph")
    run = lasting.of(products(first))
    for _ in range(5):
        out = run(x)
    for _ in range(3):
        with Capture(CUDA, execution="graph") as other:
            others, again = other.of(products(second)), other.of(lambda t: t @ t.T)
            for _ in range(5):
                others(x)
                again(x)
        torch.cuda.empty_cache()
        filled = [torch.full((2**26,), float("nan"), device=CUDA) for _ in range(4)]
        assert torch.equal(run(x), out)
        del filled
    torch.cuda.synchronize()
    assert torch.isfinite(out).all()
    lasting.close()


FAILS = """
import json, torch
from nao_ray.training import capture
from nao_ray.training.capture import Capture
cuda = torch.device("cuda", 0)

def run(execution):
    torch.manual_seed(0)
    generator = torch.Generator("cuda").manual_seed(1)
    def step(x):
        noise = torch.rand(x.shape, device="cuda") + torch.rand(x.shape, device="cuda", generator=generator)
        total = (x @ x.T).sum() + noise.sum()
        return total + (1.0 if total.item() > 0 else 0.0)
    with Capture(cuda, [generator], execution=execution) as session:
        f = session.of(step)
        outs = [f(torch.full((64, 64), float(i), device="cuda")).item() for i in range(8)]
        return outs, session.execution

outs, how = run("auto")
expected, _ = run("eager")
after, later = run("auto")
torch.cuda.empty_cache()
print(json.dumps([outs == expected, how, after == expected, later, capture.is_spoilt()]))
"""


def test_a_recording_that_fails_leaves_an_eager_training_and_says_so():
    """pytorch#190348; and the generators go on where they were."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", FAILS],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    same, how, same_after, later, spoilt = json.loads(ran.stdout.splitlines()[-1])
    assert same
    assert how.startswith("eager: ")
    assert "captur" in how
    assert same_after
    assert later == "eager: an earlier recording failed in this process"
    assert spoilt


def test_the_autotuner_chooses_before_the_recording():
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        training = Training("graph", batch=48)
        losses = [training.step(step, 20).item() for step in range(20)]
        training.capture.close()
    assert all(torch.isfinite(torch.tensor(losses)))
    assert training.capture.execution == "graph"


def child(index, capture):
    """A random child, its step captured; its last loss."""
    from tests.networks.building import build

    space = registry.load("space", "nao_cnn_small")()
    graph = space.lower(space.sample(rng.child(0, "gpu child", index)))
    network = build(graph, cells_per_stage=1, channels=8, auxiliary=True).to(CUDA, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), 0.01, 0.9, fused=True)

    def step(images, labels):
        optimiser.zero_grad(set_to_none=True)
        logits, auxiliary = network(images)
        loss = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(auxiliary, labels)
        loss.backward()
        optimiser.step()
        return loss.detach()

    run = capture.of(step)
    images, labels = torch.randn(64, 3, 32, 32, device=CUDA), torch.arange(64, device=CUDA) % 10
    for _ in range(6):
        loss = run(images, labels)
    return loss.item()


def test_many_different_children_in_one_process_need_no_more_memory():
    count = int(os.environ.get("NAO_RAY_GPU_CHILDREN", "120"))
    used = []
    for index in range(count):
        with Capture(CUDA, execution="graph") as capture:
            assert torch.isfinite(torch.tensor(child(index, capture)))
        gc.collect()
        free, total = torch.cuda.mem_get_info()
        used.append(total - free)
    third = used[: count // 3]
    print(f"{count} children: at most {max(third) / 2**20:.0f} MiB in the first third, {max(used) / 2**20:.0f} in all")
    assert max(used) <= 1.02 * max(third)
