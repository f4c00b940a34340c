"""Every space without an operation, and favouring one."""

from __future__ import annotations

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.config import RunConfig
from nao_ray.config_components import make_space
from nao_ray.errors import ConfigError, GenotypeError

OPS = {  # one to leave out, one to favour
    "nao_cnn": ("max_pool_5x5", "conv_3x3"),
    "nao_cnn_small": ("max_pool_3x3", "sep_conv_3x3"),
    "nao_cnn_middle": ("max_pool_3x3", "sep_conv_3x3"),
    "enas_micro": ("max_pool_3x3", "sep_conv_3x3"),
    "enas_macro": ("max_pool_3x3", "conv_3x3"),
    "darts_cnn": ("max_pool_3x3", "sep_conv_3x3"),
    "nao_rnn": ("sigmoid", "tanh"),
    "enas_rnn": ("sigmoid", "tanh"),
    "darts_rnn": ("sigmoid", "tanh"),
    "nas_bench_201": ("none", "nor_conv_3x3"),
}


def ops(space, genotype):
    found = [op for cell in space.ops_by_cell(genotype).values() for op in cell]
    return [space.op_names.get(op, op) for op in found]


@pytest.mark.parametrize("name", sorted(set(registry.names("space")) - {"nao_cnn_tf"}))
def test_a_space_without_an_operation_and_favouring_another(name):
    out, more = OPS[name]
    space = make_space({"name": name, "ops": {"without": [out], "favour": {more: 4}}})
    generator = rng.child(0, "prefers")
    drawn = [space.sample(generator) for _ in range(40)]
    mutant = drawn[0]
    for _ in range(40):
        mutant = space.mutate(mutant, generator)
        drawn.append(mutant)
    counts = [op for genotype in drawn for op in ops(space, genotype)]
    free = registry.load("space", name)()
    plain = [op for index in range(40) for op in ops(free, free.sample(rng.child(1, "free", index)))]
    assert counts.count(out) == 0 < plain.count(out)
    assert counts.count(more) / len(counts) > 1.5 * plain.count(more) / len(plain)
    for genotype in drawn[:10]:
        assert space.parse(genotype.key) == genotype == space.canonical(genotype)
        tokens = space.encode(genotype)
        assert space.token_mask[np.arange(space.length), tokens].all()


def test_a_published_cell_with_what_is_excluded_is_refused_by_name():
    space = make_space({"name": "darts_cnn", "ops": {"without": ["max_pool_3x3"]}})
    with pytest.raises(GenotypeError, match=r"has max_pool_3x3, which space\.ops\.without excludes"):
        space.parse("DARTS_V2")


def test_a_pool_has_what_is_preferred():
    text = """
name: preferring
space: {name: nao_cnn_small, ops: {without: [max_pool_3x3], favour: {sep_conv_3x3: 2}}}
task: {name: digits, limit: 200}
evaluator: standalone
strategy: random_search
budget: {trials: 6}
"""
    config = RunConfig.parse(text)
    assert config.to_data()["space"]["ops"] == {"without": ["max_pool_3x3"], "favour": {"sep_conv_3x3": 2.0}}
    assert RunConfig.parse(config.to_yaml()).to_data() == config.to_data()
    strategy = config.make_strategy()
    assert all("max_pool_3x3" not in ops(strategy.space, proposal.genotype) for proposal in strategy.ask(20))
    text = text.replace("standalone", "darts").replace("random_search", "darts").replace("nao_cnn_small", "darts_cnn")
    with pytest.raises(ConfigError, match=r"space\.ops: darts weighs all operations"):
        RunConfig.parse(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"without": ["conv_9x9"]}, "nao_cnn_small has no operation 'conv_9x9'; it has "),
        ({"favour": {"sep_conv_3x3": 0}}, "the weight of sep_conv_3x3 must be over 0"),
        ({"only": ["sep_conv_3x3"]}, r"unknown key space\.ops\.only"),
        (
            {"without": list(registry.load("space", "nao_cnn_small").ops)},
            "is left to choose",
        ),
    ],
)
def test_what_cannot_be_preferred_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        make_space({"name": "nao_cnn_small", "ops": given})
