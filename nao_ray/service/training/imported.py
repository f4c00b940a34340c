"""The test score of weights that another program has trained: DARTS's published code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nao_ray.config import TrainConfig
from nao_ray.config_components import make_space
from nao_ray.errors import ConfigError
from nao_ray.skeletons.base import skeleton_of

if TYPE_CHECKING:
    from nao_ray.training.objective import Scores

KINDS = ("darts",)
"""Programs whose files are read. NAO_pytorch's names of tensors are not known here."""


def evaluate_imported(
    file: str, what: Mapping[str, Any], overrides: tuple[str, ...] = ()
) -> tuple[TrainConfig, Scores]:
    """The test split under the weights of a file of DARTS's code.

    Args:
        file: its path.
        what: space, genotype and task.
        overrides: of the task's settings and the device.

    Raises:
        InputError: the file is none of DARTS's or of another network, or the data are not there, or others.
    """
    from nao_ray.training.devices import pick_device
    from nao_ray.training.foreign import read, translated

    for text in overrides:
        if not text.strip().startswith(("task.", "device")):
            raise ConfigError(f"--set {text}: of an imported file, only task.* and device may be set")
    saved = read(file)
    space = make_space(what["space"])
    if space.skeleton != saved.skeleton:
        raise ConfigError(f"{file} holds a network of {saved.told}; one of space {space.name} is none of DARTS's")
    sizes = tuple(f"{name}={number}" for name, number in saved.size.items())
    config = TrainConfig.make(saved.recipe, what, (*sizes, *overrides))
    task = config.make_task()
    saved.check(task.name, task.shapes)
    network = skeleton_of(space).build(space.lower(space.parse(config.genotype)), task.shapes, config.size)
    network.load_state_dict(translated(saved, network, config.genotype))
    return config, task.test_scores(network, saved.constants, pick_device(config.device), config.recipe)
