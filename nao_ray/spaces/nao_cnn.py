"""The space of NAO's search without weight sharing: 11 operations (arXiv 1808.07233; ids 5-15 of NAO_pytorch V1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.parts.cnn_cell import CELL_INPUTS, NODES, CnnCellSpace

_TF_OPS = (  # the TensorFlow code's names, in the order of `NaoCnn.ops`
    "identity",
    "conv 1x1",
    "conv 3x3",
    "conv 1x3+3x1",
    "conv 1x7+7x1",
    "max_pool 2x2",
    "max_pool 3x3",
    "max_pool 5x5",
    "avg_pool 2x2",
    "avg_pool 3x3",
    "avg_pool 5x5",
)


class NaoCnn(CnnCellSpace):
    """Convolutions 1x1, 3x3, 1x3+3x1, 1x7+7x1, max and average pools 2, 3, 5, and identity.

    Average pools count the padding, as the published networks do (option of `build_network`).
    """

    name: ClassVar[str] = "nao_cnn"
    ops: ClassVar[tuple[str, ...]] = (
        "identity",
        "conv_1x1",
        "conv_3x3",
        "conv_1x3_3x1",
        "conv_1x7_7x1",
        "max_pool_2x2",
        "max_pool_3x3",
        "max_pool_5x5",
        "avg_pool_2x2_padded",
        "avg_pool_3x3_padded",
        "avg_pool_5x5_padded",
    )
    dialects: ClassVar[tuple[str, ...]] = ("v1", "v2", "tf_dag", "tokens")
    id_offset: ClassVar[Mapping[str, int]] = {"v1": 5, "v2": 0}
    # The two sources of NAONet-A differ in the reduction cell's third node: the PyTorch string reads conv 1x7+7x1 from
    # state 0 and the 2x2 max pool from state 1, the TensorFlow graph the other way round. Same counts, other function.
    published: ClassVar[Mapping[str, str]] = {
        "NAONet-A": "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 0 7 1 13 0 6 0 14 0 9 1 10 0 14 2 6 1 11 0 7",
        "NAONet-A-TF": "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 0 7 1 13 0 6 0 14 1 9 0 10 0 14 2 6 1 11 0 7",
    }

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect != "tf_dag":
            return super().read(text, dialect)
        numbers: list[int] = []
        try:  # node -> [name, input1, input2, op1, op2]; nodes 1 and 2 are the cell's inputs
            dags = json.loads(text)
            for key in ("conv_dag", "reduc_dag"):
                for node in range(1 + CELL_INPUTS, 1 + CELL_INPUTS + NODES):
                    _, source_x, source_y, op_x, op_y = dags[key][f"node_{node}"]
                    for source, op in ((source_x, op_x), (source_y, op_y)):
                        numbers += [int(source.removeprefix("node_")) - 1, _TF_OPS.index(op)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GenotypeError(f"space {self.name}: cannot read the TensorFlow DAG: {error!r}") from None
        return super().read(" ".join(map(str, numbers)), "v2")
