"""Memory that a driver took to merge parts is given back."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from nao_ray import memory
from nao_ray.memory import release


@pytest.fixture(autouse=True)
def _whole_heap_is_gone_through_first(monkeypatch):
    """Else what tests before have left free there is taken again, and no process grows."""
    monkeypatch.setattr(memory, "_least", None)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives memory back when asked")
def test_memory_is_given_back():
    code = ctypes.CDLL(None)
    code.malloc.restype, code.malloc.argtypes, code.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    release()  # what grows from here on
    size = 100_000  # below what is mapped, and given back, by itself
    blocks = [code.malloc(size) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    full = psutil.Process().memory_info().rss
    for block in blocks[:-1]:  # the last one holds the rest up
        code.free(block)
    release()
    code.free(blocks[-1])
    assert full - psutil.Process().memory_info().rss > 0.8 * 1000 * size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives memory back when asked")
def test_the_heap_is_gone_through_only_where_the_process_has_grown(monkeypatch):
    """Each look at the log went through all of it, 30 ms in a process with torch."""
    resident, trims = [100 * 2**20], []
    monkeypatch.setattr(memory, "_resident", lambda: resident[0])
    monkeypatch.setattr(memory, "_least", None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trims.append))
    for megabytes, trimmed in ((100, 1), (100, 1), (107, 1), (90, 1), (97, 1), (99, 2), (106, 2), (107, 3)):
        resident[0] = megabytes * 2**20
        release()
        assert len(trims) == trimmed, megabytes


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told to keep memory")
def test_what_a_training_frees_stays_at_hand_until_it_ends():
    """A step's tensors went back to the system, and the next step's were 10,000 pages to be cleared anew.

    In a process of its own: a heap that once could not grow, as where other tests let memory run out, is not trimmed.
    """
    code = """
import ctypes, psutil, resource
from nao_ray import memory

code = ctypes.CDLL(None)
code.malloc.restype, code.malloc.argtypes, code.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 48 * 2**20  # more than is ever kept unasked

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = code.malloc(size)
    ctypes.memset(block, 1, size)
    code.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory.keep()
memory.release()
step()
held = psutil.Process().memory_info().rss
again = step()
memory.release()
print(size, again, held - psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, again, given_back = map(int, done.stdout.split())
    assert again < 100, "pages of the second step that were cleared anew"
    assert given_back > 0.8 * size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told to keep memory")
def test_what_a_training_held_that_failed_is_given_back():
    """All of it stayed with the worker, idle or not, until another training ended there. In a process of its own."""
    code = """
import psutil, torch
from nao_ray.memory import release
from nao_ray.search.executor import Failure, attempt
from nao_ray.training.resources import watch

resident = psutil.Process().memory_info
during = []

def work():
    with watch(torch.device("cpu")):
        tensors = [torch.ones(2**23) for _ in range(4)]  # 32 MB each
        during.append(resident().rss)
        raise RuntimeError(f"{len(tensors)} tensors are too many")

release()
before = resident().rss
assert isinstance(attempt(work), Failure)
print(during[0] - before, resident().rss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held > 100 * 2**20
    assert left < 0.2 * held


@pytest.mark.parametrize(("chosen", "used"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")])
def test_the_command_line_uses_memory_that_can_be_given_back_unless_told_otherwise(chosen, used):
    code = "import contextlib\nfrom nao_ray.cli import app\n"
    code += "with contextlib.suppress(SystemExit): app.main(['--version'])\n"
    code += "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"} | chosen
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == used
