"""An encoder and decoder that know their space before the first score arrives.

No labels are needed: the decoder learns to reconstruct random genotypes, and a readout of the embedding learns what
every arch graph says for free (`descriptors`). What scores later teach is then a function of few, meaningful numbers.
Pretraining without labels is known to help predictors of architectures: Yan, Zheng, Ao, Zeng, Zhang, "Does
Unsupervised Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020, arXiv 2006.06936.

Legend: `N` genotypes, `B` batch, `L` tokens per genotype, `H` hidden, `D` inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray import optimisers, rng
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.inputs import VIEWS, Inputs, ViewName
from nao_ray.controllers.kernels import median_distance
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.settings import Settings
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens

_KEPT = 8


class PretrainingConfig(Settings):
    """How long, and on what."""

    genotypes: int = Field(default=1000, ge=2)
    """Random genotypes; none of them is ever scored, nor proposed for being among them."""
    steps: int = Field(default=600, ge=1)
    batch: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)


class Readout(nn.Module):
    """``[B, H]`` -> ``[B, D]``: inputs of an embedding."""

    def __init__(self, hidden: int, num_descriptors: int, num_inputs: int) -> None:
        super().__init__()
        self._num_descriptors = num_descriptors
        width = 2 * hidden
        self.described = nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, num_descriptors))
        self.others = nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, num_inputs - num_descriptors))

    def forward(self, point: Tensor) -> Tensor:
        return torch.cat([self.described(point), self.others(point)], dim=1)

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D]`` -> the descriptors, and the others."""
        return inputs[:, : self._num_descriptors], inputs[:, self._num_descriptors :]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What is known of a space before any score."""

    epd: Epd
    """Encoder and decoder; its predictor is untrained."""
    readout: Readout
    inputs: Inputs
    """Descriptors and whatever else a process may look at."""
    embedding_unit: float
    """Median distance between their embeddings."""

    def features(self, space: SearchSpace[Any], tokens: Tokens) -> Tensor:
        """``[N, L]`` -> ``[N, D]``: the inputs themselves."""
        return self.inputs([space.decode(row) for row in tokens])


@dataclass(frozen=True, slots=True)
class _Draw:
    """Random genotypes of a space: two equal ones of spaces of one class and config are one."""

    kind: type[SearchSpace[Any]]
    config: str
    texts: tuple[str, ...]
    space: SearchSpace[Any] = field(compare=False)
    genotypes: Sequence[Genotype] = field(compare=False)
    generator: np.random.Generator = field(compare=False)
    """As it is after the draw."""


def pretrain(
    space: SearchSpace[Any],
    epd_config: EpdConfig,
    config: PretrainingConfig,
    seed: int,
    views: Sequence[ViewName] = VIEWS,
) -> Pretrained:
    """Encoder, decoder and readout of a space: a function of the arguments alone, bit for bit on a CPU.

    So the last few are kept, for searches that one process makes one after the other; they are not to be changed.
    """
    generator = rng.child(seed, "pretraining")
    genotypes = [space.sample(generator) for _ in range(config.genotypes)]
    texts = tuple(genotype.key for genotype in genotypes)
    draw = _Draw(type(space), space.config.model_dump_json(), texts, space, genotypes, generator)
    return _pretrained(draw, epd_config, config, seed, tuple(views))


@lru_cache(maxsize=_KEPT)
def _pretrained(
    draw: _Draw, epd_config: EpdConfig, config: PretrainingConfig, seed: int, views: tuple[ViewName, ...]
) -> Pretrained:
    space, genotypes, generator = draw.space, draw.genotypes, draw.generator
    tokens = np.stack([space.encode(genotype) for genotype in genotypes])
    inputs = Inputs(space, genotypes, views)
    targets = inputs(genotypes).float()
    with one_thread(), rng.torch_seeded(seed, "pretraining weights"):
        epd = Epd(epd_config, space.vocabulary, space.length, space.tokens_per_step)
        readout = Readout(epd_config.hidden, len(inputs.descriptors), len(inputs))
        parameters = [*epd.encoder.parameters(), *epd.decoder.parameters(), *readout.parameters()]
        optimiser = optimisers.Adam(parameters, lr=config.learning_rate, foreach=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
        scale, scale_of_others = (part.var(dim=0).mean().clamp_min(1e-12) for part in readout.parts(targets))
        for _ in range(config.steps):
            rows = generator.integers(0, len(tokens), size=config.batch)
            shown = torch.from_numpy(space.twins(tokens[rows], generator))
            memory = epd.encode(shown)
            point = epd.embed(memory)
            reconstruction = F.cross_entropy(epd.decoder.teach(memory, point, shown).flatten(0, 1), shown.flatten())
            described, others = readout.parts(targets[torch.from_numpy(rows)])
            description = F.mse_loss(readout.described(point), described) / scale
            # what is not a descriptor is read off as well as it can be, and does not shape the embedding
            description += F.mse_loss(readout.others(point.detach()), others) / scale_of_others
            optimiser.zero_grad()
            (reconstruction + description).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        epd.eval()
        with torch.no_grad():
            spread = median_distance(epd.embed(epd.encode(torch.from_numpy(tokens[:500]))))
    return Pretrained(epd, readout.eval(), inputs, spread)
