"""What every search space keeps, whatever its name: a new file is tested the moment it exists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nao_ray import registry, rng
from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype

NAMES = registry.names("space")
INDEX = st.integers(0, 2**40)


@pytest.fixture(scope="module", params=NAMES)
def space(request):
    return registry.load("space", request.param)()


def _some(space, index: int, purpose: str = "contract") -> Genotype:
    return space.sample(rng.child(7, purpose, index))


def _masked(space, index: int) -> np.ndarray:
    """A random sequence under the mask: any string of the space, canonical or not."""
    draw = rng.child(7, "masked", index)
    return np.array([draw.choice(np.flatnonzero(row)) for row in space.token_mask], dtype=np.int64)


def test_the_mask_has_the_shape_it_says(space):
    mask = space.token_mask
    assert mask.shape == (space.length, space.vocabulary)
    assert mask.dtype == bool
    assert mask.any(axis=1).all()
    assert not mask[:, 0].any(), "0 is the start symbol"
    assert space.length % space.tokens_per_step == 0


@given(index=INDEX)
def test_encode_and_decode_are_inverse(space, index):
    tokens = _masked(space, index)
    genotype = space.decode(tokens)
    space.validate(genotype)
    assert np.array_equal(space.encode(genotype), tokens)
    assert space.decode(space.encode(genotype)) == genotype


@given(index=INDEX)
def test_the_mask_admits_exactly_the_legal_tokens(space, index):
    tokens = _masked(space, index)
    draw = rng.child(7, "position", index)
    position = int(draw.integers(space.length))
    for token in range(-1, space.vocabulary + 1):
        changed = tokens.copy()
        changed[position] = token
        if 0 <= token < space.vocabulary and space.token_mask[position, token]:
            assert space.encode(space.decode(changed))[position] == token
        else:
            with pytest.raises(GenotypeError):
                space.decode(changed)


@given(index=INDEX)
def test_canonical_is_idempotent_and_blind_to_twins(space, index):
    genotype = space.decode(_masked(space, index))
    canonical = space.canonical(genotype)
    assert space.canonical(canonical) == canonical
    rows = np.repeat(space.encode(genotype)[None], 8, axis=0)
    for row in space.twins(rows, rng.child(7, "twins", index)):
        assert space.canonical(space.decode(row)) == canonical


def test_twins_are_not_always_the_same_where_there_are_any(space):
    genotypes = [space.decode(_masked(space, index)) for index in range(20)]
    rows = np.stack([space.encode(genotype) for genotype in genotypes for _ in range(8)])
    has_twins = space.num_architectures < space.num_genotypes
    assert (space.twins(rows, rng.child(7, "twins")) != rows).any() == has_twins


@given(index=INDEX)
def test_samples_are_legal_and_canonical(space, index):
    genotype = _some(space, index)
    space.validate(genotype)
    assert space.canonical(genotype) == genotype
    assert _some(space, index) == genotype, "the generator alone decides"


@given(index=INDEX)
def test_a_mutant_is_another_canonical_architecture(space, index):
    start = space.decode(_masked(space, index))
    mutant = space.mutate(start, rng.child(7, "mutate", index))
    space.validate(mutant)
    assert space.canonical(mutant) == mutant
    assert mutant != space.canonical(start)


@given(index=INDEX)
def test_text_reads_back(space, index):
    genotype = _some(space, index)
    assert space.parse(genotype.key) == genotype
    assert space.parse(f"  {genotype.key}\n", space.dialects[0]) == genotype


@given(index=INDEX)
def test_graphs_are_acyclic_and_use_every_state(space, index):
    for role, cell in space.lower(_some(space, index)).cells:
        assert role
        for number, node in enumerate(cell.nodes):
            assert all(0 <= edge.source < cell.inputs + number for edge in node)
        assert list(cell.output) == sorted(set(cell.output))
        assert max(cell.output) < cell.inputs + len(cell.nodes)


def test_published_names_are_legal(space):
    for name in space.published:
        home = space.for_text(name)
        home.validate(home.parse(name))


def test_counts_are_of_one_space(space):
    assert 0 < space.num_architectures <= space.num_genotypes
    assert space.num_genotypes == np.prod(space.token_mask.sum(axis=1).astype(object))


@pytest.mark.parametrize(
    ("text", "dialect", "told"),
    [
        ("no such name", None, "no published architecture"),
        ("0 1 2", None, "0 1 2"),
        ("", None, ""),
        ("1", "klingon", "dialects|dialect 'klingon'"),
    ],
)
def test_bad_text_is_refused_in_one_line(space, text, dialect, told):
    with pytest.raises(GenotypeError) as caught:
        space.parse(text, dialect)
    message = str(caught.value)
    assert f"space {space.name}" in message
    assert "\n" not in message
    if dialect or text.startswith("no"):
        assert any(word in message for word in told.split("|"))


def test_a_foreign_genotype_is_refused(space):
    with pytest.raises(GenotypeError, match="of space elsewhere"):
        space.validate(Genotype("elsewhere", _some(space, 0).key))


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 3)])
def test_tokens_of_another_length_are_refused(space, shape):
    with pytest.raises(GenotypeError):
        space.decode(np.ones(shape, dtype=np.int64))
