"""Components of one's own as docs/components.md shows them: each short, and run."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from nao_ray import registry, rng, yaml_text
from nao_ray.pool import PoolReader
from nao_ray.search.executor import Failure, measure
from nao_ray.trial import FailureKind, Proposal

pytestmark = pytest.mark.usefixtures("fresh_modules")

PAGE = (Path(__file__).parents[1] / "docs" / "components.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
FILES = {body.splitlines()[0].removeprefix("# "): body for _, body in BLOCKS if body.startswith("# ")}
CONFIGS = {yaml_text.load(body)["name"]: body for kind, body in BLOCKS if kind == "yaml" and not body.startswith("# ")}
COMPONENTS = {
    "space": "my_space:MySpace",
    "strategy": "my_strategy:Climb",
    "task": "my_task:Discs",
    "evaluator": "mine.script:Script",
}
SCRIPT = """
import json, os, signal, sys, time
key, seed, epochs = sys.argv[1:]
assert len(key.split()) == 40 and seed.startswith("--seed=")
DO
print("epoch 1 of", epochs)
print(json.dumps({"accuracy": 0.5 + int(seed[-2:]) / 1000}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the reader of the page stands."""
    (tmp_path / "mine").mkdir()
    for name, body in FILES.items():
        (tmp_path / name).write_text(body)
    for name, body in CONFIGS.items():
        (tmp_path / f"{name}.yaml").write_text(body)
    (tmp_path / "mine" / "train.py").write_text(SCRIPT.replace("DO", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_one_of_each_and_none_is_long():
    components = {"my_space.py", "my_strategy.py", "my_task.py", "mine/script.py"}
    assert set(FILES) == {*components, "my_recipe.yaml", "test_mine.py", "tuned.py", "by_hand.py"}
    assert {name: len(FILES[name].splitlines()) for name in components if len(FILES[name].splitlines()) >= 30} == {}
    assert {kind for kind, _ in BLOCKS} == {"python", "yaml", "console"}


def test_space_task_strategy_and_recipe_make_a_search(folder, call):
    done = call("search", "own.yaml", "--in-process")
    assert done.code == 0, done.err
    pool = PoolReader.open(folder / "pools" / "own")
    assert pool.counts().completed == 6
    assert pool.manifest["config"]["space"]["name"] == "my_space:MySpace"
    assert pool.manifest["config"]["evaluator"]["recipe"]["lr"] == 0.05
    assert set(pool.manifest["own_modules"]) == {"my_space", "my_strategy", "my_task"}
    assert pool.trials()["space"].eq("my_space:MySpace").all()
    shown = call("describe", "pools/own:best")
    assert "my_space:MySpace" in shown.out
    assert "Dilated" in shown.out


def test_a_script_is_an_evaluator(folder, call):
    assert call("search", "scripted.yaml", "--in-process").code == 0
    scores = PoolReader.open(folder / "pools" / "scripted").trials()["valid_accuracy"]
    assert scores.between(0.5, 0.6).all()


@pytest.mark.usefixtures("folder")
def test_a_training_goes_on_where_its_state_was_kept():
    """The page says it in an assertion."""
    for kind in ("space", "task"):
        registry.load(kind, COMPONENTS[kind])
    made = runpy.run_path("by_hand.py")
    assert made["second"].steps_done == made["first"].steps_done == 2 * made["first"].objective.steps
    assert made["kept"]["step"].item() == made["first"].objective.steps + 1
    assert 0 < made["ended"][1] <= 1


@pytest.mark.parametrize(
    ("does", "kind", "message"),
    [
        ("time.sleep(60)", FailureKind.TIMEOUT, "no result within 1 s"),
        ("os.kill(os.getpid(), signal.SIGKILL)", FailureKind.OUT_OF_MEMORY, "MemoryError"),
        ("raise KeyError('no such layer')", FailureKind.ERROR, "KeyError: 'no such layer'"),
        ("print('nothing'); sys.exit()", FailureKind.ERROR, "JSONDecodeError"),
    ],
)
def test_what_goes_wrong_in_a_script_is_a_failure_of_its_kind(folder, does, kind, message):
    (folder / "mine" / "train.py").write_text(SCRIPT.replace("DO", does))
    cls = registry.load("evaluator", "mine.script:Script")
    space = registry.load("space", "nao_cnn_small")()
    evaluator = cls(space, None, cls.Config(seconds=1 if "sleep" in does else 60))
    proposal = Proposal(genotype=space.sample(rng.child(0, "x")), fidelity=cls.fidelity(evaluator.config))
    failed = measure(evaluator, proposal)
    assert isinstance(failed, Failure)
    assert failed.kind is kind
    assert message in failed.message


def test_the_commands_of_the_page_run(folder, call):
    commands = [line for kind, body in BLOCKS if kind == "console" for line in body.splitlines()]
    assert commands
    for command in commands:
        words = shlex.split(command.removeprefix("$ "))
        assert words[0] == "nao-ray"
        done = call(*words[1:])
        assert done.code == 0, done.err


@pytest.mark.usefixtures("folder")
def test_the_checks_of_the_page_pass():
    for kind, name in COMPONENTS.items():
        registry.load(kind, name)
    names: dict[str, object] = {}
    exec(FILES["test_mine.py"], names)
    names["test_mine"]()


def test_a_search_with_shared_weights_takes_an_operation_of_ones_own(folder, call):
    shared = """
name: shared
space: my_space:MySpace
task: {name: "my_task:Discs", limit: 200}
evaluator: {name: one_shot, cells_per_stage: 1, channels: 4, alone: {cells_per_stage: 1, channels: 4, epochs: 1}}
strategy: {name: shared_random_search, rounds: 1, epochs: 1, paths: 4, scored: 4, finalists: 1, audited: 0}
budget: {trials: 8}
"""
    (folder / "shared.yaml").write_text(shared)
    done = call("search", "shared.yaml", "--in-process")
    assert done.code == 0, done.err
