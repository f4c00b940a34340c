"""Components of the user's own: where they are found, how errors are told, what is recorded and what travels."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import _forks
import pytest

from nao_ray import own_modules, registry
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError
from nao_ray.own_modules import OwnModules, changes, record
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import resume, run

pytestmark = pytest.mark.usefixtures("fresh_modules")

FIXED = '''
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.strategies.base import StrategyConfig
from pydantic import Field

class FixedConfig(StrategyConfig):
    size: int = Field(default=3, ge=1)

class Fixed(RandomSearch):
    """Random search by another name."""
    Config = FixedConfig
'''
CONFIG = """
name: own
space: nao_cnn_small
evaluator: closed_form
strategy: {name: "mine.fixed:Fixed", size: 4}
budget: {trials: 3}
"""
WRONG = "raise RuntimeError('a file of the folder was loaded')"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a config and the package `mine`; the current one is another."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (folder / "mine").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "fixed.py").write_text(FIXED)
    (folder / "own.yaml").write_text(CONFIG)
    monkeypatch.chdir(elsewhere)
    return folder


def told(name, kind="strategy"):
    with pytest.raises(ConfigError) as caught:
        registry.load(kind, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- where it is found ----------------------------------------------------------------------------------------


def test_a_module_is_found_beside_the_config_and_stays_found(folder):
    config = RunConfig.load(folder / "own.yaml")
    assert config.make_strategy().config.size == 4
    assert RunConfig.parse(config.to_yaml()) == RunConfig.parse(RunConfig.parse(config.to_yaml()).to_yaml())
    assert not {str(folder), str(folder / "mine")} & set(sys.path)


def test_the_folder_of_the_config_comes_before_the_current_one_and_that_before_what_is_installed(
    folder, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere" / "mine").mkdir()
    (tmp_path / "elsewhere" / "mine" / "fixed.py").write_text(FIXED + "\nplace = 'current'\n")
    (tmp_path / "installed").mkdir()
    for name in ("mine_too", "third"):
        (tmp_path / "installed" / f"{name}.py").write_text(FIXED + "\nplace = 'installed'\n")
    (tmp_path / "elsewhere" / "mine_too.py").write_text(FIXED + "\nplace = 'current'\n")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    RunConfig.load(folder / "own.yaml")
    assert sys.modules["mine"].__path__[0] == str(folder / "mine")
    assert sys.modules[registry.load("strategy", "mine_too:Fixed").__module__].place == "current"
    assert sys.modules[registry.load("strategy", "third:Fixed").__module__].place == "installed"


def test_only_what_is_named_is_found_there(folder):
    (folder / "mine" / "uses.py").write_text("import helper\n" + FIXED)
    (folder / "helper.py").touch()
    with own_modules.looking_in(folder):
        assert "helper lies beside it, where only what the config names is found" in told("mine.uses:Fixed")
    assert "helper" not in sys.modules


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("random", "that nao_ray runs on"),
        ("turtle", "that nao_ray runs on"),
        ("torch", "that nao_ray runs on"),
        ("numpy", "that nao_ray runs on"),
        ("yaml", "that is loaded already, "),
    ],
)
def test_a_name_that_the_program_runs_on_is_refused(folder, name, why):
    (folder / f"{name}.py").write_text(WRONG)
    with own_modules.looking_in(folder):
        assert f"{name} of {folder} has the name of a module {why}" in told(f"{name}:Fixed")


def test_two_modules_of_one_name_are_not_taken_for_each_other(folder, tmp_path):
    other = tmp_path / "other"
    (other / "mine").mkdir(parents=True)
    (other / "mine" / "fixed.py").write_text(FIXED)
    (other / "own.yaml").write_text(CONFIG)
    RunConfig.load(folder / "own.yaml")
    with pytest.raises(ConfigError, match=f"this process has mine of {folder}, and cannot have that of {other}"):
        RunConfig.load(other / "own.yaml")


def test_a_space_and_its_genotypes_have_the_name_by_which_it_is_loaded(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "sp.py").write_text(
        "from nao_ray.spaces.parts.cnn_cell import CnnCellSpace\n"
        "class Own(CnnCellSpace):\n    ops = ('sep_conv_3x3', 'identity')\n"
        "class Called(Own):\n    name = 'nao_cnn'\n"
    )
    (folder / "again.py").write_text("from sp import Own\n")
    assert registry.load("space", "sp:Own").name == "sp:Own"
    assert "calls itself 'nao_cnn': leave `name` out" in told("sp:Called", "space")
    assert "it is named sp:Own" in told("again:Own", "space")


# -- what is wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.nothing:Fixed", "there is no such module, neither in "),
        ("not_there:Fixed", "there is no such module, neither in "),
        ("mine.fixed:Fixt", "fixed.py has no class Fixt; did you mean Fixed?"),
        ("mine.fixed:Xyzzy", "fixed.py has no class Xyzzy; it has: FixedConfig, Fixed"),
        ("mine.fixed:", "expected package.module:Class"),
        ("mine/fixed:Fixed", "expected package.module:Class"),
        ("nao_ray.strategies.nao:Nao", "components of nao_ray are named without module"),
        ("mine.wrong:number", "it is no class; expected one that is derived from nao_ray.strategies.base.Strategy"),
        ("mine.wrong:Evaluates", "Evaluates is not derived from nao_ray.strategies.base.Strategy"),
        ("mine.wrong:Half", "Half does not define observe"),
        ("mine.wrong:NoConfig", "its Config is not derived from nao_ray.strategies.base.StrategyConfig"),
        ("mine.raises:Fixed", "cannot be imported: ZeroDivisionError: division by zero (FOLDER/mine/raises.py:3)"),
        ("mine.exits:Fixed", "cannot be imported: SystemExit: 3 (FOLDER/mine/exits.py:2)"),
        ("mine.syntax:Fixed", "cannot be imported: SyntaxError: '(' was never closed (FOLDER/mine/syntax.py:1)"),
        ("mine.lacks:Fixed", "ModuleNotFoundError: No module named 'not_installed' (FOLDER/mine/lacks.py:1)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder, monkeypatch, name, message):
    monkeypatch.chdir(folder)
    (folder / "mine" / "wrong.py").write_text(
        FIXED + "from nao_ray.evaluators.closed_form import ClosedForm\nfrom nao_ray.strategies.base import Strategy\n"
        "number = 3\nclass Evaluates(ClosedForm): pass\n"
        "class Half(Strategy):\n    def propose(self, k, rng): pass\n"
        "class NoConfig(Fixed):\n    Config = dict\n"
    )
    (folder / "mine" / "raises.py").write_text("def half(x):\n\n    return 1 / x\nhalf(0)\n")
    (folder / "mine" / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "mine" / "syntax.py").write_text("print(\n")
    (folder / "mine" / "lacks.py").write_text("import not_installed\n")
    said = told(name)
    assert message.replace("FOLDER", str(folder)) in said
    assert said.startswith("strategy ")


def test_a_config_that_names_it_says_where(folder):
    path = folder / "own.yaml"
    path.write_text(CONFIG.replace("size: 4", "sice: 4"))
    with pytest.raises(ConfigError, match=r"own\.yaml: unknown key strategy\.sice; did you mean size\?"):
        RunConfig.load(path)
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=r"--set strategy\.name=mine\.fixed:Fixd: strategy .*has no class"):
        RunConfig.load(path, ("strategy.name=mine.fixed:Fixd",))


def test_names_of_ours_are_suggested_with_the_form_of_own_ones():
    assert "known: " in (said := told("mine.fixed"))
    assert "package.module:Class" in said


# -- what is recorded -----------------------------------------------------------------------------------------


def test_the_manifest_has_the_sources_and_a_resume_says_what_has_changed(folder, tmp_path, monkeypatch, caplog):
    pool = str(tmp_path / "pool")
    run(RunConfig.load(folder / "own.yaml"), pool, in_process=True)
    recorded = PoolReader.open(pool).manifest["own_modules"]
    assert recorded["mine"]["folder"] == str(folder)
    assert sorted(recorded["mine"]["files"]) == ["mine/__init__.py", "mine/fixed.py"]
    monkeypatch.chdir(folder)
    assert resume(pool, ("budget.trials=4",), in_process=True).done == 4
    assert "your own code" not in caplog.text
    (folder / "mine" / "fixed.py").write_text(FIXED + "\n# otherwise\n")
    assert resume(pool, ("budget.trials=5",), in_process=True).done == 5
    assert "your own code has changed since this search began, in mine/fixed.py:" in caplog.text


def test_a_pool_whose_modules_are_not_here_says_where_they_were(folder, tmp_path, monkeypatch):
    pool = str(tmp_path / "pool")
    run(RunConfig.load(folder / "own.yaml"), pool, in_process=True)
    monkeypatch.setattr(own_modules._finder, "homes", {})
    for name in ("mine", "mine.fixed"):
        del sys.modules[name]
    with pytest.raises(PoolError, match=f"with the module mine of {folder}, which is neither in .*elsewhere"):
        resume(pool, in_process=True)


def test_only_sources_are_compared():
    old = {"a": {"folder": "x", "files": {"a.py": "1", "b.py": "2"}}, "gone": {"version": "1"}}
    assert changes(old, {**old, "a": {"folder": "y", "files": {"a.py": "1", "b.py": "2"}}}) == []
    assert changes(old, {"a": {"folder": "x", "files": {"a.py": "0", "c.py": "2"}}}) == ["a.py and 2 more"]


# -- what travels ---------------------------------------------------------------------------------------------


def test_a_package_travels_whole_but_for_what_is_hidden_or_compiled(folder):
    (folder / "mine" / "train.txt").write_text("data")
    (folder / "mine" / "__pycache__").mkdir()
    (folder / "mine" / "__pycache__" / "fixed.pyc").touch()
    (folder / "mine" / ".secret").touch()
    (folder / "numpy.py").write_text(WRONG)
    config = RunConfig.load(folder / "own.yaml")
    files = dict(OwnModules.of_this_process().files)
    assert sorted(files) == ["mine/__init__.py", "mine/fixed.py", "mine/train.txt"]
    assert sorted(record(config.own_components)["mine"]["files"]) == ["mine/__init__.py", "mine/fixed.py"]


def test_what_is_installed_for_the_user_alone_does_not_travel(folder, tmp_path, monkeypatch):
    (tmp_path / "user-site").mkdir()
    (tmp_path / "user-site" / "userwide.py").write_text(FIXED)
    monkeypatch.setattr("site.getusersitepackages", lambda: str(tmp_path / "user-site"))
    monkeypatch.syspath_prepend(tmp_path / "user-site")
    registry.load("strategy", "userwide:Fixed")
    assert OwnModules.of_this_process().packages == ()
    assert record(["userwide:Fixed"]) == {"userwide": {"version": None}}


SPACE = """
from nao_ray.spaces.parts.cnn_cell import CnnCellSpace
class Own(CnnCellSpace):
    ops = ("sep_conv_3x3", "layers.mine:Scale")
"""
SCALE = """
from nao_ray.networks.ops import Pool
class Scale(Pool):
    def __init__(self, channels, stride):
        super().__init__("max", 3, stride, count_padding=False)
"""
SKELETON = """
from nao_ray.skeletons.nao import Nao
class Wide(Nao):
    '''NAO's.'''
"""


def test_operations_and_skeleton_of_a_space_are_checked_recorded_and_travel(folder):
    (folder / "layers").mkdir()
    (folder / "own.yaml").write_text(CONFIG.replace("nao_cnn_small", "sp:Own"))
    (folder / "sp.py").write_text(SPACE + "    skeleton = 'wide:Wide'\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: skeleton wide: there is no such module"):
        RunConfig.load(folder / "own.yaml")
    (folder / "wide.py").write_text(SKELETON)
    with pytest.raises(ConfigError, match=r"own\.yaml: operation layers\.mine: there is no such module"):
        RunConfig.load(folder / "own.yaml")
    (folder / "layers" / "mine.py").write_text(SCALE + "class Other: pass\n")
    config = RunConfig.load(folder / "own.yaml")
    assert config.own_components == ["sp:Own", "mine.fixed:Fixed", "wide:Wide", "layers.mine:Scale"]
    assert set(record(config.own_components)) == {"sp", "mine", "wide", "layers"}
    assert {top for top, _ in OwnModules.of_this_process().packages} == {"sp", "mine", "wide", "layers"}
    assert registry.load("skeleton", "wide:Wide").name == "wide:Wide"


def test_an_operation_is_one(folder):
    (folder / "sp.py").write_text(SPACE.replace("layers.mine:Scale", "sp:Own"))
    (folder / "own.yaml").write_text(CONFIG.replace("nao_cnn_small", "sp:Own"))
    with pytest.raises(ConfigError, match=r"operation sp:Own: it is not derived from .*ops\.Operation"):
        RunConfig.load(folder / "own.yaml")


def test_too_much_is_refused_before_anything_starts(folder, tmp_path):
    (folder / "mine" / "weights.bin").write_bytes(bytes(own_modules.CARRIED_BYTES))
    with pytest.raises(ConfigError, match=r"mine has more than 10 MiB of files, of which weights\.bin is one"):
        run(RunConfig.load(folder / "own.yaml"), str(tmp_path / "pool"), in_process=True)
    assert not (tmp_path / "pool").exists()


ELSEWHERE = """
import pickle, sys
make = pickle.load(sys.stdin.buffer)
strategy = make()
print(type(strategy).name if hasattr(type(strategy), "name") else type(strategy).__module__, strategy.config.size)
print(sys.modules["mine"].__path__[0])
make()
"""


def test_another_process_gets_it_as_it_was_and_nothing_beside_it(folder, tmp_path):
    from nao_ray.service.code import SameCode
    from nao_ray.service.fleet.actors import StrategyFactory

    text = RunConfig.load(folder / "own.yaml").to_yaml()
    sent = pickle.dumps(SameCode.of(StrategyFactory(text)))
    (folder / "mine" / "fixed.py").write_text(WRONG)
    (tmp_path / "elsewhere" / "mine").mkdir()
    (tmp_path / "elsewhere" / "mine" / "fixed.py").write_text(WRONG)
    root = os.path.dirname(os.path.dirname(own_modules.__file__))
    for _ in range(2):  # the second one finds the files that the first one wrote
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], input=sent, env=os.environ | {"PYTHONPATH": root}, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        name, place = done.stdout.decode().splitlines()
        assert name == "mine.fixed 4"
        assert not place.startswith(str(tmp_path))


def test_a_worker_takes_what_is_installed_from_there_whatever_lies_in_its_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "theirs.py").write_text(FIXED)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setattr("site.getusersitepackages", lambda: str(tmp_path / "installed"))
    registry.load("strategy", "theirs:Fixed")
    sent = OwnModules.of_this_process()
    assert sent.packages == ()
    (tmp_path / "elsewhere" / "theirs.py").write_text(WRONG)  # the current folder
    del sys.modules["theirs"]
    sent.install()
    assert registry.load("strategy", "theirs:Fixed").__module__ == "theirs"


def test_a_damaged_copy_is_not_used(folder):
    RunConfig.load(folder / "own.yaml")
    ((_, files),) = OwnModules.of_this_process().packages
    place = own_modules._written(files)
    assert own_modules._written(files) == place
    (place / "mine" / "fixed.py").write_text(WRONG)
    assert (own_modules._written(files) / "mine" / "fixed.py").read_text() == FIXED


def test_a_module_that_another_process_has_otherwise_is_refused(folder):
    RunConfig.load(folder / "own.yaml")
    with pytest.raises(ConfigError, match="this process has another module mine"):
        OwnModules((("mine", (("mine/__init__.py", b"other"),)),)).install()


TRAINS = "evaluator={name: standalone, cells_per_stage: 1, channels: 4, epochs: 1, recipe: short_digits}"


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_on_ray_has_it_on_its_workers_and_nothing_of_the_folder_it_is_started_in(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "nao_ray").mkdir()
    for name in ("nao_ray/__init__.py", "numpy.py", "random.py", "types.py", "mine.py"):
        (elsewhere / name).write_text(WRONG)
    root = os.path.dirname(os.path.dirname(own_modules.__file__))
    small = Path(__file__).with_name("_small_ray.py").read_text()
    command = f"{small}\nmake_small()\nfrom nao_ray.cli.app import main\nmain()"
    words = ["search", str(folder / "own.yaml"), "--pool", "p", "--set", TRAINS, "--set", "task=synthetic"]
    no_forks = {name: value for name, value in os.environ.items() if name != _forks.PLACE}
    done = subprocess.run(
        [sys.executable, "-P", "-c", command, *words, "--set", "workers.count=1"],
        env=no_forks | {"PYTHONPATH": root}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PoolReader.open(elsewhere / "p").counts().finished == 3
