"""What a job is called and carries."""

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.preset_files import PRESETS
from nao_ray.service.hosting import manifest
from nao_ray.service.jobs import packing
from nao_ray.service.jobs.packing import (
    UPLOAD_LIMIT,
    entrypoint,
    job_name,
    next_job_id,
    pack,
    shared_pool,
    without_files,
)

SMOKE = (PRESETS / "smoke.yaml").read_text()


def test_a_name_is_that_of_the_config_and_the_pool():
    name = job_name("my.search", "/shared/pools/a")
    assert name.startswith("my.search-")
    assert name == job_name("my.search", "/shared/pools/a")
    assert len({name, job_name("my.search", "/shared/pools/b"), job_name("other", "/shared/pools/a")}) == 3


def test_an_id_is_used_once():
    assert next_job_id("a-1", []) == "a-1-1"
    assert next_job_id("a-1", {"a-1-1", "a-1-3", "b-1-2"}) == "a-1-2"


def test_a_pool_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shared_pool("pools/a/") == str(tmp_path / "pools" / "a")
    assert shared_pool("s3://bucket/a/") == "s3://bucket/a"


@pytest.mark.parametrize("url", ["s3://user:SECRET@bucket/a", "s3://bucket/a?access_key=SECRET&secret_key=SECRET"])
def test_a_pool_with_credentials_is_refused_and_they_are_not_repeated(url):
    with pytest.raises(ConfigError, match="holds credentials") as told:
        shared_pool(url)
    assert "SECRET" not in str(told.value)


def test_the_command_is_the_one_of_the_command_line():
    command = entrypoint("python", "a.yaml", "/p o o l", ["strategy={name: nao}"], detach=True)
    words = shlex.split(command)
    assert words[:7] == ["python", "-m", "nao_ray", "search", "a.yaml", "--pool", "/p o o l"]
    assert words[7:] == ["--wait", "60", "--set", "strategy={name: nao}", "--detach"]


def test_the_archive_holds_the_package_and_the_config_alone(tmp_path):
    size = pack(tmp_path / "job.zip", SMOKE, "mine.yaml", package=True)
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        names = set(archive.namelist())
        assert archive.read("mine.yaml").decode() == SMOKE
        assert archive.read("nao_ray/REVISION").decode() == (manifest.source_revision() or "")
    assert {name.partition("/")[0] for name in names} == {"mine.yaml", "nao_ray"}
    assert {"nao_ray/cli/app.py", "nao_ray/presets/smoke.yaml", "nao_ray/page/server.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/." in name]
    assert size == (tmp_path / "job.zip").stat().st_size < 2_000_000


def test_the_same_files_make_the_same_archive(tmp_path):
    for name in ("a.zip", "b.zip"):
        pack(tmp_path / name, SMOKE, "smoke.yaml", package=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_installed_package_stays_at_home(tmp_path):
    pack(tmp_path / "job.zip", SMOKE, "smoke.yaml", package=False)
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        assert archive.namelist() == ["smoke.yaml"]


def test_too_much_is_refused_with_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "UPLOAD_LIMIT", 1000)
    assert UPLOAD_LIMIT == 100 * 2**20
    with pytest.raises(ConfigError, match=r"carries at most .* MiB"):
        pack(tmp_path / "job.zip", SMOKE, "smoke.yaml", package=True)


def test_the_copy_runs_and_knows_its_commit(tmp_path):
    pack(tmp_path / "job.zip", SMOKE, "smoke.yaml", package=True)
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        archive.extractall(tmp_path / "work")
    program = "import nao_ray; from nao_ray.service.hosting import manifest as m; "
    program += "print(nao_ray.__file__, m.source_revision())"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path / "work", capture_output=True, text=True, check=True)
    where, revision = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path / "work")
    assert revision == str(manifest.source_revision())


def test_modules_that_the_config_names_stand_beside_it_and_nothing_else_does(tmp_path):
    modules = {"mine/__init__.py": b"", "mine/fixed.py": STRATEGY}
    pack(tmp_path / "job.zip", CONFIG, "own.yaml", package=True, modules=modules.items())
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"own.yaml", "nao_ray", "mine"}
        archive.extractall(tmp_path / "work")
    words = [sys.executable, "-m", "nao_ray", "search", "own.yaml", "--pool", "p", "--in-process"]
    done = subprocess.run(words, cwd=tmp_path / "work", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "own: 2/2 done" in done.stderr


STRATEGY = b"from nao_ray.strategies.random_search import RandomSearch\nclass Fixed(RandomSearch): pass\n"
CONFIG = """
name: own
space: nao_cnn_small
evaluator: closed_form
strategy: mine.fixed:Fixed
budget: {trials: 2}
"""


def test_a_recipe_file_stays_here_and_what_it_says_goes_along(tmp_path):
    (tmp_path / "mine.yaml").write_text("{name: short, lr: 0.05}")
    text = """
name: own
space: nao_cnn_small
task: digits
evaluator: {name: standalone, recipe: mine.yaml}
strategy: random_search
budget: {trials: 2}
"""
    (tmp_path / "own.yaml").write_text(text)
    config = RunConfig.load(tmp_path / "own.yaml", ("seed=7",))
    carried, settings = without_files(text, ("seed=7",), config)
    assert settings == ()
    assert RunConfig.parse(carried) == config
    assert RunConfig.parse(carried).seed == 7
    assert RunConfig.parse(carried).evaluator.settings["recipe"]["lr"] == 0.05
    plain = text.replace("mine.yaml", "short")
    assert without_files(plain, ("seed=7",), config) == (plain, ("seed=7",))
    by_set = without_files(plain, ("evaluator.recipe=mine.yaml",), config)
    assert by_set == (config.to_yaml(), ())
