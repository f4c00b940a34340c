"""Where the measured tables are."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """``$NAO_RAY_DATA``, or the folder `shared/data` beside the checkout."""
    return Path(os.environ.get("NAO_RAY_DATA", Path(__file__).parents[3] / "shared" / "data"))
