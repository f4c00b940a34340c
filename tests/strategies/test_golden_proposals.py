"""The first proposals of every strategy, as stored: a change here is a change of every search that is under way.

``python -m tests.strategies.test_golden_proposals``, from the checkout, stores them anew; say why in the change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nao_ray import registry
from nao_ray.trial import Fidelity, Measurement, Trial

FILE = Path(__file__).parents[1] / "golden" / "proposals.json"
PUBLISHED: dict[str, Any] = {"seeds": 5, "round_size": 3, "top_k": 3, "fit": {"epochs": 20}}
EVOLUTION: dict[str, Any] = {"population": 4, "sample": 2}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "random_search": ("random_search", {}),
    "regularized_evolution": ("regularized_evolution", EVOLUTION),
    "random_search, darts_cnn": ("random_search", {}),
    "regularized_evolution, darts_cnn": ("regularized_evolution", EVOLUTION),
    "reinforce": ("reinforce", {}),
    "nao, paper": ("nao", {"preset": "paper", **PUBLISHED}),
    "nao, nao_ws_v1": ("nao", {"preset": "nao_ws_v1", "pool_size": 7, **PUBLISHED}),
    "nao, v2": ("nao", {"preset": "v2", **PUBLISHED}),
    "nao, gp": ("nao", {"seeds": 5, "pretraining": {"steps": 60, "genotypes": 100}}),
}


def proposals(case: str, count: int = 10) -> list[str]:
    """Genotypes of the space that the case names, one worker, scored by their number of 5x5 separable convolutions."""
    name, settings = SETTINGS[case]
    space = "darts_cnn" if case.endswith("darts_cnn") else "nao_cnn_small"
    cls = registry.load("strategy", name)
    strategy = cls(registry.load("space", space)(), cls.Config(**settings), 1, Fidelity())
    keys: list[str] = []
    for index in range(count):
        (proposal,) = strategy.ask(1)
        keys.append(proposal.genotype.key)
        text = proposal.genotype.key
        large = text.count("sep_conv_5x5") if space == "darts_cnn" else text.split()[1::2].count("1")
        score = 0.5 + 0.02 * large
        done = Trial(proposal=proposal).complete(Measurement(valid_accuracy=score), log_index=index)
        strategy.tell([done])
    return keys


@pytest.mark.parametrize("case", sorted(SETTINGS))
def test_the_first_proposals_are_the_stored_ones(case: str) -> None:
    assert proposals(case) == json.loads(FILE.read_text(encoding="utf-8"))[case]


if __name__ == "__main__":
    FILE.write_text(json.dumps({case: proposals(case) for case in SETTINGS}, indent=1) + "\n", encoding="utf-8")
