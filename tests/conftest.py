"""Shared fixtures; the environment is set before anything imports ray."""

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import accumulate
from multiprocessing import spawn
from pathlib import Path
from types import SimpleNamespace

import _forks
import pytest
from hypothesis import settings

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.update(RAY_worker_niceness="0")  # else what other tests do beside one starves its workers
os.environ.pop("RAY_ADDRESS", None)
# What is remembered is not the user's, and no Ray that runs beside these tests is found.
for name, prefix in (("XDG_CACHE_HOME", "nao-ray-tests-"), ("RAY_TMPDIR", "nr")):  # sockets want a short one
    os.environ[name] = tempfile.mkdtemp(prefix=prefix, dir="/tmp")
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)

# A sixth of the tests' time went into looking for garbage among hundreds of thousands of objects that stay.
gc.set_threshold(10_000, 20, 50)

if _forks.prepare():
    atexit.register(shutil.rmtree, os.environ[_forks.PLACE], ignore_errors=True)

# A shell ignores it for what it starts in the background, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("nao_ray", deadline=None)  # a busy machine is no failure
settings.load_profile("nao_ray")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs):
    """The processes of a run of tests are forks too: each would load what the server has loaded for four seconds."""
    for spec in specs:
        spec.python = str(_forks.environment_of_stand_ins() / "bin" / "python")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["python"] = sys.executable


def pytest_configure(config):
    """What tests start is no stand-in, but where they ask for one."""
    sys.executable = getattr(config, "workerinput", {}).get("python", sys.executable)
    spawn.set_executable(sys.executable)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, then with many: at the end, none waits long for another.

    Those with tests of Ray, which wait as they work, stand among them: tests that do not wait keep the cores busy
    meanwhile. The last begins when three fifths of the other tests have, so that it is not the last to end.
    """
    marked = {name: Counter(item.path for item in items if item.get_closest_marker(name)) for name in ("ray", "slow")}
    tests = Counter(item.path for item in items)
    files = sorted(tests, key=lambda path: (-marked["ray"][path], -marked["slow"][path], -tests[path]))
    num_ray = len(marked["ray"])
    begun = accumulate((tests[path] for path in files[num_ray:]), initial=0)
    place = {path: (count, 1) for path, count in zip(files[num_ray:], begun, strict=False)}
    share = 0.6 * sum(tests[path] for path in files[num_ray:])
    place |= {path: (share * k / num_ray, 0) for k, path in enumerate(files[:num_ray])}
    items.sort(key=lambda item: place[item.path])


def pytest_collection_finish():
    """What is loaded by now stays: no collection of garbage looks through it, 0.2 s each.

    No tensor here lies on many machines: to see whether one does, `assert_close` would load 2 s of modules.
    """
    gc.freeze()
    gc.callbacks.append(_Slow.collects)
    if "torch" in sys.modules:
        sys.modules["torch"].testing._comparison._HAS_DTENSOR = False


class _Slow:
    """Whether a collection has taken so long that what is there by now should be passed over too."""

    begun = 0.0
    is_noted = False

    @classmethod
    def collects(cls, phase, info):
        now = time.thread_time()
        cls.is_noted |= phase == "stop" and now - cls.begun > 0.05
        cls.begun = now


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before the fixtures: of the first test that has a Ray; of one after a slow collection of garbage."""
    if _Slow.is_noted:
        gc.freeze()
        _Slow.is_noted = False
    if item.get_closest_marker("ray") and not item.session.stash.get(_IS_SMALL, False):
        from _small_ray import make_small

        item.session.stash[_IS_SMALL] = True
        _forks.connect("socket", {}, ()).close()  # Ray waits 15 s for an agent, not for the server of its fork too
        make_small()


_IS_SMALL = pytest.StashKey[bool]()
DATA = Path(os.environ.get("NAO_RAY_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def _quick_disk():
    """No syncing: nothing can tell, but for tests/pool/test_faults.py, and a disk takes 10 ms each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


class Shelf(dict[str, bytes]):
    """Versions of shared weights, in memory."""

    def read_weights(self, version: str) -> bytes:
        return self[version]


@pytest.fixture
def shelf() -> Shelf:
    """Where an executor reads versions of shared weights; the test puts them there, as the loop does."""
    return Shelf()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of measured tables and image subsets; tests that need it skip where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"no data folder at {DATA}; set NAO_RAY_DATA")
    return DATA


@pytest.fixture
def call(capsys):
    """`call("pool", url)` -> exit code, stdout, stderr; what `--json` prints is of its form."""

    from nao_ray.cli.app import main

    def run(*words):
        words = [str(word) for word in words]
        with pytest.raises(SystemExit) as left:
            main(words)
        out, err = capsys.readouterr()
        if "--json" in words:
            _is_of_its_form(words, out, err)
        return SimpleNamespace(code=left.value.code, out=out, err=err)

    return run


def _is_of_its_form(words, out, err):
    from nao_ray.cli.forms import forms

    known = forms()
    at = 1 if words[1:2] == ["import"] else 2  # POOL stands between the others
    name = " ".join([words[0], *words[at : at + 1]]) if words[0] == "pool" else words[0]
    name = name if name in known or words[0] != "pool" or name == "pool sql" else "pool"
    if out and name in known:
        known[name].validate_json(out)
    elif not out:
        known["errors"].validate_json(err.splitlines()[-1])


@pytest.fixture
def fresh_modules(monkeypatch):
    """Modules of the user's own that the test names are forgotten after it."""
    from nao_ray import own_modules
    from nao_ray.networks import ops

    before = set(sys.modules)
    monkeypatch.setattr(own_modules._finder, "homes", {})
    monkeypatch.setattr(own_modules._finder, "is_sent", False)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in own_modules._finder.homes:
            del sys.modules[name]
    ops.own_operation.cache_clear()
    ops.op_params.cache_clear()
