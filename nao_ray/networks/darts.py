"""The networks of DARTS.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055.
"""

from __future__ import annotations

from nao_ray.networks.ops import OpOptions

EVALUATION_OPS = OpOptions(rectify_reduction=True)
SEARCH_OPS = OpOptions(rectify_reduction=True, affine=False, norm_pools=True)
"""Of the supernet."""
