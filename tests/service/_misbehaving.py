"""Evaluators and strategies that do, on a worker, what must not end a search."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nao_ray.errors import DataError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.service.fleet.actors import EvaluatorActor
from nao_ray.service.fleet.worker import Gpu
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial

GENOTYPE = Genotype("nao_cnn_small", NaoCnnSmall.published["NAONet-B"])


class Obedient(Evaluator[EvaluatorConfig]):
    """Does what the proposal's number says, once: a file marks that it was done."""

    def __init__(self, orders: dict[int, str], folder: str | Path) -> None:
        super().__init__(NaoCnnSmall(), Synthetic(SyntheticConfig()), EvaluatorConfig())
        self.orders, self.folder = orders, Path(folder)

    @classmethod
    def fidelity(cls, config: EvaluatorConfig) -> Fidelity:
        return Fidelity()

    def evaluate(self, proposal: Proposal) -> Measurement:
        mark = self.folder / f"{proposal.trial_id}"
        order = "" if mark.exists() else self.orders.get(proposal.trial_id, "")
        mark.write_text(str(os.getpid()))
        what, _, argument = order.partition(" ")
        if what.startswith("talk-"):
            talk()
            what = what.removeprefix("talk-")
        if what == "sleep":
            time.sleep(float(argument))
        elif what == "tell":
            self.tell(proposal, float(argument))
        elif what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "freeze":
            freeze()
        elif what == "raise":
            raise RuntimeError(argument)
        return Measurement(valid_accuracy=0.5)

    def tell(self, proposal: Proposal, seconds: float) -> None:
        """Two epochs, of the seconds each."""
        assert self.watcher is not None
        for curve in ((0.25,), (0.25, 0.375)):
            self.watcher(Measurement(valid_accuracy=curve[-1], curve=curve))
            time.sleep(seconds)


def obedient(orders: dict[int, str], folder: str | Path) -> Any:
    return lambda: Obedient(orders, folder)


def talk() -> None:
    """Say something in every way there is."""
    import logging
    import subprocess
    import warnings

    for number in range(300):
        print(f"line {number}")
    warnings.warn("take heed", stacklevel=1)
    logging.getLogger("library").info("this may help")
    subprocess.run(["sh", "-c", "echo from a process of the trial >&2"], check=True)


class Hungry(Obedient):
    """Needs memory on a stand-in for a GPU: its node's label says how much the GPU has, the orders what a child needs.

    A child whose share of the GPU is too small runs out of memory, as beside others that use theirs. Leaves its trial,
    node, and share behind, a file for each try.
    """

    def evaluate(self, proposal: Proposal) -> Measurement:
        import ray

        from nao_ray.service.fleet import actors

        context = ray.get_runtime_context()
        memory = int(context.get_node_labels()["gpu-gib"]) * 2**30
        actors._is_on_gpu = lambda: True
        actors._gpu = lambda is_alone: Gpu("fake", memory)
        share = context.get_assigned_resources()["GPU"]
        name = "-".join([str(proposal.trial_id), str(memory // 2**30), f"{1 / share:.0f}", str(time.monotonic_ns())])
        (self.folder / name).touch()
        need = int(float(self.orders.get(proposal.trial_id, "2")) * 2**30)
        time.sleep(0.3)
        if need > memory * share + 2**20:
            raise RuntimeError("CUDA out of memory")
        return Measurement(valid_accuracy=0.5, peak_memory_bytes=need)


def hungry(needs: dict[int, str], folder: str | Path) -> Any:
    return lambda: Hungry(needs, folder)


def no_data() -> Evaluator[Any]:
    raise DataError("no images in /data: give task.folder")


def freeze() -> None:
    """Stop this process; the thread that asks for it may run on for a moment."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def freezes_at_first(folder: str | Path) -> Any:
    """An evaluator whose first making stops the process."""

    def make() -> Evaluator[Any]:
        mark = Path(folder) / "frozen"
        if not mark.exists():
            mark.write_text(str(os.getpid()))
            time.sleep(2)  # a ping is answered meanwhile
            freeze()
        return Obedient({}, folder)

    return make


class _FreezesAtFirst:
    """A value whose first unpickling stops the process."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return _freeze_at_first, (str(self.folder),)


def _freeze_at_first(folder: str) -> None:
    mark = Path(folder) / "frozen"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        freeze()


def freezes_as_it_loads(folder: str | Path) -> type:
    """A worker's class whose first loading stops the process, before it could say anything."""
    return type("Frozen", (EvaluatorActor,), {"value": _FreezesAtFirst(folder), "__module__": __name__})


def slow_to_start(seconds: float, orders: dict[int, str], folder: str | Path) -> Any:
    """An evaluator that takes long to be made, as one that loads a library and data."""

    def make() -> Evaluator[Any]:
        time.sleep(seconds)
        return Obedient(orders, folder)

    return make


def no_library() -> Evaluator[Any]:
    raise ImportError("libnothing.so: cannot open")


class Counting(Strategy[StrategyConfig]):
    """Random search that may raise, die at the n-th request, or die at every one."""

    def __init__(self, what: str = "", folder: str | Path = ".") -> None:
        super().__init__(NaoCnnSmall(), StrategyConfig(), 0, Fidelity())
        self.what, self.mark = what, Path(folder) / "died"

    def propose(self, k: int, rng: Any) -> Proposal | None:
        if self.what == "raise":
            raise ZeroDivisionError("division by zero")
        if self.what == "die always" or (self.what == "die once" and k == 3 and not self.mark.exists()):
            self.mark.touch()
            print("the table of moves is broken", file=sys.stderr)
            os._exit(1)
        return Proposal(genotype=self.space.sample(rng))

    def observe(self, trial: Trial) -> None:
        pass


def counting(what: str = "", folder: str | Path = ".") -> Any:
    return lambda: Counting(what, folder)
