"""What `nao_ray.testing` is for: components that break a contract are told so, in words."""

from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from nao_ray.contracts import spaces
from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.closed_form import ClosedForm
from nao_ray.sizes import Size
from nao_ray.skeletons.base import PLAIN
from nao_ray.skeletons.nao import Nao
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.parts.cnn_cell import CnnCellSpace
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.tasks.synthetic import Synthetic
from nao_ray.testing import check_evaluator, check_skeleton, check_space, check_strategy, check_task
from nao_ray.trial import Measurement, Proposal


class Space(CnnCellSpace):
    ops = ("sep_conv_3x3", "identity")


class Halved(Space):
    def encode(self, genotype):
        return super().encode(genotype)[::-1].copy()


class Lenient(Space):
    def legal(self, tokens):
        return super().legal(np.maximum(tokens, 1))


class Bulky(Space):
    num_genotypes = 10**60


class Uneven(Space):
    def sample(self, rng):
        return super().sample(np.random.default_rng())


class Stays(Space):
    def mutate(self, genotype, rng):
        return self.canonical(genotype)


class Forgetful(Space):
    def canonical(self, genotype):
        return genotype


class Abroad(Space):
    def validate(self, genotype):
        self.read(genotype.key, self.dialects[0])


class Wordy(Space):
    def lower(self, genotype):
        graph = super().lower(genotype)
        return replace(
            graph, cells=tuple((role, replace(cell, output=cell.output[::-1])) for role, cell in graph.cells)
        )


class Gone(Space):
    published: ClassVar = {"Mine": "0 1 2"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Halved, "encode and decode are inverse, example 0: "),
        (Lenient, "the mask admits exactly the legal tokens, example [0-9]+: token -1 at position .* is not refused"),
        (Bulky, "counts are of one space: "),
        (Uneven, "samples are legal and canonical, example 0: equal generators give different samples"),
        (Stays, "a mutant is another canonical architecture, example 0: the mutant of"),
        (Forgetful, "canonical is idempotent and blind to twins, example [0-9]+: the twins"),
        (Abroad, "a foreign genotype is refused: "),
        (Wordy, "graphs are acyclic and use every state, example 0: the outputs of"),
        (Gone, "published names are legal: GenotypeError: "),
    ],
)
def test_a_broken_space(space, message):
    with pytest.raises(AssertionError, match=message) as told:
        check_space(space)
    assert str(told.value).startswith(f"{space.__module__}:{space.__name__}, ")


class Three(Space):
    """A genotype is three numbers: no text is wrong because those of other spaces are longer."""

    def sample(self, rng):
        return Genotype(self.name, "0 1 2")

    def read(self, text, dialect):
        if len(text.split()) != 3:
            raise GenotypeError(f"space {self.name}: {text!r} is not three numbers")
        return Genotype(self.name, text)


def test_a_space_of_three_numbers_is_sound():
    spaces.bad_text_is_refused_in_one_line(Three())


def test_a_sound_space_of_our_own_and_an_instance():
    check_space(Space, examples=5)
    check_space(NaoCnnSmall(), examples=5)


class Forgets(RandomSearch):
    """Its state is not rebuilt."""

    asked = 0

    def propose(self, k, rng):
        self.asked += 1
        return Proposal(genotype=self.space.sample(rng if self.asked % 2 else np.random.default_rng(self.asked)))


class Draws(RandomSearch):
    drawn = iter(range(10**6))

    def propose(self, k, rng):
        return Proposal(genotype=self.space.sample(np.random.default_rng(next(self.drawn))))


class Repeats(RandomSearch):
    def propose(self, k, rng):
        return Proposal(genotype=self.space.sample(np.random.default_rng(k // 2)))


class GivesUp(RandomSearch):
    failed = 0

    def propose(self, k, rng):
        return super().propose(k, rng) if self.failed < 15 else None

    def observe(self, trial):
        self.failed += trial.score is None


class Silent(RandomSearch):
    def propose(self, k, rng):
        return None


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Forgets, "goes on after a break: broken after 3 of 26 trials, 1 at once, proposal 3 is another one"),
        (Draws, "is another one"),
        (Repeats, "proposals are legal new and numbered: an architecture was asked twice"),
        (GivesUp, "only failures end in no dead end: it asks nothing after 15 failed trials"),
        (Silent, "the search is stuck"),
    ],
)
def test_a_broken_strategy(strategy, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(strategy)


class Wrong(Synthetic):
    network = "cifar1000"


class Floats(Synthetic):
    def load(self):
        train, valid = super().load()
        return replace(train, images=train.images / 255), valid


class Moving(Synthetic):
    def load(self):
        train, valid = super().load()
        return replace(train, labels=np.random.default_rng().permutation(train.labels)), valid


class Blind(Synthetic):
    def load_test(self):
        raise DataError("none")

    def check_test(self):
        return ()


class Shuffled(Synthetic):
    def objective(self, device, recipe, **more):
        made = super().objective(device, recipe, **more)

        def batches(order):
            seed = int(np.random.default_rng().integers(2**31))
            return made.batches(torch.Generator().manual_seed(seed))

        return SimpleNamespace(steps=made.steps, batches=batches)


class Short(Synthetic):
    def data_hash(self):
        return "abc"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Wrong, "splits are what the task says: network is 'cifar1000'"),
        (Floats, "splits are what the task says: images are float64, expected uint8"),
        (Moving, "loading again gives the same: "),
        (Blind, "the test split is refused when it is asked for: load_test raises DataError"),
        (Shuffled, "an epoch has the batches it says: equal generators give different batches"),
        (Short, "the hash names the data: data_hash is 'abc'"),
    ],
)
def test_a_broken_task(task, message):
    with pytest.raises(AssertionError, match=message):
        check_task(task, limit=100)


class Doubled(Nao):
    def count(self, graph, shapes, size=None):
        return replace(super().count(graph, shapes, size), num_params=7)


class Narrow(Nao):
    def build(self, graph, shapes, size=None, regularisation=PLAIN):
        return super().build(graph, replace(shapes, num_classes=1), size, regularisation)


class Unbounded(Size):
    cells_per_stage: int | None = None
    channels: int | None = None


class Unchecked(Nao):
    sizes = Unbounded
    published: ClassVar = {"small": Unbounded(cells_per_stage=1, channels=16)}
    shared = None

    def check(self, *_, **__):
        pass


@pytest.mark.usefixtures("fresh_modules")
@pytest.mark.parametrize(
    ("skeleton", "message"),
    [
        (Doubled, "counts are those of the network: .* parameters are counted of a network of"),
        (Narrow, r"a network has the shapes of the task: a network makes \[3, 1\] of 3 examples"),
        (Unchecked, "a size below one is refused: a network of cells_per_stage 0 is not refused"),
    ],
)
def test_a_broken_skeleton(skeleton, message):
    with pytest.raises(AssertionError, match=message):
        check_skeleton(type("Own", (Space,), {"skeleton": skeleton.name}))


class Percent(ClosedForm):
    def evaluate(self, proposal):
        return Measurement(valid_accuracy=100 * super().evaluate(proposal).valid_accuracy)


class Fickle(ClosedForm):
    times = iter(range(10**6))

    def evaluate(self, proposal):
        return Measurement(valid_accuracy=1 / (2 + next(self.times)))


class Elsewhere(ClosedForm):
    def evaluate(self, proposal):
        return Measurement(valid_loss=0.3)


class Raises(ClosedForm):
    def evaluate(self, proposal):
        raise RuntimeError("no GPU")


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (Percent, "a score is of the metric: the accuracy is .*, expected a share"),
        (Fickle, "a proposal has one score: one proposal has the scores"),
        (Elsewhere, "a score is of the metric: the measurement has no valid_accuracy"),
        (Raises, "Raises, a score is of the metric: RuntimeError: no GPU"),
    ],
)
def test_a_broken_evaluator(evaluator, message):
    with pytest.raises(AssertionError, match=message):
        check_evaluator(evaluator)


def test_a_genotype_is_its_spaces():
    assert isinstance(Space().sample(np.random.default_rng(0)), Genotype)
    assert Space.name == f"{__name__}:Space"
