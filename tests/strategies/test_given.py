"""Given architectures: what cannot be trained is refused before anything is."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.service.hosting.run import run

GOOD = " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)
TWIN = " ".join(["1 2 0 4 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)
"""GOOD with the inputs of a node the other way round."""
OTHER = " ".join(["0 3 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)


@pytest.mark.parametrize(
    ("genotypes", "message"),
    [
        ((GOOD, "0 1"), "strategy.genotypes, number 2: "),
        ((OTHER, GOOD, TWIN), "strategy.genotypes: numbers 2 and 3 are the same architecture"),
    ],
)
def test_bad_architectures_are_refused_before_there_is_a_pool(tmp_path, genotypes, message):
    config = RunConfig(
        name="g", space="nao_cnn_small", task="synthetic", evaluator="closed_form", budget={"trials": 3},
        strategy={"name": "given", "genotypes": genotypes},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=message) as caught:
        run(config, str(tmp_path / "p"), in_process=True)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "p").exists()
