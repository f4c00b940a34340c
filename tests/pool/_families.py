"""Made-up trials on a ladder of fidelities: five first rungs, of which two go on, one of them to the top."""

from dataclasses import replace

from _made_up_trials import MANIFEST, START, make_trial

from nao_ray.pool import PoolWriter
from nao_ray.trial import FailureKind, Trial

LADDER = {"config": {**MANIFEST["config"], "fidelity": {"epochs": [2, 4, 8]}}}


def rung(k: int, epochs: int, parent: int | None = None, accuracy: float = 0.5) -> Trial:
    """Trial k, of the architecture of its parent."""
    made = make_trial(k, accuracy=accuracy)
    family = make_trial(0 if parent in (0, 5) else k if parent is None else parent).proposal
    fidelity = replace(family.fidelity, epochs=epochs)
    proposal = replace(family, trial_id=k, parent_trial_id=parent, fidelity=fidelity, asked_after=k)
    return replace(made, proposal=proposal)


FIRSTS = [rung(k, 2, accuracy=0.9 - 0.1 * k) for k in range(5)]
RUNGS = [*FIRSTS, rung(5, 4, parent=0, accuracy=0.6), rung(6, 4, parent=1, accuracy=0.7), rung(7, 8, 5, accuracy=0.65)]
"""In the order finished: 0 goes on as 5 and 7, 1 as 6."""
SHOWN = [2, 3, 4, 6, 7]
"""Those that trials/ has of all of them."""


def failed(k: int, epochs: int, parent: int) -> Trial:
    """A rung that failed."""
    made = rung(k, epochs, parent)
    return Trial(proposal=made.proposal, attempt=1, log_index=k).fail(FailureKind.NAN, "score is nan")


def record_rungs(pool: PoolWriter, trials: list[Trial]) -> None:
    """Ask and finish them, one part each."""
    for trial in trials:
        pool.record_asked([trial.proposal], START)
        pool.record_finished([trial])
