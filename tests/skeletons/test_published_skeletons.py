"""Which skeleton makes a space's networks, with which settings, and what is refused of them."""

import pytest

import nao_ray
from nao_ray import registry
from nao_ray.errors import ConfigError
from nao_ray.skeletons.base import skeleton_of, with_settings
from nao_ray.skeletons.darts import Darts, DartsSize
from nao_ray.skeletons.enas_macro import EnasMacro
from nao_ray.skeletons.images.base import StackSize, image_shapes
from nao_ray.skeletons.nao import Nao, NaoConfig

SPACE = registry.load("space", "nao_cnn_small")()
DARTS = registry.load("space", "darts_cnn")()


def test_counts_of_a_published_network():
    graph = SPACE.lower(SPACE.parse("NAONet-B"))
    assert (
        Nao().count(graph, image_shapes("cifar10"), StackSize(cells_per_stage=6, channels=36)).num_params == 2_921_302
    )


def test_a_skeleton_is_what_its_settings_are():
    assert Nao() == Nao(NaoConfig())
    assert len({Nao(), Nao(NaoConfig()), Nao(NaoConfig(count_padding=False)), EnasMacro()}) == 3


def test_settings_by_name_go_where_they_belong():
    skeleton, size = with_settings(SPACE, {"channels": 8, "relu_before_head": True, "cells_per_stage": None})
    assert (skeleton, size) == (Nao(NaoConfig(relu_before_head=True)), StackSize(channels=8))
    with pytest.raises(ConfigError, match=r"unknown key relu_before_heads; did you mean relu_before_head?"):
        with_settings(SPACE, {"relu_before_heads": True})
    with pytest.raises(ConfigError, match=r"channels: .*integer.*, got 'many'"):
        nao_ray.build_network("NAONet-B", space="nao_cnn_small", channels="many")


def test_a_space_without_networks(monkeypatch):
    space = registry.load("space", "darts_cnn")()
    monkeypatch.setattr(Darts, "shared", None)
    with pytest.raises(
        ConfigError, match=r"^space darts_cnn has no shared supernet; .* enas_.*, nas_bench_201, recurrent have one$"
    ):
        skeleton_of(space, shared=True)
    monkeypatch.setattr(type(space), "skeleton", "")
    with pytest.raises(ConfigError, match=r"^space darts_cnn has no network yet; spaces of the skeletons darts, e"):
        skeleton_of(space)


def test_published_networks_of_darts():
    network = nao_ray.build_network("DARTS_V2", space="darts_cnn", network="cifar10", layers=20, channels=36)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_349_342
    graph = DARTS.lower(DARTS.parse("NASNet"))
    assert Darts().sized(graph, image_shapes("imagenet")) == DartsSize(layers=14, channels=48)
    with pytest.raises(ConfigError, match=r"^unknown key cells_per_stage; known: layers, channels$"):
        nao_ray.build_network("DARTS_V2", space="darts_cnn", cells_per_stage=6)
    with pytest.raises(ConfigError, match=r"^channels: .*multiple of 2, got 5$"):
        nao_ray.build_network("DARTS_V2", space="darts_cnn", channels=5)
