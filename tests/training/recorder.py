"""A recorder for machines without CUDA: it does again, operation by operation, what was done, on the same memory.

So a number that was Python's is frozen, inputs and outputs stay where they are, and random numbers go on, as in a
CUDA graph. Unlike there, what is recorded is also done; the first replay is therefore left out.
"""

import itertools

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Log(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class ReplayRecorder:
    """Records on the CPU."""

    def __init__(self):
        self.warmed = self.recorded = self.closed = self.forgotten = 0
        self.replays = 0  # of what was recorded last

    def warm(self, run):
        self.warmed += 1
        return run()

    def record(self, run):
        with _Log() as log:
            out = run()
        self.recorded += 1
        self.replays, mine = 0, itertools.count()

        def replay():
            self.replays += 1
            if next(mine):
                with torch.no_grad():
                    for call in log.calls:
                        _again(*call)

        return replay, out

    def forget(self):
        self.forgotten += 1

    def close(self):
        self.closed += 1


def _again(func, args, kwargs, out):
    new = func(*args, **kwargs)
    for kept, made in zip(tree_leaves(out), tree_leaves(new), strict=True):
        if isinstance(kept, torch.Tensor) and made.data_ptr() != kept.data_ptr():
            kept.copy_(made)
