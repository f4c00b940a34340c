"""What an exception of a trial means. Imports without torch, so that a worker can ask whatever went wrong."""

from __future__ import annotations

import sys

from nao_ray.trial import FailureKind

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA and its allocator, also re-raised by other libraries
    "defaultcpuallocator",  # PyTorch on the CPU: "DefaultCPUAllocator: can't allocate memory: you tried ..."
    "can't allocate memory",
    "cannot allocate memory",  # errno 12
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
)


class PeerLostError(ConnectionError):
    """A worker that others train with is gone, or cannot be reached; none of their faults."""


def classify(error: BaseException) -> FailureKind:
    """The failure kind of an exception, or of the one that it was raised from.

    MemoryError and what torch raises when a device or the host has no memory left are `out_of_memory`,
    FloatingPointError is `nan`, TimeoutError is `timeout`, PeerLostError is `lost`, everything else is `error`.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        kind = _kind(cause)
        if kind is not FailureKind.ERROR:
            return kind
        cause = cause.__cause__
    return FailureKind.ERROR


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, PeerLostError):
        return FailureKind.LOST
    if isinstance(error, FloatingPointError):
        return FailureKind.NAN
    if isinstance(error, TimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.ERROR


def _is_torch_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # an error of torch's can only exist where torch was imported
    kind = getattr(torch, "OutOfMemoryError", None)
    return kind is not None and isinstance(error, kind)
