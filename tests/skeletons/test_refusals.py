"""Networks that do not exist are refused before anything starts, in one line."""

import pytest

from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.service.hosting.checks import check_search
from nao_ray.skeletons.darts import Darts
from nao_ray.spaces.darts_cnn import DartsCnn
from nao_ray.tasks.base import Facts

STANDALONE = {"evaluator": {"name": "standalone"}, "strategy": "random_search"}
ONE_SHOT = {"evaluator": {"name": "one_shot"}, "strategy": "shared_random_search"}
DARTS = {"strategy": "darts"}
FOLDER = {"name": "image_folder", "path": "nowhere"}


def config(space, task, how):
    return RunConfig.model_validate({"name": "x", "space": space, "task": task, "budget": {"trials": 1}, **how})


@pytest.mark.parametrize(
    ("space", "task", "how", "message"),
    [
        (
            "enas_micro",
            {**FOLDER, "network": "imagenet"},
            STANDALONE,
            "enas_micro has no network imagenet; choose one of",
        ),
        ("enas_macro", {**FOLDER, "image_shape": [3, 224, 224]}, ONE_SHOT, "enas_macro has no network imagenet"),
        ("nao_cnn", "made_up_text", STANDALONE, "nao makes networks for images, and the task has none"),
        ("darts_rnn", "synthetic", {**DARTS, "evaluator": "darts"}, "recurrent makes networks for text, and the task"),
        (
            "darts_rnn",
            "made_up_text",
            {**DARTS, "evaluator": {"name": "darts", "recipe": "darts_search"}},
            "a network of recurrent is trained by a recipe of texts, and darts_search is none",
        ),
        (
            "darts_rnn",
            "made_up_text",
            {**DARTS, "evaluator": {"name": "darts", "partial_channels": 4}},
            "partial_channels 4: the relaxed supernet of recurrent mixes all channels",
        ),
    ],
)
def test_a_search_for_networks_that_do_not_exist(space, task, how, message):
    with pytest.raises(ConfigError, match=f"^{message}[^\n]*$"):
        config(space, task, how)


def test_a_search_with_shared_weights_that_do_not_exist(monkeypatch):
    monkeypatch.setattr(Darts, "shared", None)
    with pytest.raises(ConfigError, match=r"^space darts_cnn has no shared supernet; spaces of[^\n]*$"):
        config("darts_cnn", "synthetic", ONE_SHOT)


def test_a_space_without_networks(monkeypatch):
    monkeypatch.setattr(DartsCnn, "skeleton", "")
    with pytest.raises(ConfigError, match=r"^space darts_cnn has no network yet; spaces of the skeletons darts, .*$"):
        config("darts_cnn", "synthetic", STANDALONE)
    what = {"space": {"name": "darts_cnn"}, "genotype": "DARTS_V2", "task": {"name": "synthetic"}}
    with pytest.raises(ConfigError, match=r"^space darts_cnn has no network yet[^\n]*$"):
        TrainConfig.make("short", what)


def test_where_the_data_tell_the_network_it_is_refused_once_they_are_read(tmp_path, monkeypatch):
    """Before the pool is made: nothing has started."""
    search = config("enas_micro", {**FOLDER, "path": str(tmp_path)}, STANDALONE)
    with pytest.raises(DataError):
        check_search(search, str(tmp_path / "pool"))
    task = type(search.make_task())
    monkeypatch.setattr(task, "facts", lambda self: Facts("0" * 64, "pictures"))
    monkeypatch.setattr(task, "data_hash", lambda self: "0" * 64)
    monkeypatch.setattr(task, "num_classes", 5)
    monkeypatch.setattr(task, "image_shape", (3, 224, 224))
    with pytest.raises(ConfigError, match=r"^enas_micro has no network imagenet"):
        check_search(search, str(tmp_path / "pool"))
    assert not (tmp_path / "pool").exists()
