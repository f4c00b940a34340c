"""Settings of `nao` that fits and chooses in milliseconds."""

from typing import Any

QUICK: dict[str, Any] = {
    "pretraining": {"steps": 20, "genotypes": 60},
    "candidates": 40,
    "neighbours": 4,
    "top_k": 4,
    "step_sizes": (1.0, 4.0),
}
ON_GRAPHS: dict[str, Any] = QUICK | {"gp": {"views": ("graph",)}}
"""With one view, whose fits take a quarter of the time."""
