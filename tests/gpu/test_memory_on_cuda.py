"""What a worker says of the GPU it has computed on: what is in use there beside the allocator, packing reckons with."""

import pytest
import torch

pytest.importorskip("ray")
from nao_ray.service.fleet.actors import _gpu, _is_on_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_what_is_in_use_beside_the_allocator_is_there_and_is_not_the_allocators():
    """On a GPU that nobody else uses."""
    torch.randn(64, 64, device="cuda").mm(torch.randn(64, 64, device="cuda")).sum().item()
    assert _is_on_gpu()
    before = _gpu(is_alone=True)
    assert before.name == torch.cuda.get_device_name()
    assert 100 * 2**20 < before.outside < 3 * 2**30
    held = torch.zeros(2**30, dtype=torch.uint8, device="cuda")
    assert abs(_gpu(is_alone=True).outside - before.outside) < 64 * 2**20
    del held
    assert _gpu(is_alone=False).outside is None
