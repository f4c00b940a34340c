"""The cells of `nao_cnn` in the network of NAO's TensorFlow code, see `networks/nao_tf.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.spaces.nao_cnn import NaoCnn


class NaoCnnTf(NaoCnn):
    """Convolutions 1x1, 3x3, 1x3+3x1, 1x7+7x1, max and average pools 2, 3, 5, identity; no pool counts its padding."""

    name: ClassVar[str] = "nao_cnn_tf"
    skeleton: ClassVar[str] = "nao_tf"
    published: ClassVar[Mapping[str, str]] = {"NAONet-TF": NaoCnn.published["NAONet-A-TF"]}
