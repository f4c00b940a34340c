"""Steps on alphas and weights of a recurrent cell: two texts, two hidden states, and what is dropped in each pass."""

import pytest
import torch
from alternation import copied, same
from pydantic import ValidationError

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.networks.recurrent_network import RecurrentConfig
from nao_ray.networks.recurrent_relaxed import RelaxedRecurrent
from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.training.alphas import RecurrentAlphas
from nao_ray.training.alternating import Alternating
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import ByStep

CPU = torch.device("cpu")
TASK = MadeUpText(MadeUpTextConfig(letters=3, gap=1, words=120, window=4))
RECIPE = Recipe(
    name="darts_rnn_search", batch=4, lr=2.0, lr_end=2.0, clip_norm=0.05, segments="normal", cosine_epochs=9
)
DROPPED = {"dropout": 0.3, "dropout_hidden": 0.25, "dropout_input": 0.3, "dropout_embedding": 0.2, "dropout_words": 0.2}
SMOOTH = ("none", "tanh", "sigmoid", "identity")
NODES = 2
PASSES = {"first": "av", "second": "wavwwv", "exact": "wavw"}


@pytest.fixture(scope="module")
def texts():
    """Of the weights and of the alphas: 66 tokens a column in 17 or 18 segments, and 22 in 6."""
    whole = TASK.objective(CPU, RECIPE)
    weights, alphas = whole.cut(rng.torch_generator(0, "unused"), 0.25)
    plain = RECIPE.model_copy(update={"segments": "fixed", "slowness_penalty": 0.0})
    return weights, alphas.under(plain)


def trainer(texts, order="second", seed=3, **settings):
    config = RecurrentConfig(vocabulary=TASK.vocabulary, hidden=5, slowness_penalty=0.5, init_range=0.5, **DROPPED)
    with rng.torch_seeded(seed, "weights"):
        network = RelaxedRecurrent(SMOOTH, NODES, config).double()
    alpha = 0.5 * torch.randn(3, len(SMOOTH), generator=rng.torch_generator(seed, "alphas"), dtype=torch.float64)
    return Alternating(
        network,
        *texts,
        [alpha],
        order=order,
        optimiser=RecurrentAlphas(**settings),
        streams=ByStep(seed, CPU),
        alpha_streams=ByStep(seed + 1, CPU),
    )


def test_the_texts_are_apart_and_together_all(texts):
    weights, alphas = texts
    whole = TASK.objective(CPU, RECIPE)
    assert torch.equal(torch.cat([weights.train, alphas.train]), whole.train)
    assert (len(weights.train), len(alphas.train)) == (270, 90)
    assert torch.equal(whole.on_validation().train, whole.valid)
    with pytest.raises(DataError, match="4 training tokens make no step of 4 columns and a window of 4"):
        whole.cut(rng.torch_generator(0, "unused"), 0.01)


class Watched:
    """What a network is called with, and what it drops, call by call."""

    def __init__(self, training, monkeypatch):
        self.tokens, self.carries, self.masks = [], [], []
        forward, mask = training.network.forward, training.network._mask

        def called(tokens, carry, alphas):
            self.tokens.append(tokens)
            self.carries.append(None if carry is None else carry[0].detach().clone())
            self.masks.append([])
            return forward(tokens, carry, alphas)

        def drawn(*arguments):
            found = mask(*arguments)
            self.masks[-1].append(found.detach().clone())
            return found

        monkeypatch.setattr(training.network, "forward", called)
        monkeypatch.setattr(training.network, "_mask", drawn)

    def clear(self):
        for each in (self.tokens, self.carries, self.masks):
            each.clear()


def equal(left, right):
    if left is None or right is None:
        return left is right
    return left.shape == right.shape and torch.equal(left, right)


@pytest.mark.parametrize(("order", "of_weights"), [("first", [1]), ("second", [0, 2, 3, 4]), ("exact", [0, 2, 3])])
def test_all_passes_of_a_batch_read_carry_and_drop_alike(texts, order, of_weights, monkeypatch):
    training = trainer(texts, order)
    watched = Watched(training, monkeypatch)
    last = []
    for step in range(3):
        training.step()
        calls = range(len(watched.tokens))
        assert [n for n in calls if equal(watched.tokens[n], watched.tokens[-1])] == of_weights
        (of_alphas,) = set(calls) - set(of_weights)
        assert watched.tokens[of_alphas].shape == (4, 4), "segments of one length"
        for number in of_weights:
            assert equal(watched.carries[number], watched.carries[-1])
            assert len(watched.masks[number]) == len(DROPPED)
            assert all(map(equal, watched.masks[number], watched.masks[-1]))
        assert not all(map(equal, watched.masks[of_alphas], watched.masks[-1]))
        assert not last or not all(map(equal, last, watched.masks[-1])), "other units at each step"
        assert (watched.carries[-1] is None) == (step == 0) == (watched.carries[of_alphas] is None)
        assert step == 0 or not equal(watched.carries[-1], watched.carries[of_alphas])
        last = list(watched.masks[-1])
        watched.clear()


def test_either_text_is_read_on_where_it_was_and_begun_without_a_state(texts, monkeypatch):
    training = trainer(texts, "first")
    watched, carries = Watched(training, monkeypatch), []
    weights, alphas = (objective.steps for objective in texts)
    for _ in range(weights + 1):
        training.step()
    carries = [carry is None for carry in watched.carries]
    assert [n for n, is_new in enumerate(carries[0::2]) if is_new] == list(range(0, weights + 1, alphas))
    assert [n for n, is_new in enumerate(carries[1::2]) if is_new] == [0, weights]
    read = torch.cat(watched.tokens[0 : 2 * alphas : 2], 1)
    assert torch.equal(read, texts[1].train[: 4 * 22].view(4, 22)[:, :-1])


def gradients(training, monkeypatch):
    """Of the alphas, at the next step; they stay as they are."""
    found = []
    monkeypatch.setattr(
        training._alpha_optimiser, "step", lambda: found.extend(a.grad.clone() for a in training.alphas)
    )
    training.step()
    return found


def both(training):
    """The losses of the batches of the next step, as functions of weights and alphas."""
    epoch, skip = divmod(training.steps_done, training.objective.steps)
    batch = next(training.objective.batches(training._streams.order(epoch), skip))
    number, skip = divmod(training.steps_done, training._alpha_objective.steps)
    others = next(training._alpha_objective.batches(training._alpha_streams.order(number), skip))
    generators = [torch.Generator()] * 9
    train = training._pass(training.objective, batch, training._carry, generators, training._streams)
    valid = training._pass(
        training._alpha_objective, others, training._alpha_carry, generators, training._alpha_streams
    )
    return train, valid, training.objective.rate_scale(batch)


def cut_down(gradients, norm):
    """And the share that is left."""
    share = min(1.0, norm / (torch.cat([g.flatten() for g in gradients]).norm().item() + 1e-6))
    return [share * g for g in gradients], share


def by_autograd(training, clip):
    """The derivative of the alphas' loss after the weights' step, through that step, clipped by shares that stay."""
    train, valid, scale = both(training)
    weights = [w.detach().clone().requires_grad_() for w in training.network.parameters()]
    alphas = [a.clone().requires_grad_() for a in training.alphas]
    with training._statistics_left_alone():
        found = torch.autograd.grad(train(weights, alphas), weights, create_graph=True)
        share = cut_down(found, clip)[1]
        ahead = [w - 2.0 * scale * (share * g + 5e-7 * w) for w, g in zip(weights, found, strict=True)]
        there = [w.detach().requires_grad_() for w in ahead]
        *by_weights, direct = torch.autograd.grad(valid(there, alphas), [*there, *alphas])
        vector, share_of_vector = cut_down(by_weights, clip)
        (through,) = torch.autograd.grad(ahead, alphas, grad_outputs=vector)
    return direct + through, (share, share_of_vector)


@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_second_order_is_the_derivative_through_the_clipped_step(texts, clip, monkeypatch):
    """Exactly, and by a difference at a radius of a thousandth; both clipped, or neither."""
    recipe = RECIPE.model_copy(update={"clip_norm": clip})
    objectives = texts[0].under(recipe), texts[1]
    found = {}
    for order in ("exact", "second", "first"):
        training = trainer(objectives, order, lr=1e-30, radius=1e-3)
        training.step()  # from now on there are states
        if order == "exact":
            expected, shares = by_autograd(training, clip)
        (found[order],) = gradients(training, monkeypatch)
    assert all(share < 0.5 for share in shares) if clip < 1 else shares == (1.0, 1.0)
    largest = expected.abs().max()
    assert (found["exact"] - expected).abs().max() < 1e-12 * largest
    assert (found["second"] - found["exact"]).abs().max() < 1e-6 * largest
    assert (found["first"] - expected).abs().max() > 1e-2 * largest


def test_the_unrolled_step_is_the_weights_own(texts, monkeypatch):
    """Its segment's rate, its clipping, its penalty and decay, and what it drops."""
    training = trainer(texts, lr=1e-30)
    lengths, unrolled = set(), training._unrolled
    for _ in range(6):
        ahead = []

        def watched(weights, ahead=ahead):
            found = unrolled(weights)
            step = found.step

            def stepped(*arguments):
                ahead.extend(step(*arguments))
                return list(ahead)

            object.__setattr__(found, "step", stepped)
            return found

        monkeypatch.setattr(training, "_unrolled", watched)
        training.step()
        lengths.add(round(training.optimiser.param_groups[0]["lr"] * 2))
        for mine, there in zip(ahead, training.network.parameters(), strict=True):
            torch.testing.assert_close(mine, there.detach(), rtol=1e-9, atol=1e-12)
    assert len(lengths) > 1, "segments of several lengths"


@pytest.mark.parametrize(
    ("order", "broken"), [("first", [0, 1, 5, 6, 17]), ("second", [2]), ("exact", [1]), ("none", [1])]
)
def test_a_resumed_training_is_the_unbroken_one(texts, order, broken):
    """Before any state, within both texts, where the alphas' ends, and where the weights' does."""
    unbroken, states = trainer(texts, order), []
    for _ in range(max(broken) + 1):
        states.append(copied(unbroken.state()))
        unbroken.step()
    states.append(copied(unbroken.state()))
    for after in broken:
        resumed = trainer(texts, order)
        resumed.restore(states[after])
        assert same(states[after], resumed.state()) == []
        resumed.step()
        assert same(states[after + 1], resumed.state()) == []
    carried = [f"{name}.0" in state for state in states for name in ("carry", "alpha_carry")]
    assert carried[:4] == [False, False, True, order != "none"]


def test_passes_of_the_alphas_leave_the_statistics_alone(texts):
    training = trainer(texts)
    training.step()
    tokens = next(texts[0].batches(training._streams.order(0)))[0].shape[1]
    assert training.network.norm.num_batches_tracked == tokens * (NODES + 1)


def test_a_share_that_no_split_reads_is_refused():
    """It was taken, and ignored."""
    with pytest.raises(ValidationError, match="share: weights train on all of the training split where split is valid"):
        RecurrentAlphas(split="valid", share=0.3)
    assert RecurrentAlphas(**RecurrentAlphas(split="valid").model_dump()).split == "valid"  # as a pool keeps it


def test_alphas_see_no_penalty(texts):
    training = trainer(texts)
    training.step()
    _, valid, _ = both(training)
    weights = list(training.network.parameters())
    before = valid(weights, training.alphas)
    training.network.config = training.network.config.__class__(
        vocabulary=4, hidden=5, slowness_penalty=50.0, **DROPPED
    )
    assert torch.equal(before, valid(weights, training.alphas))


def test_its_score_is_the_perplexity_of_the_alphas_text(texts):
    training = trainer(texts, "first")
    for _ in range(3):
        training.step()
    before = copied(training.state())
    scores = training.score(torch.Generator())
    training.network.eval()
    text, total = texts[1].train.view(10, 9), 0.0
    carry = None
    with torch.no_grad():
        for start in (0, 4):
            part = text[:, start : start + 5]
            logits, carry = training.network(part[:, :-1], carry, training.alphas)
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
            ).item()
    assert scores.loss == pytest.approx(total / 80)
    assert scores.value == pytest.approx(torch.tensor(total / 80).exp().item())
    assert same(before, training.state()) == []


def test_the_eigenvalue_is_the_same_again_and_leaves_everything(texts):
    training = trainer(texts, "first")
    training.step()
    before = copied(training.state())

    def ask():
        return training.largest_eigenvalue(rng.torch_generator(1, "batch"), rng.torch_generator(1, "drawing"))

    assert ask() == ask() != 0
    assert same(before, training.state()) == []
