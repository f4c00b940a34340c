"""How far a long evaluation is, kept so that another worker goes on with it: tensors, and in the header plain JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nao_ray.errors import DataError
from nao_ray.trial import Measurement, Proposal

if TYPE_CHECKING:
    from nao_ray.training.fit import Epoch, Start


@dataclass(frozen=True)
class Progress:
    """What is done of a proposal."""

    measured: tuple[Measurement, ...] = ()
    """Its trainings that have ended."""
    start: Start | None = None
    """Where the next one goes on; None: at its beginning."""
    wall_seconds: float = 0.0
    """That the next one has taken so far."""

    @property
    def is_new(self) -> bool:
        """Nothing is done yet."""
        return not self.measured and self.start is None


def pack(proposal: Proposal, device: str, measured: Sequence[Measurement], epoch: Epoch, wall_seconds: float) -> bytes:
    """What is done after an epoch, as the bytes of a safetensors file."""
    from nao_ray.training.checkpoint import pack as pack_tensors

    about = {
        "of": _name(proposal, device),
        "measured": [asdict(measurement) for measurement in measured],
        "epochs_done": epoch.done,
        "history": [(scores.value, scores.loss) for scores in epoch.history],
        "wall_seconds": wall_seconds,
    }
    return pack_tensors(epoch.state(), json.dumps(about))


def unpack(data: bytes, proposal: Proposal, device: str) -> Progress:
    """What `pack` was given.

    Raises:
        DataError: it is damaged, or of another proposal or kind of device.
    """
    from nao_ray.training.checkpoint import read_about
    from nao_ray.training.checkpoint import unpack as unpack_tensors
    from nao_ray.training.fit import Start
    from nao_ray.training.objective import Scores

    tensors = unpack_tensors(data)
    try:
        about: dict[str, Any] = json.loads(read_about(data) or "{}")
        if about["of"] != _name(proposal, device):
            raise DataError(f"it is of {about['of']}")
        history = tuple(Scores(value, loss) for value, loss in about["history"])
        measured = [{**facts, "curve": facts["curve"] and tuple(facts["curve"])} for facts in about["measured"]]
        return Progress(
            measured=tuple(Measurement(**facts) for facts in measured),
            start=Start(about["epochs_done"], tensors, history),
            wall_seconds=about["wall_seconds"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"its header is not what it should be: {error}") from None


def _name(proposal: Proposal, device: str) -> str:
    """Of which evaluation it is, in the words that states were first kept with."""
    asked = proposal.fidelity
    facts = {
        "epochs": asked.epochs,
        "cells_per_stage": None,
        "channels": None,
        **dict(asked.size),
        **{name: getattr(asked, name) for name in ("data_share", "weights_version", "valid_share")},
    }
    fidelity = ", ".join(f"{name}={value!r}" for name, value in facts.items())
    own = "" if proposal.settings is None else f", {proposal.settings}"
    return f"{proposal.genotype.key}, seed {proposal.seed}, Fidelity({fidelity}){own}, on {device}"
