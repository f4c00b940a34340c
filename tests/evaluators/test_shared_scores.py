"""Shared weights behind the lower seam: phases, versions, scores, and networks on their own."""

from dataclasses import replace

import numpy as np
import pytest

from nao_ray import rng
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError
from nao_ray.search.executor import Desk
from nao_ray.skeletons.darts import Darts
from nao_ray.skeletons.nao import Nao
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Fidelity, Phase, Proposal, Trial

CONFIG = """
name: ws
space: nao_cnn_small
task: {name: synthetic}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 4
  recipe: {name: paper_shared, crop_padding: 1, flip: false, batch: 48, lr: 0.1}
  alone: {cells_per_stage: 1, channels: 4, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 48}}
strategy: {name: shared_random_search}
budget: {trials: 10}
"""
LAYERS = CONFIG.replace("nao_cnn_small", "{name: enas_macro, layers: 4}").replace("  cells_per_stage: 1\n", "")
LAYERS = LAYERS.replace("cells_per_stage: 1, ", "")
"""The same with few weights, for what is the same whatever the weights are."""


@pytest.fixture(scope="module")
def config():
    return RunConfig.parse(CONFIG)


@pytest.fixture(scope="module")
def layers():
    return RunConfig.parse(LAYERS)


@pytest.fixture(scope="module")
def genotypes(config):
    return _drawn(config)


@pytest.fixture(scope="module")
def layered(layers):
    return _drawn(layers)


def _drawn(config):
    space = config.make_space()
    return [space.sample(rng.child(0, "one shot", index)) for index in range(4)]


@pytest.fixture(scope="module")
def trained(config, genotypes):
    """The bytes of version v1 of `config`."""
    return Desk(config.make_evaluator(), {}).work(phase(genotypes, 0, 1))[1]


def phase(genotypes, first=0, last=1, source=None):
    texts = tuple(genotype.key for genotype in genotypes)
    given = Phase(version=f"v{last}", source=source, first_epoch=first, last_epoch=last, genotypes=texts)
    return Proposal(genotype=genotypes[0], phase=given, seed=7)


def scored(genotype, version):
    return Proposal(genotype=genotype, fidelity=Fidelity(weights_version=version))


def work(desk, proposal):
    """The outcome; a version goes to the shelf, as the loop writes it to the pool."""
    outcome, weights = desk.work(proposal)
    if weights is not None:
        desk._store[proposal.phase.version] = weights
    return outcome


def test_phases_one_after_the_other_are_one_training(layers, layered, shelf):
    desks = [Desk(layers.make_evaluator(), type(shelf)()) for _ in range(2)]
    work(desks[0], phase(layered, 0, 1))
    work(desks[0], phase(layered, 1, 3, source="v1"))
    whole = work(desks[1], phase(layered, 0, 3))
    assert whole.train_loss > 0
    assert len(whole.curve) == 3
    assert desks[0]._store["v3"] == desks[1]._store["v3"]
    scores = [[work(desk, scored(genotype, "v3")) for genotype in layered] for desk in desks]
    facts = [[(score.valid_accuracy, score.valid_loss) for score in each] for each in scores]
    assert facts[0] == facts[1]
    assert len({loss for _, loss in facts[0]}) == len(layered)


def test_how_often_a_version_is_kept_changes_no_result(layers, shelf):
    """Each version is a proposal with a seed of its own; the weights, and the losses on the way, are those of one."""

    def search(epochs_per_version):
        strategy = {"epochs": 4, "epochs_per_version": epochs_per_version, "rounds": 1, "paths": 3, "scored": 4}
        given = RunConfig.model_validate(
            layers.model_dump() | {"strategy": {**layers.strategy.model_dump(), **strategy}}
        )
        asker, desk, seeds, losses = given.make_strategy(), Desk(given.make_evaluator(), type(shelf)()), [], []
        while not asker.done:
            for proposal in asker.ask(10):
                outcome = work(desk, proposal)
                asker.tell([Trial(proposal=proposal).complete(outcome, log_index=asker.num_told)])
                if proposal.phase is None:
                    return losses, desk._store["e00004"], seeds
                losses += outcome.curve
                seeds.append(proposal.seed)
        raise AssertionError("nothing was scored")

    whole, parts = search(None), search(1)
    assert whole[:2] == parts[:2]
    assert (len(whole[2]), len(set(parts[2]))) == (1, 4)


def test_a_phase_of_an_earlier_pool_is_named_by_its_proposal(layers, layered, shelf):
    proposal = phase(layered, 0, 1)
    assert proposal.phase.seed is None
    named = replace(proposal, seed=1, phase=replace(proposal.phase, seed=proposal.seed))
    desks = [Desk(layers.make_evaluator(), type(shelf)()) for _ in range(3)]
    weights = [
        desk.work(given)[1] for desk, given in zip(desks, (proposal, named, replace(proposal, seed=1)), strict=True)
    ]
    assert weights[0] == weights[1] != weights[2]


def test_who_trains_by_size_counts_nothing_that_its_phase_says(config, genotypes, monkeypatch):
    """Of networks for this task, and 0.1 s each is too long to count in every process of a search."""
    evaluator = config.make_evaluator()
    sizes = tuple(map(evaluator.num_params, genotypes))
    alone = evaluator._alone._training
    own = alone._network(Proposal(genotype=genotypes[0]), 0, alone.config.recipe)
    assert evaluator.task.num_classes != 10, "or a default would do"
    assert sizes[0] == sum(parameter.numel() for parameter in own.parameters())
    older = replace(phase(genotypes).phase, sampling="size")
    counts_itself = evaluator._sampler(older)
    monkeypatch.setattr(Nao, "build", None)
    told = config.make_evaluator()._sampler(replace(older, num_params=sizes))
    assert told._cumulative.tolist() == counts_itself._cumulative.tolist()
    assert len(set(sizes)) > 1


def test_a_search_by_size_is_told_sizes_by_its_evaluator(config):
    settings = {"name": "nao_shared", "preset": "nao_v2", "rounds": 1, "epochs": 1, "pool": 3}
    given = RunConfig.model_validate(config.model_dump() | {"strategy": settings})
    (proposal,) = given.make_strategy().ask(10)
    space, evaluator = given.make_space(), given.make_evaluator()
    assert proposal.phase.num_params == tuple(evaluator.num_params(space.parse(t)) for t in proposal.phase.genotypes)


def test_a_phase_of_another_kind_is_refused(layers, layered, shelf):
    proposal = phase(layered, 0, 1)
    failed = work(Desk(layers.make_evaluator(), shelf), replace(proposal, phase=replace(proposal.phase, kind="alphas")))
    assert failed.message.startswith("ConfigError: phase v1: one_shot trains paths, not alphas")


def test_together_is_one_by_one_and_a_version_is_told_from_another(layers, layered, shelf):
    evaluator = layers.make_evaluator()
    desk = Desk(evaluator, shelf)
    work(desk, phase(layered, 0, 1))
    work(desk, phase(layered, 1, 2, source="v1"))
    first = [work(desk, scored(genotype, "v1")).valid_loss for genotype in layered]
    second = [work(desk, scored(genotype, "v2")).valid_loss for genotype in layered]
    assert first != second
    together = evaluator.evaluate_together([scored(genotype, "v2") for genotype in layered])
    assert [score.valid_loss for score in together] == pytest.approx(second, rel=1e-5)


def test_a_score_is_taken_on_the_batches_of_the_config_or_on_the_share_the_proposal_names(layered, shelf):
    evaluator = RunConfig.parse(LAYERS.replace("period: 4", "period: 4\n  batch: 4")).make_evaluator()
    desk = Desk(evaluator, shelf)
    work(desk, phase(layered, 0, 1))
    whole = len(evaluator.task.load()[1])
    assert whole == 16

    def accuracy(share):
        fidelity = Fidelity(weights_version="v1", valid_share=share)
        found = [work(desk, Proposal(genotype=each, fidelity=fidelity)) for each in layered]
        return [each.valid_accuracy for each in found], [each.valid_loss for each in found]

    assert all(value * 4 == round(value * 4) for value in accuracy(None)[0]), "four images"
    assert accuracy(None) == accuracy(0.25)
    assert accuracy(1.0)[1] != accuracy(None)[1]
    graphs, order = [evaluator.space.lower(each) for each in layered], rng.torch_generator(0, "one-shot validation")
    everything = evaluator._objective().compare(evaluator._scorer, graphs, order, batch=4, count=whole)
    assert accuracy(1.0)[0] == [score.value for score in everything]


def test_what_batch_norm_goes_by_is_a_setting_and_a_batch_changes_nothing_but_its_own_statistics(layered, shelf):
    def losses(settings):
        desk = Desk(RunConfig.parse(LAYERS.replace("period: 4", f"period: 4\n  {settings}")).make_evaluator(), shelf)
        work(desk, phase(layered, 0, 1))
        return [work(desk, scored(genotype, "v1")).valid_loss for genotype in layered]

    found = {
        settings: (losses(f"{settings}\n  batch: 16"), losses(f"{settings}\n  batch: 4\n  batches: 4"))
        for settings in ("norm: batch", "norm: path", "norm: path\n  norm_examples: 8", "norm: running")
    }
    assert losses("batch: 16") == found["norm: batch"][0], "the default"
    assert len({tuple(whole) for whole, _ in found.values()}) == len(found)
    for settings, (whole, parts) in found.items():
        assert (parts != pytest.approx(whole, rel=1e-4)) == (settings == "norm: batch")


def test_networks_of_texts_are_asked_for_no_statistics():
    text = "name: x\nspace: nao_rnn\ntask: {name: pydoc_topics}\nevaluator: {name: one_shot, norm: path}\n"
    with pytest.raises(ConfigError, match="norm: networks of texts have no batch norm"):
        RunConfig.parse(text + "strategy: shared_random_search\nbudget: {trials: 3}\n")


def test_the_data_are_read_and_moved_once_for_shared_weights_and_for_networks_alone(layered, shelf, monkeypatch):
    evaluator = RunConfig.parse(LAYERS.replace("alone: {", "alone: {data_share: 0.5, ")).make_evaluator()
    reads, load = [], type(evaluator.task).load
    monkeypatch.setattr(type(evaluator.task), "load", lambda task: reads.append(1) or load(task))
    evaluator.prepare()
    desk = Desk(evaluator, shelf)
    work(desk, phase(layered, 0, 1))
    work(desk, scored(layered[0], "v1"))
    evaluator.evaluate(Proposal(genotype=layered[0], seed=1))
    assert len(reads) == 1
    shared, alone = evaluator._objective(), evaluator._alone._training.objective(0.5)
    assert (shared.num_train, alone.num_train) == (144, 72)
    assert shared.train.images.data_ptr() == alone.train.images.data_ptr()


def test_without_a_version_a_network_is_trained_on_its_own(config, genotypes):
    measurement = config.make_evaluator().evaluate(Proposal(genotype=genotypes[0], seed=1))
    assert measurement.num_params
    assert measurement.valid_accuracy is not None


def test_genotypes_of_another_space_are_failures(config, genotypes, trained, shelf):
    desk = Desk(config.make_evaluator(), shelf)
    shelf["v1"] = trained
    stranger = Genotype("nao_cnn", genotypes[0].key)
    failed = work(desk, phase([stranger], 1, 2, source="v1"))
    assert failed.message.startswith(
        "GenotypeError: phase v2: genotypes of space nao_cnn given to the supernet of nao_cnn_small"
    )
    failed = work(desk, scored(stranger, "v1"))
    assert failed.message.startswith("GenotypeError: genotype of space nao_cnn given to space nao_cnn_small")
    failed = work(desk, phase([Genotype("nao_cnn_small", "1 2 3")], 1, 2, source="v1"))
    assert failed.message.startswith("GenotypeError: ")
    assert "v2" not in shelf


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("channels: 4\n", "channels: 6\n", "nao_cnn_small, N = 1, F = 6"),
        ("cells_per_stage: 1\n", "cells_per_stage: 2\n", "nao_cnn_small, N = 2, F = 4"),
        ("space: nao_cnn_small", "space: nao_cnn_middle", "nao_cnn_middle, N = 1, F = 4"),
    ],
)
def test_weights_of_another_supernet_end_the_search_and_fail_no_trial(trained, shelf, old, new, size):
    shelf["v1"] = trained
    other = RunConfig.parse(CONFIG.replace(old, new, 1))
    mine = [other.make_space().sample(np.random.default_rng(0))]
    desk = Desk(other.make_evaluator(), shelf)
    for proposal in (scored(mine[0], "v1"), phase(mine, 1, 2, source="v1")):
        with pytest.raises(PoolError, match=rf"weights v1 are not of this supernet \({size}\): .* put the right file"):
            desk.work(proposal)


def test_weights_that_were_trained_for_longer_or_not_at_all_are_refused(layers, layered, shelf):
    desk = Desk(layers.make_evaluator(), shelf)
    work(desk, phase(layered, 0, 1))
    with pytest.raises(PoolError, match="weights v1 have had 1 epochs, expected 2; put the right file back"):
        desk.work(phase(layered, 2, 3, source="v1"))
    shelf["v1"] = shelf["v1"][:-8]
    with pytest.raises(PoolError, match="not a whole safetensors file"):
        desk.work(phase(layered, 1, 2, source="v1"))


def test_a_space_without_a_supernet_is_refused(monkeypatch):
    monkeypatch.setattr(Darts, "shared", None)
    config = CONFIG.replace("nao_cnn_small", "darts_cnn").replace("cells_per_stage: 1", "layers: 3")
    with pytest.raises(ConfigError, match="no shared supernet"):
        RunConfig.parse(config).make_evaluator()
