"""Operations that networks are made of, by name: a space that chooses of others is refused when it is made.

`networks/ops.py` builds them; names stand here too, since spaces work without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nao_ray import own_modules
from nao_ray.errors import ConfigError
from nao_ray.spaces.base import SearchSpace

OPERATIONS = (
    "zero",
    "identity",
    *(f"conv_{k}x{k}" for k in (1, 3)),
    *(f"conv_1x{k}_{k}x1" for k in (3, 7)),
    "conv_7x1_1x7",
    *(f"sep_conv_{k}x{k}" for k in (3, 5, 7)),
    *(f"dil_sep_conv_{k}x{k}" for k in (3, 5, 7)),
    *(f"max_pool_{k}x{k}" for k in (2, 3, 5)),
    *(f"avg_pool_{k}x{k}" for k in (2, 3, 5)),
    *(f"avg_pool_{k}x{k}_padded" for k in (2, 3, 5)),
)
"""Of cells for images."""


def check_operations(
    space: SearchSpace[Any], given: Sequence[str], known: Sequence[str] = OPERATIONS, what: str = "ops"
) -> None:
    """Refuse a space whose networks could not be built; of a skeleton of the user's own anything can be.

    Args:
        space: begins the message.
        given: what it chooses of.
        known: what its skeleton can build, beside operations of the user's own.
        what: the name of `given`.

    Raises:
        ConfigError: one is unknown or given twice, or there is none.
    """
    if own_modules.is_own(space.skeleton):
        return
    unknown = [name for name in given if name not in known and not own_modules.is_own(str(name))]
    if unknown or len(set(given)) < max(len(given), 1):
        fault = f"no {unknown[0]!r} is known" if unknown else "each has to be given once"
        raise ConfigError(f"space {space.name}: {what} ({', '.join(map(str, given))}): {fault}, choose of "
                          f"{', '.join(known)}")  # fmt: skip
