"""Where configs are: files of the user's, and presets by name."""

from __future__ import annotations

from pathlib import Path

from nao_ray.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"


def find_config(name: str) -> Path:
    """The file of a config: a path, or the name of a preset.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    presets = {preset.stem: preset for preset in sorted(PRESETS.glob("*.yaml"))}
    if name in presets:
        return presets[name]
    raise ConfigError(f"no config file {name}, and no preset of that name; presets: {', '.join(presets)}")
