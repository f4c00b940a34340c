"""A child's training step on a device, in every way that it can be run; a process of its own for each child.

NAONet-B or a random network of nao_cnn, as in `bench child`. `plain`: eager PyTorch, contiguous, float32; `eager`:
ours; `graph`: ours, the step in one CUDA graph with the augmentation in it; `bfloat16`: under autocast. On other
devices than CUDA everything is eager.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nao_ray import rng
from nao_ray.bench import child
from nao_ray.bench._process import answer
from nao_ray.tasks.images.base import Images
from nao_ray.training.augment import augment
from nao_ray.training.images import ImageObjective
from nao_ray.training.recipe import ImageRecipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

VARIANTS = ("plain", "plain channels-last", "eager", "eager bfloat16", "graph", "graph bfloat16")
CHILD_IMAGES, CHILD_EPOCHS, VALIDATION_IMAGES = 45_000, 25, 5_000
"""Of the published search (arXiv 1808.07233)."""
MODULE = "nao_ray.bench._device_step"
_STEPS = 16  # of an epoch: its order is drawn as seldom as makes no difference
_EVALUATED = 512  # images


class DeviceStep:
    """A child, built and ready to train; `first_seconds` to the end of its first step, `ready_seconds` to a replay.

    Ours is what a search trains, a `Trainer`; the plain network is trained by hand.
    """

    def __init__(self, variant: str, device: torch.device, size: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        self.device, self.batch = device, int(size["batch"])
        words = variant.split()
        precision = "bfloat16" if "bfloat16" in words else "float32"
        recipe = ImageRecipe.model_validate({"batch": self.batch, "drop_path_keep": 1.0, "precision": precision})
        self.objective = _objective(self.batch, device, recipe)
        numbers = (self.batch, size["cells_per_stage"], size["channels"])
        ours, plain, _, _ = child.networks(*numbers, size.get("cell", "NAONet-B"))
        self.trainer: Trainer | None = None
        self.step: Callable[[], Tensor]
        if "plain" in words:
            layout = torch.channels_last if "channels-last" in words else torch.contiguous_format
            self.network: torch.nn.Module = plain.to(device).to(memory_format=layout)
            generator = rng.torch_generator(0, "bench augmentation", device=device.type)
            ((images, labels),) = self.objective.train.batches([torch.arange(self.batch, device=device)])

            def drawn() -> tuple[Tensor, Tensor]:
                inputs = augment(images, generator, self.objective.normaliser, recipe)
                return inputs.contiguous(memory_format=layout), labels

            self.step = child.stepper(self.network, drawn)
        else:
            self.trainer = Trainer(
                ours,
                self.objective,
                epochs=10**6,  # it never ends
                streams=Continuing(0, device),
                execution="auto" if "graph" in words else "eager",
            )
            self.network, self.step = self.trainer.network, self.trainer.step
        self.step()
        self.wait()
        self.first_seconds = time.perf_counter() - began
        for _ in range(4):
            self.step()
        self.wait()
        self.ready_seconds = time.perf_counter() - began

    def wait(self) -> None:
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _evaluate(self) -> None:
        if self.trainer is None:
            self.objective.evaluate(self.network)
        else:
            self.trainer.evaluate()

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
        for _ in range(5):
            self._evaluate()
        evaluation = self._timed(self._evaluate, 1, max(2, steps // 4)) / self.objective.num_valid
        self.network.train()
        return {
            "milliseconds": milliseconds,
            "evaluation_milliseconds": evaluation,
            "first_seconds": self.first_seconds,
            "ready_seconds": self.ready_seconds,
            "peak_memory_bytes": peak,
            "execution": "eager" if self.trainer is None else self.trainer.execution,
            "loss": float(self.step()),
        }

    def close(self) -> None:
        """Give the memory back."""
        if self.trainer is not None:
            self.trainer.close()
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


def _objective(batch: int, device: torch.device, recipe: ImageRecipe) -> ImageObjective:
    """Noise in ten classes."""
    draw = rng.child(0, "bench images")

    def noise(count: int) -> Images:
        return Images(draw.integers(256, size=(count, 3, 32, 32), dtype=np.uint8), np.arange(count) % 10)

    return ImageObjective.of(noise(_STEPS * batch), noise(min(_EVALUATED, 4 * batch)), device, recipe)


def seconds_of_child(measured: dict[str, Any], batch: int) -> float:
    """What a child of the published search takes, from what was measured of its parts."""
    step, image = measured["milliseconds"] / 1e3, measured["evaluation_milliseconds"] / 1e3
    epoch = CHILD_IMAGES / batch * step + VALIDATION_IMAGES * image
    return float(measured["ready_seconds"] + CHILD_EPOCHS * epoch)


def _serve(variant: str, threads: int, size: Mapping[str, Any]) -> None:
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
