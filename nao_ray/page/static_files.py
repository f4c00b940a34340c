"""The files of the page, as they lie in the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


def static_files(folder: Path = FOLDER) -> dict[str, tuple[str, bytes]]:
    """By name: what a browser is told that it is, and what is in it. Nothing else is ever served as a file."""
    found = sorted(path for path in folder.iterdir() if path.suffix in KINDS and path.is_file())
    return {path.name: (KINDS[path.suffix], path.read_bytes()) for path in found}
