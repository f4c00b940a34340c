"""What a CUDA device really says when it fails, each in a process of its own, and what it is taken for.

Needs torch alone: ``pytest -m gpu tests/gpu`` on a machine with a CUDA device. What a machine without one says is
tested there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WITH_CUDA = torch.cuda.is_available()
gpu = [pytest.mark.gpu, pytest.mark.skipif(not WITH_CUDA, reason="no CUDA device")]

_ASK = """
import json, sys
from nao_ray.search.executor import Failure, attempt

def run(work):
    import torch
    exec(work, {"torch": torch})

said = [attempt(lambda: run(work)) for work in json.loads(sys.argv[1])]
print(json.dumps([[s.kind, s.is_of_device, s.message] if isinstance(s, Failure) else None for s in said]))
"""
AFTER = 'torch.ones(2, device="cuda").sum().item()'


def ask(*works, **environment):
    """What each piece of work is taken for, one after the other in a process: kind, whether the device's, message."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", _ASK, json.dumps(works)],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def is_of_device(said):
    return said is not None and said[:2] == ["lost", True]


ASSERTION = """
table = torch.randn(10, 4, device="cuda")
table[torch.tensor([10**6], device="cuda")].sum().item()
"""
BAD_LABEL = """
torch.nn.functional.cross_entropy(torch.randn(4, 10, device="cuda"), torch.full((4,), 10**6, device="cuda")).item()
"""


@pytest.mark.parametrize(
    ("work", "environment", "words"),
    [
        pytest.param(BAD_LABEL, {"CUDA_LAUNCH_BLOCKING": "1"}, "device-side assert", marks=gpu, id="label"),
        pytest.param('torch.ones(2, device="cuda")', {"CUDA_VISIBLE_DEVICES": ""}, "CUDA", marks=gpu, id="hidden"),
        pytest.param(
            'torch.ones(2, device="cuda")', {"CUDA_VISIBLE_DEVICES": "99"}, "CUDA", marks=gpu, id="no such device"
        ),
        pytest.param('torch.ones(2, device="cuda:63")', {}, "ordinal", marks=gpu, id="ordinal"),
        pytest.param(
            'torch.ones(2, device="cuda")',
            {},
            "",
            marks=pytest.mark.skipif(WITH_CUDA or torch.version.cuda is None, reason="needs CUDA's torch, no device"),
            id="no driver",
        ),
    ],
)
def test_what_a_device_says_when_it_fails_is_its_own(work, environment, words):
    (said,) = ask(work, **environment)
    assert is_of_device(said), said
    assert words in said[2]


@pytest.mark.gpu
@pytest.mark.skipif(not WITH_CUDA, reason="no CUDA device")
def test_a_process_whose_context_is_broken_says_so_again():
    said, after = ask(ASSERTION, AFTER)
    assert is_of_device(said), said
    assert "device-side assert" in said[2]
    assert is_of_device(after), after


MUCH = 'torch.empty(2**46, device="cuda")'
LIMITED = """
torch.cuda.set_per_process_memory_fraction(0.01)
kept = [torch.empty(2**26, device="cuda") for _ in range(10_000)]
"""


@pytest.mark.gpu
@pytest.mark.skipif(not WITH_CUDA, reason="no CUDA device")
def test_memory_that_ends_is_out_of_memory_and_the_process_goes_on():
    much, limited, after = ask(MUCH, LIMITED, AFTER)
    assert much[:2] == ["out_of_memory", False], much
    assert limited[:2] == ["out_of_memory", False], limited
    assert after is None


@pytest.mark.gpu
@pytest.mark.skipif(not WITH_CUDA, reason="no CUDA device")
def test_what_an_architecture_does_wrong_on_a_device_is_its_own_error():
    *said, after = ask(
        'torch.ones(2, 3, device="cuda") @ torch.ones(2, 3, device="cuda")',
        'torch.ones(2, device="cuda") + torch.ones(3, device="cuda")',
        'torch.ones(2, 3, device="cuda") @ torch.ones(3, 2)',
        'torch.nn.functional.conv2d(torch.ones(1, 3, 4, 4, device="cuda"), torch.ones(2, 5, 3, 3, device="cuda"))',
        AFTER,
    )
    assert [failure[:2] for failure in said] == [["error", False]] * 4, said
    assert after is None
