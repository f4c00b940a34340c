"""What a worker loads, it loads before its first trial, whose time has a limit."""

import json
import subprocess
import sys

import pytest

FIRST = """
import json, sys
from nao_ray.config import RunConfig
from nao_ray.preset_files import find_config

config = RunConfig.load(find_config(sys.argv[1]), ("evaluator.epochs=1", "evaluator.channels=4"))
evaluator = config.make_evaluator()
evaluator.prepare()
(proposal,) = config.make_strategy().ask(1)
before = set(sys.modules)
evaluator.evaluate(proposal)
json.dump([name for name in set(sys.modules) - before if name.count(".") < 2], sys.stdout)
"""


@pytest.mark.parametrize("preset", ["smoke"])
def test_a_trial_loads_nothing(preset):
    done = subprocess.run([sys.executable, "-c", FIRST, preset], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
