"""Searches in the space of DARTS whose networks are trained, and networks of cells that are not searched."""

import numpy as np
import pytest
import torch

from nao_ray import registry
from nao_ray.evaluators.standalone import Standalone
from nao_ray.skeletons.darts import Darts
from nao_ray.spaces.darts_cnn import DartsCnn
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.recipe import ImageRegularisation
from nao_ray.trial import Fidelity, Proposal, Trial

SPACE = DartsCnn()
RECIPE = {"name": "short_digits", "batch": 24, "drop_path_keep": 0.95, "drop_path_schedule": "epoch"}
STRATEGIES = {
    "random_search": {},
    "regularized_evolution": {"population": 3, "sample": 2},
    "nao": {"seeds": 3, "pretraining": {"steps": 10, "genotypes": 40}},
}


@pytest.fixture(scope="module")
def evaluator():
    settings = Standalone.settings(SPACE)(layers=3, channels=4, epochs=3, recipe=RECIPE)
    return Standalone(SPACE, Synthetic(SyntheticConfig(per_class=30, noise=0.1)), settings)


@pytest.fixture(scope="module")
def measurements():
    """What came of a genotype, a seed and a fidelity."""
    return {}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_small_search_trains_what_is_asked(name, evaluator, measurements):
    cls = registry.load("strategy", name)
    strategy = cls(SPACE, cls.Config(**STRATEGIES[name]), 0, Fidelity())
    seen = {}
    for index in range(5):
        (proposal,) = strategy.ask(1)
        asked = (proposal.genotype, proposal.seed, proposal.fidelity)  # all begin with the same three
        measured = measurements[asked] = measurements.get(asked) or evaluator.evaluate(proposal)
        seen[proposal.genotype] = measured
        strategy.tell([Trial(proposal=proposal).complete(measured, log_index=index)])
    assert len(seen) == 5
    assert len({measured.num_params for measured in seen.values()}) > 1
    assert max(measured.valid_accuracy for measured in seen.values()) > 0.4, "a guess has 0.25"


@pytest.mark.parametrize("name", ["NASNet", "AmoebaNet"])
def test_cells_that_are_not_searched_are_trained_alike(name, evaluator):
    first, again = (evaluator.evaluate(Proposal(genotype=SPACE.parse(name), seed=1)) for _ in range(2))
    assert np.isfinite(first.valid_loss)
    assert (first.valid_accuracy, first.valid_loss) == (again.valid_accuracy, again.valid_loss)


@pytest.mark.parametrize("side", [7, 8, 28])
def test_networks_of_small_images_of_any_side(side):
    """With the auxiliary head, as published for small images: odd maps too."""
    graph, shapes = SPACE.lower(SPACE.parse("DARTS_V1")), ImageShapes(1, side, side, 10, "small")
    outs = Darts().build(graph, shapes, None, ImageRegularisation()).train()(torch.zeros(2, 1, side, side))
    assert [tuple(out.shape) for out in outs] == [(2, 10), (2, 10)]
