"""What an export writes: the thing itself, and a card, a picture and weights beside it.

All is made before anything is written; the thing itself is written last.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from keyword import iskeyword
from pathlib import Path

import torch
from torch import Tensor, nn

from nao_ray.errors import ConfigError
from nao_ray.export import programs, source
from nao_ray.export.card import card, picture
from nao_ray.export.taken import Taken
from nao_ray.networks.recurrent_network import RecurrentNetwork
from nao_ray.training.checkpoint import pack

SUFFIXES = {"source": ".py", "torch": ".pt2", "onnx": ".onnx", "genotype": ".json", "darts": ".txt"}
"""Formats, and what their files end in."""
_DIALECT = "genotype"
"""What spaces call DARTS's text."""
_WEIGHTS = ".safetensors"


def check_out(out: str, kind: str, *, overwrite: bool) -> Path:
    """The file of an export, of which nothing is there yet.

    Raises:
        ConfigError: it cannot be written there, is there already, or ends in something else; no such format.
    """
    if kind not in SUFFIXES:
        raise ConfigError(f"--format {kind}: choose one of {', '.join(SUFFIXES)}")
    if "://" in out:
        raise ConfigError(f"--out {out}: a file of this machine, to be copied from there")
    path = Path(out).expanduser()
    if path.suffix != SUFFIXES[kind]:
        raise ConfigError(f"--out {out}: a file of --format {kind} ends in {SUFFIXES[kind]}")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--out {out}: {'a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out {out}: {path.parent} may not be written to")
    beside = [path, _beside(path, ".md"), _beside(path, ".svg")]
    if kind == "source":
        beside.append(path.with_suffix(_WEIGHTS))
    if not overwrite and (there := [each for each in beside if each.exists()]):
        raise ConfigError(f"{there[0]} is there already; give another --out, or --overwrite")
    return path


def export(taken: Taken, kind: str, path: Path, tokens: int = 1) -> list[Path]:
    """Write a network, or its genotype, and what stands beside it; returns the files.

    Args:
        taken: what.
        kind: one of `SUFFIXES`.
        path: as `check_out` gave it.
        tokens: of a text, that a program reads at once.

    Raises:
        ConfigError: it has no source, its space no such notation, or a package is missing.
        RunError: what would be written computes something else, or it cannot be written.
    """
    drawn = _beside(path, ".svg")
    text = card(taken, drawn.name, _loading(taken, kind, path, tokens))
    made = {drawn: picture(taken).encode(), _beside(path, ".md"): text.encode(), **_MAKERS[kind](taken, path, tokens)}
    try:
        for file, data in made.items():
            _write(file, data)
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.filename or path} cannot be written: {error.strerror}") from None
    return list(reversed(made))


def _beside(path: Path, suffix: str) -> Path:
    """``model.onnx.md``: so cards of several formats do not meet."""
    return path.with_name(path.name + suffix)


def _write(path: Path, data: bytes) -> None:
    """Whole, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


Files = dict[Path, bytes]


def _source(taken: Taken, path: Path, _: int) -> Files:
    plain = _plain(taken)
    if not taken.is_trained:
        return {path: plain.text.encode()}
    return {path.with_suffix(_WEIGHTS): pack(plain.network.state_dict()), path: plain.text.encode()}


def _plain(taken: Taken) -> source.Plain:
    return source.write_plain(taken.network, taken.example, taken.title, weights=taken.is_trained, extra=taken.extra)


def _evaluated(taken: Taken) -> nn.Module:
    """In plain operations where there are such; the user's own parts are taken as they are."""
    try:
        return _plain(taken).network
    except ConfigError:
        return taken.network.cpu().eval()


def _torch(taken: Taken, path: Path, tokens: int) -> Files:
    return {path: programs.to_torch(_evaluated(taken), _inputs(taken, tokens))}


def _onnx(taken: Taken, path: Path, tokens: int) -> Files:
    programs.check_onnx()
    return {path: programs.to_onnx(_evaluated(taken), _inputs(taken, tokens), *_names(taken))}


def _inputs(taken: Taken, tokens: int) -> tuple[Tensor, ...]:
    """What a program is made with: a batch of two."""
    if isinstance(taken.network, RecurrentNetwork):
        return torch.zeros(2, tokens, dtype=torch.int64), torch.zeros(2, taken.network.config.hidden)
    return (source.probe(taken.network, taken.example, 2, torch.float32),)


def _names(taken: Taken) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of a program's inputs and outputs."""
    if isinstance(taken.network, RecurrentNetwork):
        return ("tokens", "hidden"), ("logits", "hidden_after")
    return ("images",), ("logits",)


def _genotype(taken: Taken, path: Path, _: int) -> Files:
    graph = taken.graph
    cells = {
        role: {
            "inputs": cell.inputs,
            "nodes": [[{"from": edge.source, "op": edge.op} for edge in node] for node in cell.nodes],
            "output": list(cell.output),
        }
        for role, cell in graph.cells
    }
    facts = {
        "name": taken.name,
        "space": taken.space.name,
        "genotype": taken.genotype.key,
        "cells": cells,
        "notations": dict(taken.space.notations(taken.genotype)),
    }
    return {path: (json.dumps(facts, indent=2) + "\n").encode()}


def _darts(taken: Taken, path: Path, _: int) -> Files:
    text = taken.space.notations(taken.genotype).get(_DIALECT)
    if text is None:
        raise ConfigError(f"--format darts: space {taken.space.name} has no such notation; --format genotype has all")
    return {path: (text + "\n").encode()}


_MAKERS: dict[str, Callable[[Taken, Path, int], Files]] = {
    "source": _source,
    "torch": _torch,
    "onnx": _onnx,
    "genotype": _genotype,
    "darts": _darts,
}

_LOADING: Mapping[str, str] = {
    "source": "```python\n{source}\n```",
    "torch": "```python\nimport torch\n\nnetwork = torch.export.load({file!r}).module()\n{call}\n```",
    "onnx": "```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession({file!r})\n{session}\n```",
    "genotype": "```console\nnao-ray describe {key} --space {space}\n```",
    "darts": '```console\nnao-ray describe "$(cat {quoted})"\n```',
}


def _loading(taken: Taken, kind: str, path: Path, tokens: int) -> list[str]:
    """Lines of a card."""
    if isinstance(taken.network, RecurrentNetwork):
        hidden = taken.network.config.hidden
        call = f"logits, hidden = network(tokens, hidden)  # [B, {tokens}] and [B, {hidden}], zeros at first"
        session = 'logits, hidden = session.run(None, {"tokens": tokens, "hidden": hidden})  # int64, float32'
        used = "logits, hidden = network(tokens)  # [B, T] -> [B, T, vocabulary]"
    else:
        shape = ", ".join(map(str, taken.example.shape[1:]))
        call = used = f"logits = network(images)  # [B, {shape}]"
        session = f'(logits,) = session.run(None, {{"images": images}})  # float32 [B, {shape}]'
    made = "load()" if taken.is_trained else "Network()"
    own = f"from {path.stem} import {made[:-2]}\n\nnetwork = {made}\n{used}"
    if not path.stem.isidentifier() or iskeyword(path.stem):
        own = f"from importlib import import_module\n\nnetwork = import_module({path.stem!r}).{made}\n{used}"
    key, space = shlex.quote(taken.genotype.key), taken.space.name
    return [
        _LOADING[kind].format(
            file=path.name, source=own, call=call, session=session, key=key, space=space, quoted=shlex.quote(path.name)
        )
    ]
