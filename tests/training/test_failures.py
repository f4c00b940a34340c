import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from nao_ray.errors import DataError, GenotypeError
from nao_ray.search.executor import attempt
from nao_ray.training.failures import PeerLostError, classify, is_of_device, preparing
from nao_ray.trial import FailureKind


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("did not raise")


def wrapped():
    try:
        raise MemoryError
    except MemoryError as error:
        raise RuntimeError("evaluation failed") from error


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda: torch.empty(2**60), FailureKind.OUT_OF_MEMORY),  # what PyTorch itself raises on a CPU
        (lambda: np.empty(2**58, dtype=np.uint8), FailureKind.OUT_OF_MEMORY),
        (wrapped, FailureKind.OUT_OF_MEMORY),
        (lambda: torch.ones(2) @ torch.ones(3), FailureKind.ERROR),
        (lambda: [][0], FailureKind.ERROR),
    ],
)
def test_what_is_really_raised(function, kind):
    assert classify(raised(function)) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), FailureKind.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), FailureKind.OUT_OF_MEMORY),
        (FloatingPointError("overflow"), FailureKind.NAN),
        (TimeoutError(), FailureKind.TIMEOUT),
        (DataError("a folder is missing"), FailureKind.ENVIRONMENT),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x"), FailureKind.ENVIRONMENT),
        (OSError(errno.ENOSPC, "No space left on device"), FailureKind.ENVIRONMENT),
        (PermissionError(errno.EACCES, "Permission denied"), FailureKind.ENVIRONMENT),
        (ModuleNotFoundError("No module named 'torchvision'"), FailureKind.ENVIRONMENT),
        (PeerLostError("a worker is gone"), FailureKind.LOST),
        (GenotypeError("not in the table"), FailureKind.ERROR),
        (ValueError("we ran out of memory of old times"), FailureKind.ERROR),
        (KeyboardInterrupt(), FailureKind.ERROR),
    ],
)
def test_by_type_and_text(error, kind):
    assert classify(error) is kind


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: invalid device ordinal",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "No CUDA GPUs are available",
        "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
        "The NVIDIA driver on your system is too old (found version 11040): CUDA driver version is insufficient",
        "CUDA driver initialization failed, you might not have a CUDA gpu.",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        "NCCL error in: ProcessGroupNCCL.cpp:1690, unhandled cuda error",
        "HIP error: the operation cannot be performed in the present state",
        "MPS backend failed: Internal Error (0000000e:Internal Error)",
    ],
)
def test_errors_of_a_device_are_lost_and_known_as_its_own(message):
    error = RuntimeError(message)
    assert classify(error) is FailureKind.LOST
    assert is_of_device(error)
    assert attempt(lambda: _raise(error), trains=False).is_of_device


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), FailureKind.ERROR),
        (RuntimeError("CUDA error: invalid configuration argument"), FailureKind.ERROR),
        (RuntimeError("shapes of a CUDA tensor and a CPU tensor differ"), FailureKind.ERROR),
        (ValueError("CUDA error of a name"), FailureKind.ERROR),
        (PeerLostError("NCCL error: remote process exited"), FailureKind.LOST),
    ],
)
def test_what_is_no_error_of_a_device(error, kind):
    assert classify(error) is kind
    assert not is_of_device(error)


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("not a Parquet file"), FailureKind.ENVIRONMENT),
        (MemoryError(), FailureKind.OUT_OF_MEMORY),  # which is known better, and may be tried with more room
        (TimeoutError(), FailureKind.TIMEOUT),
    ],
)
def test_what_goes_wrong_before_the_first_step_is_no_architectures_fault(error, kind):
    def prepare():
        with preparing():
            raise error

    assert classify(raised(prepare)) is kind
    assert str(error) in str(raised(prepare))


def test_a_circle_of_causes_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) is FailureKind.ERROR


def test_needs_no_torch():
    code = (
        "import sys; from nao_ray.training.failures import classify; from nao_ray.training.recipe import Recipe;"
        "from nao_ray.evaluators.standalone import Standalone;"
        "sys.exit('torch' in sys.modules or classify(MemoryError()) != 'out_of_memory')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
