"""An encoder and decoder that know their space before the first score arrives.

No labels are needed: the decoder learns to reconstruct random genotypes, and a readout of the embedding learns what
every arch graph says for free (`descriptors`). What scores later teach is then a function of few, meaningful numbers.
Pretraining without labels is known to help predictors of architectures: Yan, Zheng, Ao, Zeng, Zhang, "Does
Unsupervised Architecture Representation Learning Help Neural Architecture Search?", NeurIPS 2020, arXiv 2006.06936.

Legend: `N` genotypes, `B` batch, `L` tokens per genotype, `H` hidden, `D` descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray import optimisers, rng
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.descriptors import Descriptors
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.gp import median_distance
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.settings import Settings
from nao_ray.spaces.base import SearchSpace, Tokens


class PretrainingConfig(Settings):
    """How long, and on what."""

    genotypes: int = Field(default=1000, ge=2)
    """Random genotypes; none of them is ever scored, nor proposed for being among them."""
    steps: int = Field(default=600, ge=1)
    batch: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What is known of a space before any score."""

    epd: Epd
    """Encoder and decoder; its predictor is untrained."""
    readout: nn.Module
    """``[B, H]`` -> ``[B, D]`` descriptors of an embedding, in units of `unit`."""
    descriptors: Descriptors
    unit: float
    """Median distance between the descriptors of random genotypes."""
    embedding_unit: float
    """Median distance between their embeddings."""

    def features(self, space: SearchSpace[Any], tokens: Tokens) -> Tensor:
        """``[N, L]`` -> ``[N, D]``: the descriptors themselves, in units of `unit`."""
        genotypes = [space.decode(row) for row in tokens]
        return torch.from_numpy(self.descriptors(genotypes)).double() / self.unit


def pretrain(space: SearchSpace[Any], epd_config: EpdConfig, config: PretrainingConfig, seed: int) -> Pretrained:
    """Encoder, decoder and readout of a space: a function of the arguments alone, bit for bit on a CPU."""
    generator = rng.child(seed, "pretraining")
    genotypes = [space.sample(generator) for _ in range(config.genotypes)]
    tokens = np.stack([space.encode(genotype) for genotype in genotypes])
    descriptors = Descriptors(space, genotypes)
    raw = torch.from_numpy(descriptors(genotypes))
    unit = median_distance(raw[:500])
    targets = raw / unit
    with one_thread(), rng.torch_seeded(seed, "pretraining weights"):
        epd = Epd(epd_config, space.vocabulary, space.length, space.tokens_per_step)
        width = 2 * epd_config.hidden
        readout = nn.Sequential(nn.Linear(epd_config.hidden, width), nn.ReLU(), nn.Linear(width, len(descriptors)))
        parameters = [*epd.encoder.parameters(), *epd.decoder.parameters(), *readout.parameters()]
        optimiser = optimisers.Adam(parameters, lr=config.learning_rate, foreach=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
        scale = targets.var(dim=0).mean().clamp_min(1e-12)
        for _ in range(config.steps):
            rows = generator.integers(0, len(tokens), size=config.batch)
            shown = torch.from_numpy(space.twins(tokens[rows], generator))
            memory = epd.encode(shown)
            point = epd.embed(memory)
            reconstruction = F.cross_entropy(epd.decoder.teach(memory, point, shown).flatten(0, 1), shown.flatten())
            description = F.mse_loss(readout(point), targets[torch.from_numpy(rows)]) / scale
            optimiser.zero_grad()
            (reconstruction + description).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        epd.eval()
        with torch.no_grad():
            spread = median_distance(epd.embed(epd.encode(torch.from_numpy(tokens[:500]))))
    return Pretrained(epd, readout.eval(), descriptors, unit, spread)
