"""The tiny relaxed supernet whose logits and gradients are recorded, and what fills it."""

import json
from pathlib import Path

import torch

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "darts.json").read_text())
PUBLISHED = GOLDEN["parameter_counts"]["search_supernet_C16_L8"]
TINY = GOLDEN["numerical_goldens"]["supernet_C4_L3"]


def numbers(count, shift=0):
    """``[count]``, in [-0.5, 0.5): the rule that every tensor is filled by."""
    values = [((k + 1 + shift) * 2654435761 % 2**32) / 2**32 - 0.5 for k in range(count)]
    return torch.tensor(values, dtype=torch.float64)


def fill(network):
    """Weights by their shape alone; biases 0, batch norms as new."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() >= 2:
                fan_in = parameter.numel() // parameter.shape[0]
                values = 2 * (3 / fan_in) ** 0.5 * numbers(parameter.numel())
                parameter.copy_(values.view(parameter.shape))
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1 and name.endswith("bias"):
                parameter.zero_()
    return network


def alphas():
    """Of the normal and of the reduction cell, ``[14, 8]``."""
    return [numbers(112).view(14, 8), numbers(112, 1000).view(14, 8)]


def batch(shift, labels):
    return 4 * numbers(4 * 3 * SIDE * SIDE, shift).view(4, 3, SIDE, SIDE), torch.tensor(labels)


SIDE = 32


def train_batch():
    return batch(0, [3, 7, 0, 5])


def valid_batch():
    return batch(5000, [1, 2, 9, 4])
