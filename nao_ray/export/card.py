"""The card of a network, as Markdown: what it is, how good, what it costs, where it is from, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nao_ray import yaml_text
from nao_ray.export.taken import Taken
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.skeletons.base import skeleton_of


def picture(taken: Taken) -> str:
    """The cells, as SVG text."""
    return draw_cells(taken.graph, taken.name, taken.space.op_names)


def card(taken: Taken, picture_file: str, loading: Sequence[str]) -> str:
    """The card.

    Args:
        taken: the network.
        picture_file: name of the file with `picture`, beside the card.
        loading: lines that say how it is loaded; code as Markdown has it.
    """
    counts = skeleton_of(taken.space).count(taken.graph, taken.shapes, taken.size)
    what = {
        **taken.scores,
        "space": taken.space.name,
        "network": f"{taken.shapes.recorded['network']}, {taken.size}, {taken.shapes.told}",
        "parameters": f"{counts.num_params:,}{_auxiliary(taken)}",
        "multiply-adds": f"{counts.macs:,} per {taken.shapes.example}",
        **taken.facts,
    }
    if not taken.is_trained:
        what["weights"] = "fresh: it has not been trained"
    if taken.by_image:
        what["input"] = _seen(taken) + "each image less its own mean, over its own deviation, over all its pixels"
    elif taken.normaliser is not None:
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in taken.normaliser)
        what["input"] = f"{_seen(taken)}pixels / 255, less the mean ({mean}), over the deviation ({std}), by channel"
    parts = [f"# {taken.name}", f"![cells]({picture_file})", _table(what), *_notations(taken)]
    if taken.recipe is not None:
        parts += ["## Recipe", f"```yaml\n{yaml_text.dump(taken.recipe.model_dump(mode='json'))}```"]
    if loading:
        parts += ["## Load it", *loading]
    return "\n\n".join(parts) + "\n"


def _seen(taken: Taken) -> str:
    """Which part of a picture, where that is not all of it."""
    if taken.centre is None:
        return ""
    height, width = taken.example.shape[-2:]
    return f"the largest centre of a picture, {taken.centre:.4g} of its sides, resized to {height}x{width}; "


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _notations(taken: Taken) -> list[str]:
    """The genotype in its own notation and in those of other code, to be copied."""
    texts = [taken.genotype.key, *taken.space.notations(taken.genotype).values()]
    return ["## Genotype", *(f"```text\n{text}\n```" for text in texts)]


def _auxiliary(taken: Taken) -> str:
    numbers = [p.numel() for name, p in taken.network.named_parameters() if name.startswith("auxiliary.")]
    return f" (auxiliary head {sum(numbers):,} more)" if numbers else ""
