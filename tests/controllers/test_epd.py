"""Encoder, predictor, decoder: published sizes, legal decodes, and the step in embedding space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nao_ray import registry, rng
from nao_ray.controllers._decoder import LuongDecoder, shifted
from nao_ray.controllers.epd import Epd, additive_mask
from nao_ray.controllers.sizes import SIZES, EpdConfig

SPACES = ("nao_cnn_small", "nao_cnn_middle", "nao_cnn", "nas_bench_201", "darts_cnn", "enas_macro")
VARIANTS = ("v2", "tf_nao_ws_cnn", "nao_ws_rnn", "default")  # every encoder, every decoder

# (size, vocabulary, length, tokens per step) -> parameters: nao.md 3.2 and nao_golden.json, executed or derived
COUNTS = [
    ("v1", 12, 40, 2, 279_533),
    ("v2", 12, 40, 2, 80_845),
    ("v2", 17, 40, 2, 81_650),
    ("nao_ws_rnn", 16, 22, 2, 311_577),
    ("tf_nao_cnn", 21, 60, 3, 208_535),
    ("tf_nao_ws_cnn", 12, 40, 2, 236_606),
    ("tf_nao_rnn", 16, 22, 1, 308_338),
]


def make(size: str, space_name: str = "nao_cnn_small", seed: int = 0) -> Epd:
    space = registry.load("space", space_name)()
    with rng.torch_seeded(seed, "test"):
        return Epd(SIZES[size], space.vocabulary, space.length, space.tokens_per_step).eval()


def tokens_of(space_name: str, count: int) -> Tensor:
    space = registry.load("space", space_name)()
    draw = rng.child(0, "test tokens")
    return torch.from_numpy(np.stack([space.encode(space.sample(draw)) for _ in range(count)]))


def mask_of(space_name: str) -> Tensor:
    return additive_mask(torch.from_numpy(registry.load("space", space_name)().token_mask))


@pytest.mark.parametrize(("size", "vocabulary", "length", "per_step", "count"), COUNTS)
def test_published_sizes(size: str, vocabulary: int, length: int, per_step: int, count: int) -> None:
    epd = Epd(SIZES[size], vocabulary, length, per_step)
    assert sum(parameter.numel() for parameter in epd.parameters()) == count


@pytest.mark.parametrize("size", VARIANTS)
def test_outputs_are_unit_vectors_and_predictions_targets(size: str) -> None:
    epd, tokens = make(size), tokens_of("nao_cnn_small", 5)
    memory = epd.encode(tokens)
    point = epd.embed(memory)
    assert memory.shape == (5, 20, SIZES[size].hidden)
    torch.testing.assert_close(memory.norm(dim=-1), torch.ones(5, 20))
    torch.testing.assert_close(point.norm(dim=-1), torch.ones(5))
    predicted, logits = epd(tokens)
    assert logits.shape == (5, 40, 12)
    assert ((predicted > 0) & (predicted < 1)).all()


@pytest.mark.parametrize("size", VARIANTS)
def test_teacher_forcing_in_one_call_is_the_decoding_token_by_token(size: str) -> None:
    """Fed with its own greedy choices, the teacher-forced decoder chooses the same again."""
    epd, tokens = make(size), tokens_of("nao_cnn_small", 6)
    memory = epd.encode(tokens)
    greedy = epd.decode(memory, mask_of("nao_cnn_small"))
    with torch.no_grad():
        logits = epd.decoder.teach(memory, epd.embed(memory), greedy)
    assert torch.equal((logits + mask_of("nao_cnn_small")).argmax(dim=-1), greedy)


def test_luong_attention_is_the_formula() -> None:
    epd = make("v1")
    decoder = epd.decoder
    assert isinstance(decoder, LuongDecoder)
    tokens = tokens_of("nao_cnn_small", 3)
    with torch.no_grad():
        memory = epd.encode(tokens)
        point = epd.embed(memory)
        logits = decoder.teach(memory, point, tokens)
        state = (point[None], point[None])
        hidden, _ = decoder.lstm(decoder.embedding(shifted(tokens)), state)
        query = decoder.query(hidden[1, 7])
        weights = torch.softmax(memory[1] @ query, dim=0)
        mixed = torch.tanh(decoder.mix(torch.cat([weights @ memory[1], hidden[1, 7]])))
        torch.testing.assert_close(logits[1, 7], decoder.out(mixed))
    assert decoder.mix.bias is None
    assert isinstance(decoder.query, nn.Linear)
    assert decoder.query.bias is None
    assert shifted(tokens)[0, :3].tolist() == [0, *tokens[0, :2].tolist()]


@pytest.mark.parametrize("space_name", SPACES)
@pytest.mark.parametrize("size", VARIANTS)
def test_every_decode_is_legal(space_name: str, size: str) -> None:
    space = registry.load("space", space_name)()
    epd = make(size, space_name)
    with rng.torch_seeded(1, "wild memories"):
        memory = nn.functional.normalize(
            torch.randn(20, space.length // space.tokens_per_step, SIZES[size].hidden), dim=-1
        )
    for row in epd.decode(memory, mask_of(space_name)).numpy():
        space.validate(space.decode(row))


@given(seed=st.integers(0, 10_000), eta=st.floats(0, 1000))
@settings(max_examples=25, deadline=None)
def test_steps_of_any_size_stay_legal_and_on_the_sphere(seed: int, eta: float) -> None:
    space = registry.load("space", "nao_cnn_small")()
    epd = make("default", seed=seed)
    memory = epd.encode(tokens_of("nao_cnn_small", 4)).detach()
    moved = epd.step(memory, torch.full((4,), eta), unit=bool(seed % 2))
    torch.testing.assert_close(moved.norm(dim=-1), torch.ones(4, 20))
    for row in epd.decode(moved, mask_of("nao_cnn_small")).numpy():
        space.decode(row)


@pytest.mark.parametrize("size", VARIANTS)
def test_a_step_of_length_zero_decodes_to_the_reconstruction(size: str) -> None:
    epd, mask = make(size), mask_of("nao_cnn_small")
    memory = epd.encode(tokens_of("nao_cnn_small", 16)).detach()
    moved = epd.step(memory, torch.zeros(16))
    assert torch.equal(epd.decode(moved, mask), epd.decode(memory, mask))


class Linear(nn.Module):
    """A hand-made landscape: the prediction is the inner product with a fixed direction."""

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, point: Tensor) -> Tensor:
        return (point @ self.direction)[:, None]


def on_a_hill(direction: Tensor) -> Epd:
    epd = Epd(EpdConfig(hidden=len(direction)), 12, 40, 2).double()
    epd.predictor = Linear(direction)  # type: ignore[assignment]
    return epd


def hill(seed: int = 0) -> tuple[Epd, Tensor, Tensor]:
    generator = rng.torch_generator(seed, "hill")
    direction = nn.functional.normalize(torch.randn(8, generator=generator, dtype=torch.float64), dim=0)
    memory = nn.functional.normalize(torch.randn(5, 20, 8, generator=generator, dtype=torch.float64), dim=-1)
    return on_a_hill(direction), memory, direction


def test_the_gradient_is_that_of_mean_normalisation_and_predictor() -> None:
    """With p = d . m / |m|, m the mean over T steps: dp/dH_t = (d - (d . e) e) / (T |m|), the same at each step."""
    epd, memory, direction = hill()
    mean = memory.mean(dim=1)
    e = nn.functional.normalize(mean, dim=-1)
    expected = (direction - (e @ direction)[:, None] * e) / (20 * mean.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(epd.gradient(memory), expected[:, None].expand(5, 20, 8))
    assert torch.autograd.gradcheck(lambda h: epd.predict(epd.embed(h)), memory.requires_grad_())


def test_short_steps_climb_and_many_arrive_at_the_top() -> None:
    epd, memory, _ = hill()
    before = epd.predict(epd.embed(memory))
    near, further = (epd.predict(epd.embed(epd.step(memory, torch.full((5,), eta)))) for eta in (0.1, 0.5))
    assert (near > before).all()
    assert (further > near).all()
    for _ in range(200):
        memory = epd.step(memory, torch.full((5,), 5.0)).detach()
    assert (epd.predict(epd.embed(memory)) > 0.999).all(), "the highest point of the sphere is the direction itself"


def test_one_endless_step_arrives_where_the_gradient_points() -> None:
    epd, memory, direction = hill()
    along = epd.embed(memory) @ direction
    moved = epd.step(memory, torch.full((5,), 1e6))
    torch.testing.assert_close(epd.predict(epd.embed(moved)), (1 - along.square()).sqrt(), rtol=0, atol=1e-4)


def test_many_rows_and_sizes_in_one_batch_are_as_one_by_one() -> None:
    epd, memory, _ = hill()
    sizes = torch.tensor([0.0, 0.5, 1.0, 2.0, 30.0], dtype=torch.float64)
    together = epd.step(memory, sizes)
    for row, eta in enumerate(sizes):
        torch.testing.assert_close(together[row : row + 1], epd.step(memory[row : row + 1], eta[None]))


def test_unit_steps_do_not_depend_on_the_steepness() -> None:
    epd, memory, direction = hill()
    steep = on_a_hill(1000 * direction)
    sizes = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(epd.step(memory, sizes, unit=True), steep.step(memory, sizes, unit=True))
    assert not torch.allclose(epd.step(memory, sizes), steep.step(memory, sizes))


def test_a_flat_predictor_moves_nothing() -> None:
    _, memory, direction = hill()
    flat = on_a_hill(0 * direction)
    torch.testing.assert_close(flat.step(memory, torch.ones(5, dtype=torch.float64), unit=True), memory)
