"""A tiny training of alphas and weights in turn."""

import torch

from nao_ray import rng
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.alternating import Alternating
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import ByStep

CPU = torch.device("cpu")
ORDERS = ("first", "second", "exact")


def cut_halves(limit=80):
    """Of batches of 8; 80 are five steps an epoch, 50 are three, the last one of half a batch."""
    recipe = Recipe(name="darts_search", batch=8, cosine_epochs=4)
    whole = Synthetic(SyntheticConfig(limit=limit)).objective(CPU, recipe)
    return whole.cut(rng.torch_generator(0, "halves"))


def trainer(halves, order="second", seed=3, objective=None, primitives=PRIMITIVES, **settings):
    names = [LOWERED[name] for name in primitives]
    with rng.torch_seeded(seed, "weights"):
        network = RelaxedSupernet(names, SEARCH_OPS, layers=1, channels=2, in_channels=halves[0].train.images.shape[1])
    generator = rng.torch_generator(seed, "alphas")
    alphas = [1e-3 * torch.randn(14, len(names), generator=generator) for _ in range(2)]
    return Alternating(
        network,
        objective or halves[0],
        halves[1],
        alphas,
        order=order,
        optimiser=AlphaOptimiser(**settings),
        streams=ByStep(seed, CPU),
        alpha_streams=ByStep(seed + 1, CPU),
    )


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def same(left, right):
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]
