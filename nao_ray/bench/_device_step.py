"""A child's training step on a device, in every way that it can be run; a process of its own for each child.

NAONet-B as in `bench child`. `plain`: eager PyTorch, contiguous, float32; `eager`: ours; `graph`: ours, the step in one
CUDA graph with the augmentation in it; `bfloat16`: under autocast. On other devices than CUDA everything is eager.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nao_ray import rng
from nao_ray.bench import child
from nao_ray.bench._process import answer
from nao_ray.training.augment import Normaliser, augment
from nao_ray.training.capture import Capture
from nao_ray.training.recipe import Recipe

VARIANTS = ("plain", "plain channels-last", "eager", "eager bfloat16", "graph", "graph bfloat16")
CHILD_IMAGES, CHILD_EPOCHS, VALIDATION_IMAGES = 45_000, 25, 5_000
"""Of the published search (arXiv 1808.07233)."""
EVALUATION_BATCH = 500
MODULE = "nao_ray.bench._device_step"


class DeviceStep:
    """A child, built and ready to train; `first_seconds` to the end of its first step, `ready_seconds` to a replay."""

    def __init__(self, variant: str, device: torch.device, size: dict[str, int]) -> None:
        began = time.perf_counter()
        self.device, self.variant, self.batch = device, variant, size["batch"]
        words = variant.split()
        ours, plain, _, _ = child.networks(self.batch, size["cells_per_stage"], size["channels"])
        self.network: nn.Module = plain.to(device) if "plain" in words else ours.to(device)
        if words != ["plain"]:
            self.network.to(memory_format=torch.channels_last)
        self.generator = rng.torch_generator(0, "bench augmentation", device=device.type)
        images = torch.randint(256, (2 * self.batch, 3, 32, 32), generator=self.generator, device=device)
        self.images, self.labels = images.to(torch.uint8), torch.arange(2 * self.batch, device=device) % 10
        self.normaliser = Normaliser.of(self.images)
        self.capture = Capture(device, [self.generator], execution="auto" if "graph" in words else "eager")
        is_plain = "plain" in words
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=child.LEARNING_RATE if is_plain else torch.tensor(child.LEARNING_RATE, device=device),
            momentum=child.MOMENTUM,
            weight_decay=child.WEIGHT_DECAY,
            fused=None if is_plain else True,
        )
        self._step = self.capture.of(self._train)
        self._classify = self.capture.of(self._logits)
        self.step()
        self.wait()
        self.first_seconds = time.perf_counter() - began
        for _ in range(4):
            self.step()
        self.wait()
        self.ready_seconds = time.perf_counter() - began

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16, or nothing."""
        if "bfloat16" not in self.variant:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _train(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        inputs = augment(images, self.generator, self.normaliser, Recipe())
        if self.variant == "plain":
            inputs = inputs.contiguous()
        with self.autocast():
            loss = child.loss_of(self.network, inputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(
            self.network.parameters(), child.CLIP, foreach=None if "plain" in self.variant else True
        )
        self.optimiser.step()
        return loss.detach()

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad(), self.autocast():
            logits: Tensor = self.network(self.normaliser(images))
        return logits

    def step(self) -> Tensor:
        """Train on a batch."""
        return self._step(self.images[: self.batch], self.labels[: self.batch])

    def wait(self) -> None:
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _timed(self, run: Callable[[], object], blocks: int, steps: int) -> float:
        """Milliseconds, the median of the blocks."""
        found = []
        for _ in range(blocks):
            self.wait()
            began = time.perf_counter()
            for _ in range(steps):
                run()
            self.wait()
            found.append((time.perf_counter() - began) / steps * 1e3)
        return statistics.median(found)

    def measure(self, blocks: int, steps: int) -> dict[str, Any]:
        """Milliseconds of a step and of an evaluated image, seconds at the start, memory, and how it was run."""
        milliseconds = self._timed(self.step, blocks, steps)
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        self.network.eval()
        batch = torch.zeros(EVALUATION_BATCH, 3, 32, 32, dtype=torch.uint8, device=self.device)
        for _ in range(5):
            self._classify(batch)
        evaluation = self._timed(lambda: self._classify(batch), 1, max(2, steps // 4)) / EVALUATION_BATCH
        self.network.train()
        return {
            "milliseconds": milliseconds,
            "evaluation_milliseconds": evaluation,
            "first_seconds": self.first_seconds,
            "ready_seconds": self.ready_seconds,
            "peak_memory_bytes": peak,
            "execution": self.capture.execution,
            "loss": float(self.step()),
        }

    def close(self) -> None:
        """Give the memory back."""
        self.capture.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def throughput(self, seconds: float) -> float:
        """Images a second, for so long."""
        began, steps = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not steps:
            for _ in range(5):
                self.step()
            self.wait()
            steps += 5
            took = time.perf_counter() - began
        return steps * self.batch / took


def seconds_of_child(measured: dict[str, Any], batch: int) -> float:
    """What a child of the published search takes, from what was measured of its parts."""
    step, image = measured["milliseconds"] / 1e3, measured["evaluation_milliseconds"] / 1e3
    epoch = CHILD_IMAGES / batch * step + VALIDATION_IMAGES * image
    return float(measured["ready_seconds"] + CHILD_EPOCHS * epoch)


def _serve(variant: str, threads: int, size: dict[str, int]) -> None:
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not size.get("cpu") else "cpu")
    current: list[DeviceStep] = []

    def reply(question: str) -> Any:  # noqa: ANN401
        match question.split(maxsplit=2):
            case ["measure", blocks, name]:
                while current:
                    current.pop().close()
                current[:] = [DeviceStep(name, device, size)]
                return current[0].measure(int(blocks), size["steps"])
            case ["ready"]:
                current[:] = [DeviceStep(variant, device, size)]
                return current[0].ready_seconds
            case ["run", seconds]:
                return current[0].throughput(float(seconds))
        raise AssertionError(question)

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
        answer(reply)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
