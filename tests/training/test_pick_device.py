import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nao_ray.evaluators.standalone import StandaloneConfig
from nao_ray.training.devices import move

CPU = torch.device("cpu")


def test_data_are_not_copied_on_the_host():
    array = np.arange(6)
    assert move(array, CPU).data_ptr() == array.ctypes.data
    array.flags.writeable = False  # as those of files that are mapped: torch would warn
    moved = move(array, CPU)
    assert moved.tolist() == array.tolist()
    assert moved.data_ptr() != array.ctypes.data


def test_a_device_that_nobody_has_tried_is_refused():
    with pytest.raises(ValidationError, match=r"device\n.*auto.cpu.cuda"):
        StandaloneConfig(device="mps")
