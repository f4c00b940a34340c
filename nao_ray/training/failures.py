"""What an exception of a trial means. Imports without torch, so that a worker can ask whatever went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nao_ray.errors import DataError, RunError
from nao_ray.limits import LimitError
from nao_ray.trial import FailureKind

_OUT_OF_MEMORY = (
    "out of memory",  # CUDA and its allocator, also re-raised by other libraries
    "defaultcpuallocator",  # PyTorch on the CPU: "DefaultCPUAllocator: can't allocate memory: you tried ..."
    "can't allocate memory",
    "cannot allocate memory",  # errno 12
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
)

_ENVIRONMENT = (
    DataError,
    OSError,  # files, disks, permissions, connections
    ImportError,
)


_DEVICE = (
    "cuda error",  # what a kernel or the driver said, also a failed assertion on the device
    "no cuda gpus are available",
    "no nvidia driver",
    "cuda driver",  # too old, or its initialisation failed
    "cuda unknown error",
    "cuda initialization",
    "cuda-capable device",  # busy, or unavailable
    "device-side assert",
    "invalid device ordinal",
    "ecc error",
    "cublas_status_not_initialized",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
    "cublas_status_mapping_error",
    "cudnn_status_not_initialized",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cudnn_status_mapping_error",
    "cudnn initialization",
    "nccl error",
    "nccl communicator was aborted",
    "hip error",
    "no hip gpus are available",
    "miopenstatusinternalerror",
    "mps backend",
    "metal command buffer",
)
_NOT_THE_DEVICE = (  # what a kernel was asked to do, which no other device would do either
    "invalid configuration argument",
    "invalid argument",
    "too many resources requested for launch",
)


class PeerLostError(ConnectionError):
    """A worker that others train with is gone, or cannot be reached; none of their faults."""


class PreparationError(RunError):
    """What every trial needs before its first step, data on a device, could not be had."""


@contextmanager
def preparing() -> Iterator[None]:
    """A block that makes ready what every trial needs: what goes wrong in it is no architecture's fault.

    Raises:
        PreparationError: instead of what would count as an architecture's error.
    """
    try:
        yield
    except Exception as error:
        if classify(error) is not FailureKind.ERROR:
            raise
        raise PreparationError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def classify(error: BaseException) -> FailureKind:
    """The failure kind of an exception, or of the one that it was raised from.

    MemoryError and what torch raises when a device or the host has no memory left are `out_of_memory`,
    FloatingPointError is `nan`, TimeoutError is `timeout`, PeerLostError and errors of a device are `lost`; what no
    architecture can be blamed for (data, files, disks, permissions, connections, imports, and all that goes wrong
    before the first step) is `environment`; everything else is `error`.
    """
    kinds = map(_kind, _causes(error))
    return next((kind for kind in kinds if kind is not FailureKind.ERROR), FailureKind.ERROR)


def is_of_device(error: BaseException) -> bool:
    """Whether an accelerator, its driver or its libraries failed (CUDA, HIP, MPS): another device may do.

    Not when it has no memory left. It may still be the architecture's fault, which shows on other devices. The process
    cannot go on with the device.
    """
    known = ((cause, _kind(cause)) for cause in _causes(error))
    first, kind = next(((cause, kind) for cause, kind in known if kind is not FailureKind.ERROR), (error, None))
    return kind is FailureKind.LOST and _is_device(first)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and what it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _is_device(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError | AssertionError):  # torch's are RuntimeErrors, of several kinds
        return False
    text = str(error).lower()
    return any(sign in text for sign in _DEVICE) and not any(sign in text for sign in _NOT_THE_DEVICE)


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, LimitError):
        return FailureKind.LIMIT
    if isinstance(error, PeerLostError):
        return FailureKind.LOST
    if isinstance(error, FloatingPointError):
        return FailureKind.NAN
    if isinstance(error, TimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        return FailureKind.OUT_OF_MEMORY
    if _is_device(error):
        return FailureKind.LOST
    if isinstance(error, (*_ENVIRONMENT, PreparationError)):
        return FailureKind.ENVIRONMENT
    return FailureKind.ERROR


def _is_torch_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # an error of torch's can only exist where torch was imported
    kind = getattr(torch, "OutOfMemoryError", None)
    return kind is not None and isinstance(error, kind)
