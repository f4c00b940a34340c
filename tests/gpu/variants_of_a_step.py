"""What each kernel of ours brings to a child's training step, and the kernels of that step by the time they take.

``python tests/gpu/variants_of_a_step.py [SECONDS]``: every variant in a graph, one after the other; after so many
seconds none is begun. Then the step once eagerly under torch's profiler, which sees into no graph.
"""

import json
import os
import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from nao_ray.bench._device_step import DeviceStep
from nao_ray.networks import fast, kernels, norm_kernels

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("cpu")
SIZE = (
    {"batch": 128, "cells_per_stage": 3, "channels": 32, "steps": 20}
    if CUDA
    else {"batch": 4, "cells_per_stage": 1, "channels": 4, "steps": 2}
)
ALL = frozenset(fast.KERNELS)
VARIANTS = [
    ("all", "graph bfloat16", ALL, {}),
    ("none", "graph bfloat16", frozenset(), {}),
    *((f"all but {name}", "graph bfloat16", ALL - {name}, {}) for name in sorted(ALL)),
    ("all, again", "graph bfloat16", ALL, {}),
    ("all, float32", "graph", ALL, {}),
    ("none, float32", "graph", frozenset(), {}),
    ("PER_PROGRAM 4096", "graph bfloat16", ALL, {"PER_PROGRAM": 4096}),
    ("PER_PROGRAM 16384", "graph bfloat16", ALL, {"PER_PROGRAM": 16384}),
    ("TILE 1024", "graph bfloat16", ALL, {"TILE": 1024}),
    ("TILE 4096", "graph bfloat16", ALL, {"TILE": 4096}),
]


def measured(variant, use, sizes):
    """Milliseconds of a step and of an evaluated image, and more."""
    modules = {name: [m for m in (kernels, norm_kernels) if hasattr(m, name)] for name in sizes}
    before = {name: getattr(found[0], name) for name, found in modules.items()}
    fast.KERNELS.clear()
    fast.KERNELS.update(use)
    try:
        for name, value in sizes.items():
            for module in modules[name]:
                setattr(module, name, value)
        step = DeviceStep(variant, DEVICE, SIZE)
        found = step.measure(3, SIZE["steps"])
        step.close()
    finally:
        fast.KERNELS.update(ALL)
        for name, value in before.items():
            for module in modules[name]:
                setattr(module, name, value)
    return found


def profiled(rows=40):
    with fast.in_graph():
        step = DeviceStep("eager bfloat16", DEVICE, SIZE)
    with profile(activities=[ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU]) as seen, fast.in_graph():
        step.step()
        step.wait()
    events = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    print(f"{len(events)} kernels, {sum(e.device_time for e in events) / 1e3:.2f} ms")
    for row in sorted(seen.key_averages(), key=lambda e: -e.device_time_total)[:rows]:
        print(f"{row.device_time_total / 1e3:7.2f} ms {row.count:5d}  {row.key[:130]}")


def main(seconds):
    began, results = time.monotonic(), {}
    columns = ["variant", "ms a step", "ms an image", "first s", "ready s", "loss", "MiB", "execution"]
    print("|", " | ".join(columns), "|\n|", " | ".join(["---"] * len(columns)), "|")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
        for name, variant, use, sizes in VARIANTS:
            if time.monotonic() - began > seconds:
                print(f"{name}: no time left")
                continue
            results[name] = found = measured(variant, use, sizes)
            cells = [
                f"{found['milliseconds']:.2f}",
                f"{found['evaluation_milliseconds']:.4f}",
                f"{found['first_seconds']:.1f}",
                f"{found['ready_seconds']:.1f}",
                f"{found['loss']:.3f}",
                f"{(found['peak_memory_bytes'] or 0) >> 20:,}",
                found["execution"],
            ]
            print("|", " | ".join([name, *cells]), "|", flush=True)
        profiled()
    with open(os.path.join(os.environ.get("OUT", "."), "variants.json"), "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
