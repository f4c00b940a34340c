"""Components by file name."""

import inspect

import pytest

from nao_ray import registry
from nao_ray.errors import ConfigError

KINDS = ("space", "task", "evaluator", "strategy", "logger")


def test_what_the_first_release_has():
    assert {"nao_cnn", "nao_cnn_small", "nao_cnn_middle"} <= set(registry.names("space"))
    assert {"digits", "cifar10", "cifar100", "fashion_mnist", "image_table"} <= set(registry.names("task"))
    assert {"standalone"} <= set(registry.names("evaluator"))
    assert {"nao", "random_search", "regularized_evolution"} <= set(registry.names("strategy"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_loads_and_has_a_docstring_and_a_config(kind):
    for name in registry.names(kind):
        component = registry.load(kind, name)
        assert not inspect.isabstract(component)
        assert component.__doc__
        assert not name.startswith("_")
        assert component.Config.model_config["extra"] == "forbid"
        assert component.Config.model_config["frozen"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_refused_with_the_known_ones(kind):
    with pytest.raises(ConfigError, match=f"no {kind} is named 'nonsense'") as caught:
        registry.load(kind, "nonsense")
    assert all(name in str(caught.value) for name in registry.names(kind))


def test_a_close_name_is_suggested():
    with pytest.raises(ConfigError, match=r"did you mean random_search\?"):
        registry.load("strategy", "random-search")


@pytest.mark.parametrize("name", ["base", "parts", "parts.cnn_cell", "../errors", ""])
def test_what_is_no_component_is_not_loaded(name):
    with pytest.raises(ConfigError):
        registry.load("space", name)
