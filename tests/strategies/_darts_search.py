"""DARTS' search without networks: alphas are made up, and trials end one by one."""

import numpy as np

from nao_ray import rng
from nao_ray.spaces.darts_cnn import PRIMITIVES, DartsCnn
from nao_ray.strategies.darts import Darts, DartsConfig
from nao_ray.trial import FailureKind, Fidelity, Measurement, Trial

SPACE = DartsCnn()
SKIP, NONE = PRIMITIVES.index("skip_connect"), PRIMITIVES.index("none")


def strategy(**settings):
    return Darts(SPACE, DartsConfig(**settings), 3, Fidelity(epochs=1))


def drifting(seed, epoch, *, by=0.5):
    """Alphas of a made-up collapse: the share of skip connections grows with the epochs, in normal cells alone."""
    normal, reduction = rng.child(seed, "alphas").normal(0, 0.3, size=(2, 14, 8))
    normal[:, SKIP] += by * (epoch - 4)
    return [normal, reduction]


def measured(proposal, alphas=drifting, *, seconds=10.0, eigenvalue=None):
    phase = proposal.phase
    if phase is None:
        score = 0.5 + 0.4 * rng.child(proposal.seed, "score").random()
        return Measurement(valid_accuracy=score, device_seconds=3.0)
    cells = alphas(phase.seed, phase.last_epoch)
    return Measurement(
        train_loss=1.0,
        derived_genotype=SPACE.derive(cells).key,
        alphas=tuple(np.concatenate([cell.ravel() for cell in cells]).tolist()),
        alpha_eigenvalue=None if eigenvalue is None else eigenvalue(phase.last_epoch),
        device_seconds=seconds,
    )


def run(search, width=2, log=(), until=10_000, fails=lambda _phase: None, **options):
    """To the end, so many at once, the oldest first; all trials by id, and the rows told.

    `fails`: the kind of failure of a phase.
    """
    search.restore(log)
    trials = {trial.trial_id: trial for trial in log}
    index = sum(trial.log_index is not None for trial in log)
    rows = list(search.diagnostics())
    while not search.done and index < until:
        running = [trial for trial in trials.values() if trial.log_index is None]
        for proposal in search.ask(width - len(running)) if len(running) < width else []:
            trials[proposal.trial_id] = Trial(proposal=proposal)
            running.append(trials[proposal.trial_id])
        assert running, "stuck"
        phase = running[0].proposal.phase
        kind = None if phase is None else fails(phase)
        ended = (
            running[0].fail(kind, f"loss is {kind}", log_index=index)
            if kind
            else running[0].complete(measured(running[0].proposal, **options), log_index=index)
        )
        trials[ended.trial_id] = ended
        index += 1
        search.tell([ended])
        rows += search.diagnostics()
    return list(trials.values()), rows


def phases(trials):
    return [trial.proposal.phase for trial in trials if trial.proposal.phase]


def alone(trials, *, control):
    return [t for t in trials if t.proposal.phase is None and (t.proposal.source_trial_id is None) == control]


def diverges(training, epoch, kind=FailureKind.NAN):
    """A training fails in an epoch, counted from 1."""
    return lambda phase: kind if phase.version == f"s{training}-e{epoch:05d}" else None
