"""Workers load the package that the driver has loaded (and nothing of its folder: `test_own_modules.py`)."""

import os
import sys

import pytest
import ray

from nao_ray.errors import ClusterError
from nao_ray.own_modules import OwnModules
from nao_ray.service import code
from nao_ray.service.code import Code, SameCode, own_code, refuse_other_code, worker_path


def _other(place="/old/nao_ray on n7"):
    files = own_code().files
    return Code(place, {**files, "trial.py": "0" * 16, "gone.py": "1" * 16})


def test_equal_files_are_the_same_code():
    mine = own_code()
    assert {"config.py", "service/code.py", "__init__.py"} <= set(mine.files)
    refuse_other_code(mine)
    assert SameCode.of(lambda: 7)() == 7


def test_other_files_are_refused_with_both_places():
    with pytest.raises(
        ClusterError, match=r"nao_ray on .* differs from /old/nao_ray on n7 in gone\.py and 1 more"
    ) as told:
        refuse_other_code(_other())
    assert "\n" not in str(told.value)


def test_nothing_is_unpickled_before_the_check():
    with pytest.raises(ClusterError):
        SameCode(b"no pickle at all", _other(), OwnModules(()))()


def test_workers_look_where_the_package_is_only_if_they_would_not_find_it(monkeypatch, tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.realpath(code.nao_ray.__file__)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py")])
    monkeypatch.setattr(sys, "path", [str(tmp_path), root])
    assert worker_path() == []
    monkeypatch.setattr(
        sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    )
    monkeypatch.chdir(root)  # `python -m nao_ray` in a checkout
    monkeypatch.setattr(sys, "path", [root])
    assert worker_path() == [root]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_worker_with_other_code_says_so_whatever_it_can_load():
    check = ray.remote(num_cpus=0)(lambda make: make())
    with pytest.raises(ClusterError, match="workers run other code than the driver"):
        ray.get(check.remote(SameCode(b"no pickle at all", _other(), OwnModules(()))))
