"""What every evaluator keeps: new files under evaluators/ are checked the moment they exist."""

import numpy as np
import pandas as pd
import pytest

from nao_ray import registry
from nao_ray.contracts.evaluators import check_evaluator
from nao_ray.spaces.darts_cnn import DartsCnn
from nao_ray.spaces.nas_bench_201 import NasBench201


def _table(folder):
    space = NasBench201(NasBench201.Config(ops=("none", "skip_connect")))
    tokens = [np.array(index) + 1 for index in np.ndindex(*[2] * space.length)]
    cells = [space.decode(row).key for row in tokens]
    pd.DataFrame({"cell": cells, "valid": np.linspace(0.1, 0.9, len(cells))}).to_csv(folder / "t.csv", index=False)
    return {"space": space, "path": str(folder / "t.csv"), "genotype": "cell", "valid": "valid", "unit": "fraction"}


SETTINGS = {
    "standalone": lambda _: {"cells_per_stage": 1, "channels": 4, "epochs": 1, "recipe": "short"},
    "darts": lambda _: {"space": DartsCnn, "layers": 1, "channels": 2},
    "tabular": _table,
}
"""An evaluator without an entry has to work as it is."""


@pytest.mark.parametrize("name", registry.names("evaluator"))
def test_it_keeps_the_contract(name, tmp_path):
    check_evaluator(registry.load("evaluator", name), **SETTINGS.get(name, lambda _: {})(tmp_path))
