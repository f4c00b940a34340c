"""The architect: gradients of alphas on problems whose answers are known."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from nao_ray.training import bilevel

RADIUS = 0.01


def toy_valid(weights, alphas):
    (w,), (a,) = weights, alphas
    return a * w - 2 * a + 1


def toy_train(weights, alphas):
    (w,), (a,) = weights, alphas
    return w**2 - 2 * a * w + a**2


def toy(product=None, rate=0.1, *, at=(2.0, -2.0)):
    a, w = (torch.tensor(value, dtype=torch.float64) for value in at)
    if product is None:
        return bilevel.first_order(toy_valid, [w], [a])[0].item()
    unrolled = bilevel.Unrolled(rate=rate)
    return bilevel.second_order(toy_train, toy_valid, [w], [a], unrolled, product)[0].item()


def test_first_order_on_the_toy():
    """Figure 2 of the paper: dL_val/da = w - 2."""
    assert toy() == pytest.approx(-4, abs=1e-12)


PRODUCTS = {"difference": bilevel.by_difference(RADIUS), "exact": bilevel.exact}


@pytest.mark.parametrize("name", PRODUCTS)
def test_second_order_on_the_toy(name):
    """w' - 2 + 2 xi a."""
    assert toy(PRODUCTS[name]) == pytest.approx(-2.8, abs=1e-9)


@pytest.mark.parametrize("name", PRODUCTS)
def test_alternating_steps_end_at_the_optimum(name):
    """Of both problems, where one step of the rate is all that the weights need."""
    a, w = 2.0, -2.0
    for _ in range(200):
        a -= 0.2 * toy(PRODUCTS[name], 0.5, at=(a, w))
        w -= 0.5 * (2 * w - 2 * a)
    assert (a, w) == (pytest.approx(1, abs=1e-6), pytest.approx(1, abs=1e-6))


def _smooth():
    """A net of tanh with mixed activations, in float64: losses, weights and alphas."""
    generator = torch.Generator().manual_seed(5)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    weights = [0.5 * draw(6, 4), 0.3 * draw(6), 0.5 * draw(3, 6)]
    alphas = [draw(2, 3), draw(3)]
    batches = [(draw(8, 4), torch.randint(3, (8,), generator=generator)) for _ in range(2)]

    def loss(batch, weights, alphas):
        x, labels = batch
        first, bias, last = weights
        hidden = functional.linear(x, first, bias)
        for edge, mixture in zip(alphas[0], (torch.tanh, torch.sigmoid), strict=True):
            share = edge.softmax(0)
            hidden = share[0] * mixture(hidden) + share[1] * hidden + share[2] * torch.sin(hidden)
        return functional.cross_entropy(functional.linear(hidden * (alphas[1].sum()), last), labels)

    return partial(loss, batches[0]), partial(loss, batches[1]), weights, alphas


def _by_autograd(train, valid, weights, alphas, unrolled):
    """The definition, differentiated through the step of SGD."""
    weights = [w.clone().requires_grad_() for w in weights]
    alphas = [a.clone().requires_grad_() for a in alphas]
    gradients = torch.autograd.grad(train(weights, alphas), weights, create_graph=True)
    ahead = unrolled.step(weights, gradients)
    return torch.autograd.grad(valid(ahead, alphas), alphas)


def _difference(left, right):
    """The largest one, relative to the largest number."""
    largest = max(tensor.abs().max() for tensor in right)
    return (max((a - b).abs().max() for a, b in zip(left, right, strict=True)) / largest).item()


def _check(product, tolerance, nesterov=False):
    train, valid, weights, alphas = _smooth()
    unrolled = bilevel.Unrolled(0.1, 0.9, 3e-4, [0.1 * w for w in weights], nesterov)
    found = bilevel.second_order(train, valid, weights, alphas, unrolled, product)
    expected = _by_autograd(train, valid, weights, alphas, unrolled)
    assert _difference(found, expected) < tolerance


@pytest.mark.parametrize("nesterov", [False, True])
def test_exact_is_the_derivative_of_the_whole_step(nesterov):
    _check(bilevel.exact, 1e-12, nesterov)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_step_ahead_is_that_of_sgd(nesterov):
    """The first one, which has no momentum to go on with, and the next."""
    draw = partial(torch.randn, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = draw().requires_grad_()
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.3, nesterov=nesterov)
    for _ in range(2):
        weight.grad = draw()
        buffers = [sgd.state[weight].get("momentum_buffer")]
        (ahead,) = bilevel.Unrolled(0.1, 0.9, 0.3, buffers, nesterov).step([weight.detach()], [weight.grad])
        sgd.step()
        torch.testing.assert_close(ahead, weight.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("radius", "tolerance"), [(1e-3, 1e-6), (RADIUS, 1e-4)])
def test_the_difference_equals_exact_on_a_smooth_net(radius, tolerance):
    """The error falls with the square of the radius, see the next test; measured 1.4e-7 and 1.4e-5."""
    _check(bilevel.by_difference(radius), tolerance)


def test_the_error_of_the_difference_falls_with_the_square_of_the_radius():
    train, _valid, weights, alphas = _smooth()
    direction = [w + 1 for w in weights]
    true = bilevel.exact(train, weights, alphas, direction)
    errors = [
        _difference(bilevel.by_difference(radius)(train, weights, alphas, direction), true) for radius in (0.04, 0.02)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def _mutant(train, weights, alphas, direction):
    """The error of precedence of several ports: ``(p - n) / 2 * eps``."""
    right = bilevel.by_difference(1e-3)(train, weights, alphas, direction)
    eps = 1e-3 / torch.stack([v.square().sum() for v in direction]).sum().sqrt()
    return [(hv * 2 * eps) / 2 * eps for hv in right]


def test_an_error_of_precedence_is_found():
    with pytest.raises(AssertionError):
        _check(_mutant, 1e-6)


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_weights_and_alphas_stay_as_they_are(product):
    train, valid, weights, alphas = _smooth()
    before = [tensor.clone() for tensor in [*weights, *alphas]]
    bilevel.second_order(train, valid, weights, alphas, bilevel.Unrolled(rate=0.1), product)
    bilevel.first_order(valid, weights, alphas)
    assert all(torch.equal(a, b) for a, b in zip(before, [*weights, *alphas], strict=True))
    assert all(tensor.grad is None for tensor in [*weights, *alphas])


def test_curvature_is_the_hessian_and_lanczos_finds_its_largest_eigenvalue():
    _train, valid, weights, alphas = _smooth()

    def flat(vector):
        parts = vector.split([a.numel() for a in alphas])
        return [part.view_as(a) for part, a in zip(parts, alphas, strict=True)]

    multiply = bilevel.curvature(valid, weights, alphas)

    def product(vector):
        return torch.cat([part.reshape(-1) for part in multiply(flat(vector))])

    size = sum(a.numel() for a in alphas)
    rows = torch.stack([product(row) for row in torch.eye(size, dtype=torch.float64)])
    torch.testing.assert_close(rows, rows.T, rtol=1e-9, atol=1e-12)
    whole = torch.autograd.functional.hessian(
        lambda vector: valid(weights, flat(vector)), torch.cat([a.reshape(-1) for a in alphas])
    )
    torch.testing.assert_close(rows, whole, rtol=1e-9, atol=1e-12)
    values = torch.linalg.eigvalsh(whole)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bilevel.largest_eigenvalue(product, start)
    assert found == pytest.approx(values.max().item(), rel=1e-8)


@pytest.mark.parametrize("values", [[-7.0, 1.0, 2.0], [4.0], [3.0, 3.0, 3.0], [0.0, 0.0]])
def test_lanczos_on_matrices_of_known_eigenvalues(values):
    matrix = torch.diag(torch.tensor(values, dtype=torch.float64))
    found = bilevel.largest_eigenvalue(lambda v: matrix @ v, torch.arange(1.0, len(values) + 1, dtype=torch.float64))
    assert found == pytest.approx(max(values), abs=1e-9)
