"""The kernels of a child's training step, by the time they take: ``python tests/gpu/kernels_of_a_step.py VARIANT``.

Run eagerly under torch's profiler, which sees into no graph; with the step's own time in a graph beside it, with the
Triton kernels and without.
"""

import sys

import torch
from torch.profiler import ProfilerActivity, profile

from nao_ray.bench._device_step import DeviceStep
from nao_ray.networks import fast

SIZE = {"batch": 128, "cells_per_stage": 3, "channels": 32, "steps": 20}


def main(variant, rows=45):
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
        kernels = fast._of_device(torch.device("cuda", 0))
        for use in (kernels, None):
            fast._of_device = lambda _, use=use: use
            step = DeviceStep(variant, torch.device("cuda", 0), SIZE)
            found = step.measure(3, 20)
            print(variant, "without" if use is None else "with", "kernels of ours:", found, flush=True)
            step.capture.close()
        fast._of_device = lambda _: kernels
        step = DeviceStep(variant.replace("graph", "eager"), torch.device("cuda", 0), SIZE)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            step.step()
            step.wait()
    events = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    print(f"{len(events)} kernels, {sum(e.device_time for e in events) / 1e3:.2f} ms")
    for row in sorted(seen.key_averages(), key=lambda e: -e.device_time_total)[:rows]:
        print(f"{row.device_time_total / 1e3:7.2f} ms {row.count:5d}  {row.key[:150]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "graph bfloat16")
