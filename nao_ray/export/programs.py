"""A network as a program of `torch.export`, and as ONNX: for batches of any size, without our layouts or kernels."""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nao_ray.errors import ConfigError
from nao_ray.networks.fast import differentiable_twice

_ONNX = ("onnx", "onnxscript")


def to_torch(network: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """The file of a program (``torch.export.load``).

    Args:
        network: in evaluation mode; called with `inputs`.
        inputs: of a batch of two; its size is free in the program.
    """
    file = io.BytesIO()
    torch.export.save(_program(network, inputs), file)
    return file.getvalue()


def to_onnx(network: nn.Module, inputs: tuple[Tensor, ...], names: tuple[str, ...], results: tuple[str, ...]) -> bytes:
    """The file of an ONNX model, otherwise as `to_torch`.

    Args:
        network: see there.
        inputs: see there.
        names: of the inputs.
        results: names of the outputs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own ways
        program = torch.onnx.export(
            _program(network, inputs), dynamo=True, input_names=names, output_names=results, verbose=False
        )
    assert program is not None
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:  # else a name that torch made up
            first.dim_param = "batch"
    data: bytes = proto.SerializeToString()
    return data


def check_onnx() -> None:
    """Refuse to write ONNX where the packages for it are missing.

    Raises:
        ConfigError: they are.
    """
    if missing := [name for name in _ONNX if find_spec(name) is None]:
        raise ConfigError(
            f"--format onnx needs {' and '.join(missing)}, of the extra nao_ray[export]: pip install {' '.join(_ONNX)}"
        )


def _program(network: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    batch = Dim("batch", min=1)
    shapes: tuple[dict[int, Any], ...] = tuple({0: batch} for _ in inputs)
    with torch.no_grad(), differentiable_twice(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(network.eval(), inputs, dynamic_shapes=shapes)
