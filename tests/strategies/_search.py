"""A search in a few lines: asks two at a time, finishes the older one first, fails some trials."""

from nao_ray.evaluators.closed_form import ClosedForm, ClosedFormConfig
from nao_ray.strategies.base import Strategy
from nao_ray.trial import FailureKind, Trial


def search(strategy: Strategy, trials: int, in_flight: int = 2, fails=lambda k: k % 7 == 3, log: list[Trial] = ()):
    """Every trial of the search, by id; goes on from `log`, which the strategy was restored from."""
    evaluator = ClosedForm(strategy.space, None, ClosedFormConfig())
    known = {trial.trial_id: trial for trial in log}
    finished = sum(trial.log_index is not None for trial in log)
    running = sorted(k for k, trial in known.items() if trial.log_index is None)
    while True:
        wanted = min(in_flight - len(running), trials - len(known))
        for proposal in strategy.ask(wanted) if wanted > 0 else []:
            known[proposal.trial_id] = Trial(proposal=proposal)
            running.append(proposal.trial_id)
        if not running:
            return [known[k] for k in sorted(known)]
        k = running.pop(0)
        if fails(k):
            ended = known[k].fail(FailureKind.ERROR, "it failed", log_index=finished)
        else:
            ended = known[k].complete(evaluator.evaluate(known[k].proposal), log_index=finished)
        known[k] = ended
        finished += 1
        strategy.tell([ended])


def cut(trials: list[Trial], finished: int) -> list[Trial]:
    """The log of a pool at the moment when `finished` trials had ended and everything asked by then ran."""
    asked = [trial for trial in trials if trial.proposal.asked_after <= finished]
    return [
        trial if trial.log_index is not None and trial.log_index < finished else Trial(proposal=trial.proposal)
        for trial in asked
    ]


def check_restored(make, trials: int, cuts: range, **options) -> None:
    """A search that is cut anywhere and restored in a new object is the unbroken one, proposal for proposal."""
    whole = search(make(), trials, **options)
    for finished in cuts:
        log = cut(whole, finished)
        strategy = make()
        strategy.restore(log)
        assert search(strategy, trials, log=log, **options) == whole, finished
