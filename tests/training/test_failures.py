import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from nao_ray.errors import DataError, GenotypeError
from nao_ray.training.failures import PeerLostError, classify, preparing
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
        (RuntimeError("CUDA error: an illegal memory access"), FailureKind.ERROR),
        (KeyboardInterrupt(), FailureKind.ERROR),
    ],
)
def test_by_type_and_text(error, kind):
    assert classify(error) is kind


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
