"""Parameters and multiply-adds of a network, without computing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Counts:
    """Size of a network."""

    num_params: int
    """Trainable numbers without the auxiliary head."""
    num_params_auxiliary: int
    """Those of the auxiliary head alone; 0 without one."""
    macs: int
    """Multiply-adds of convolutions and linear layers in one evaluation forward of one image, no auxiliary head."""


def count(network: nn.Module, input_shape: tuple[int, int, int]) -> Counts:
    """Count a network on images of ``(C, H, W)``.

    Shapes alone are propagated (torch's meta device), so neither time nor memory depends on the network's width; the
    network may itself live on the meta device.
    """
    auxiliary = sum(
        parameter.numel() for name, parameter in network.named_parameters() if name.startswith("auxiliary.")
    )
    total = sum(parameter.numel() for parameter in network.parameters())
    return Counts(total - auxiliary, auxiliary, _macs(network, input_shape))


def _macs(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    training = network.training
    counter = _Multiplications()
    network.eval()
    try:
        with torch.no_grad(), counter:
            functional_call(network, shapes, (torch.empty(1, *input_shape, device="meta"),))
    finally:
        network.train(training)
    return counter.macs


class _Multiplications(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply-adds of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        packet = func.overloadpacket
        if packet is aten.convolution:
            weight: Tensor = args[1]
            self.macs += out.numel() * weight[0].numel()
        elif packet in (aten.addmm, aten.mm):
            left: Tensor = args[-2]
            self.macs += out.numel() * left.shape[-1]
        return out
