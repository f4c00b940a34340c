"""Parameters and multiply-adds of a network, without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Counts:
    """Size of a network."""

    num_params: int
    """Trainable numbers without the auxiliary head."""
    num_params_auxiliary: int
    """Those of the auxiliary head alone; 0 without one."""
    macs: int
    """Multiply-adds of convolutions and matrix products in one evaluation forward of one example, no auxiliary head."""


def count(network: nn.Module, *inputs: Tensor) -> Counts:
    """Count a network that is called with `inputs`, of which shapes and types alone matter.

    Shapes alone are propagated (torch's meta device), so neither time nor memory depends on the network's width; the
    network may itself live on the meta device.
    """
    auxiliary = sum(
        parameter.numel() for name, parameter in network.named_parameters() if name.startswith("auxiliary.")
    )
    total = sum(parameter.numel() for parameter in network.parameters())
    tensors = (*network.named_parameters(), *network.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors if not tensor.is_meta}
    training = network.training
    counter = FlopCounterMode(display=False)
    network.eval()
    try:
        with torch.no_grad(), counter:
            functional_call(network, shapes, tuple(tensor.to("meta") for tensor in inputs))
    finally:
        network.train(training)
    return Counts(total - auxiliary, auxiliary, counter.get_total_flops() // 2)
