"""Shared weights behind the lower seam: phases, versions, scores, and networks on their own."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.base import Group
from nao_ray.search.executor import Desk, Failure
from nao_ray.trial import Fidelity, Phase, Proposal

CONFIG = """
name: ws
space: nao_cnn_small
task: {name: synthetic}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 4
  recipe: {name: paper_shared, crop_padding: 1, flip: false, batch: 24, lr: 0.1}
  alone: {cells_per_stage: 1, channels: 4, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 24}}
strategy: {name: shared_random_search}
budget: {trials: 10}
"""


class Shelf(dict):
    def read_weights(self, version):
        return self[version]

    def write_weights(self, version, weights):
        self[version] = weights


@pytest.fixture(scope="module")
def config():
    return RunConfig.parse(CONFIG)


@pytest.fixture(scope="module")
def genotypes(config):
    from nao_ray import rng

    space = config.make_space()
    return [space.sample(rng.child(0, "one shot", index)) for index in range(4)]


def phase(genotypes, first=0, last=1, source=None):
    texts = tuple(genotype.key for genotype in genotypes)
    given = Phase(version=f"v{last}", source=source, first_epoch=first, last_epoch=last, genotypes=texts)
    return Proposal(genotype=genotypes[0], phase=given, seed=7)


def scored(genotype, version):
    return Proposal(genotype=genotype, fidelity=Fidelity(weights_version=version))


def test_phases_one_after_the_other_are_one_training(config, genotypes):
    desks = [Desk(config.make_evaluator(), Shelf()) for _ in range(2)]
    desks[0].work(phase(genotypes, 0, 1))
    desks[0].work(phase(genotypes, 1, 3, source="v1"))
    whole = desks[1].work(phase(genotypes, 0, 3))
    assert whole.train_loss > 0
    assert len(whole.curve) == 3
    assert desks[0]._store["v3"] == desks[1]._store["v3"]
    scores = [[desk.work(scored(genotype, "v3")) for genotype in genotypes] for desk in desks]
    facts = [[(score.valid_accuracy, score.valid_loss) for score in each] for each in scores]
    assert facts[0] == facts[1]
    assert len({loss for _, loss in facts[0]}) == len(genotypes)


def test_together_is_one_by_one_and_a_version_is_told_from_another(config, genotypes):
    evaluator, shelf = config.make_evaluator(), Shelf()
    desk = Desk(evaluator, shelf)
    desk.work(phase(genotypes, 0, 1))
    desk.work(phase(genotypes, 1, 2, source="v1"))
    first = [desk.work(scored(genotype, "v1")).valid_loss for genotype in genotypes]
    second = [desk.work(scored(genotype, "v2")).valid_loss for genotype in genotypes]
    assert first != second
    together = evaluator.evaluate_together([scored(genotype, "v2") for genotype in genotypes])
    assert [score.valid_loss for score in together] == pytest.approx(second, rel=1e-5)


def test_without_a_version_a_network_is_trained_on_its_own(config, genotypes):
    measurement = config.make_evaluator().evaluate(Proposal(genotype=genotypes[0], seed=1))
    assert measurement.num_params
    assert measurement.valid_accuracy is not None


def test_what_does_not_fit_is_refused(config, genotypes):
    evaluator, shelf = config.make_evaluator(), Shelf()
    desk = Desk(evaluator, shelf)
    desk.work(phase(genotypes, 0, 1))
    failed = desk.work(phase(genotypes, 2, 3, source="v1"))
    assert isinstance(failed, Failure)
    assert "weights v1 have had 1 epochs, this phase begins at 2" in failed.message
    wider = RunConfig.parse(CONFIG.replace("channels: 4\n", "channels: 6\n", 1)).make_evaluator()
    with pytest.raises(DataError, match="of another network"):
        wider.use("v1", shelf["v1"])
    other = RunConfig.parse(CONFIG.replace("nao_cnn_small", "nas_bench_201")).make_evaluator()
    with pytest.raises(ConfigError, match="no shared supernet"):
        other.train(phase(genotypes), None, Group())
