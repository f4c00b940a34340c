"""What every search space keeps, whatever its name.

Each of `CHECKS` takes a space; each of `OF_EXAMPLES` also a number, which decides the genotype that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nao_ray import own_modules, rng
from nao_ray.contracts.checking import about, refused, require
from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens

Space = SearchSpace[Any]


def check_space(space: type[Space] | Space, *, examples: int = 30) -> None:
    """Check a search space as those of nao_ray are checked.

    Args:
        space: a class, made without settings, or an instance.
        examples: genotypes of each kind that are looked at.

    Raises:
        AssertionError: says what is broken.
    """
    made = space() if isinstance(space, type) else space
    for check in CHECKS:
        with about(f"{made.name}, {check.__name__.replace('_', ' ')}"):
            check(made)
    for of_example in OF_EXAMPLES:
        for index in range(examples):
            with about(f"{made.name}, {of_example.__name__.replace('_', ' ')}, example {index}"):
                of_example(made, index)


def _some(space: Space, index: int, purpose: str = "contract") -> Genotype:
    return space.sample(rng.child(7, purpose, index))


def _masked(space: Space, index: int) -> Tokens:
    """A random sequence under the mask: any string of the space, canonical or not."""
    draw = rng.child(7, "masked", index)
    return np.array([draw.choice(np.flatnonzero(row)) for row in space.token_mask], dtype=np.int64)


# -- of the space ---------------------------------------------------------------------------------------------


def the_mask_has_the_shape_it_says(space: Space) -> None:
    """``[length, vocabulary]``, with a legal token at each position, and none of them the start symbol."""
    mask = space.token_mask
    require(mask.shape == (space.length, space.vocabulary), f"token_mask is {mask.shape}, not [length, vocabulary]")
    require(mask.dtype == bool, f"token_mask is {mask.dtype}, expected bool")
    require(mask.any(axis=1).all(), "a position has no legal token")
    require(not mask[:, 0].any(), "token 0 is the start symbol, and legal nowhere")
    require(space.length % space.tokens_per_step == 0, "length is no multiple of tokens_per_step")


def twins_are_not_always_the_same_where_there_are_any(space: Space) -> None:
    """`twins` changes some string if, and only if, the space has more genotypes than architectures."""
    genotypes = [space.decode(_masked(space, index)) for index in range(20)]
    rows = np.stack([space.encode(genotype) for genotype in genotypes for _ in range(8)])
    has_twins = space.num_architectures < space.num_genotypes
    changes = bool((space.twins(rows, rng.child(7, "twins")) != rows).any())
    require(changes == has_twins, f"twins changes something: {changes}; there are twins: {has_twins}")


def published_names_are_legal(space: Space) -> None:
    """Each is read by the space it is of."""
    for name in space.published:
        home = space.for_text(name)
        home.validate(home.parse(name))


def counts_are_of_one_space(space: Space) -> None:
    """The numbers of genotypes and of architectures agree with the mask."""
    require(0 < space.num_architectures <= space.num_genotypes, "there are more architectures than genotypes, or none")
    masked = np.prod(space.token_mask.sum(axis=1).astype(object))
    require(space.num_genotypes == masked, f"num_genotypes is {space.num_genotypes}, the mask admits {masked}")


BAD_TEXTS = (("no such name", None), ("", None), ("1", "klingon"))
"""Text and dialect that no space has."""


def bad_text_is_refused_in_one_line(space: Space) -> None:
    """With the space's name; a name of nobody and a dialect of nobody are called so."""
    too_long = " ".join(["0"] * (len(_some(space, 0).key.split()) + 1))
    for text, dialect in (*BAD_TEXTS, (too_long, None)):
        with refused(GenotypeError, f"text {text!r}, dialect {dialect!r}") as said:
            space.parse(text, dialect)
        require(f"space {space.name}" in said[0], f"the error of {text!r} does not name the space: {said[0]}")
        if dialect is not None:
            require(f"dialect '{dialect}'" in said[0], f"the error does not name the dialect: {said[0]}")
        if text.startswith("no"):
            require("no published architecture" in said[0], f"the error does not say what is unknown: {said[0]}")


def a_foreign_genotype_is_refused(space: Space) -> None:
    """One of another space is not taken for one of this."""
    with refused(GenotypeError, "a genotype of space elsewhere") as said:
        space.validate(Genotype("elsewhere", _some(space, 0).key))
    require("of space elsewhere" in said[0], f"the error does not name the other space: {said[0]}")


def tokens_of_another_length_are_refused(space: Space) -> None:
    """Of any other shape than ``[length]``."""
    for shape in ((0,), (1,), (3, 3)):
        if shape != (space.length,):
            with refused(GenotypeError, f"tokens of shape {shape}"):
                space.decode(np.ones(shape, dtype=np.int64))


def own_operations_map_shapes(space: Space) -> None:
    """An operation of the user's keeps the channels and divides the sides by its stride, rounded up."""
    graphs = [space.lower(_some(space, index)) for index in range(30)]
    ops = {edge.op for graph in graphs for _, cell in graph.cells for node in cell.nodes for edge in node}
    for op in sorted(filter(own_modules.is_own, ops)):
        _check_operation(op)


def _check_operation(name: str) -> None:
    import torch

    from nao_ray.networks.ops import build_op

    for stride in (1, 2):
        operation = build_op(name, 4, stride)
        for side in (7, 8):
            out = operation(torch.zeros(2, 4, side, side))
            wanted = (2, 4, -(-side // stride), -(-side // stride))
            where = f"{name} with stride {stride} makes {list(out.shape)} of [2, 4, {side}, {side}]"
            require(tuple(out.shape) == wanted, f"{where}, expected {list(wanted)}")


CHECKS: tuple[Callable[[Space], None], ...] = (
    the_mask_has_the_shape_it_says,
    twins_are_not_always_the_same_where_there_are_any,
    published_names_are_legal,
    counts_are_of_one_space,
    bad_text_is_refused_in_one_line,
    a_foreign_genotype_is_refused,
    tokens_of_another_length_are_refused,
    own_operations_map_shapes,
)


# -- of examples ----------------------------------------------------------------------------------------------


def encode_and_decode_are_inverse(space: Space, index: int) -> None:
    """In both directions."""
    tokens = _masked(space, index)
    genotype = space.decode(tokens)
    space.validate(genotype)
    require(np.array_equal(space.encode(genotype), tokens), f"encode(decode(t)) is not t for {tokens.tolist()}")
    require(space.decode(space.encode(genotype)) == genotype, f"decode(encode(g)) is not g for {genotype}")


def the_mask_admits_exactly_the_legal_tokens(space: Space, index: int) -> None:
    """At one position of a string, every token there could be."""
    tokens = _masked(space, index)
    draw = rng.child(7, "position", index)
    position = int(draw.integers(space.length))
    for token in range(-1, space.vocabulary + 1):
        changed = tokens.copy()
        changed[position] = token
        if 0 <= token < space.vocabulary and space.token_mask[position, token]:
            again = space.encode(space.decode(changed))[position]
            require(again == token, f"token {token} at position {position} becomes {again}")
        else:
            with refused(GenotypeError, f"token {token} at position {position}"):
                space.decode(changed)


def canonical_is_idempotent_and_blind_to_twins(space: Space, index: int) -> None:
    """All twins of a string have one canonical form, which is its own."""
    genotype = space.decode(_masked(space, index))
    canonical = space.canonical(genotype)
    require(space.canonical(canonical) == canonical, f"the canonical form of {canonical} is another one")
    rows = np.repeat(space.encode(genotype)[None], 8, axis=0)
    for row in space.twins(rows, rng.child(7, "twins", index)):
        twin = space.canonical(space.decode(row))
        require(twin == canonical, f"the twins {genotype} and {space.decode(row)} have two canonical forms")


def samples_are_legal_and_canonical(space: Space, index: int) -> None:
    """And follow from the generator alone."""
    genotype = _some(space, index)
    space.validate(genotype)
    require(space.canonical(genotype) == genotype, f"the sample {genotype} is not canonical")
    require(_some(space, index) == genotype, "equal generators give different samples")


def a_mutant_is_another_canonical_architecture(space: Space, index: int) -> None:
    """Legal, canonical, and never what it started from."""
    start = space.decode(_masked(space, index))
    mutant = space.mutate(start, rng.child(7, "mutate", index))
    space.validate(mutant)
    require(space.canonical(mutant) == mutant, f"the mutant {mutant} is not canonical")
    require(mutant != space.canonical(start), f"the mutant of {start} is {start}")


def text_reads_back(space: Space, index: int) -> None:
    """A genotype's text is read as that genotype, also with spaces around it."""
    genotype = _some(space, index)
    require(space.parse(genotype.key) == genotype, f"{genotype.key!r} reads as another genotype")
    again = space.parse(f"  {genotype.key}\n", space.dialects[0])
    require(again == genotype, f"{genotype.key!r} with spaces around it reads as another genotype")


def graphs_are_acyclic_and_use_every_state(space: Space, index: int) -> None:
    """Edges come from earlier states, and outputs are states in ascending order."""
    for role, cell in space.lower(_some(space, index)).cells:
        require(role, "a cell has no role")
        for number, node in enumerate(cell.nodes):
            sources = [edge.source for edge in node]
            require(
                all(0 <= source < cell.inputs + number for source in sources),
                f"node {number} of {role} reads {sources}",
            )
        require(list(cell.output) == sorted(set(cell.output)), f"the outputs of {role} are {cell.output}")
        require(max(cell.output) < cell.inputs + len(cell.nodes), f"{role} has no state {max(cell.output)}")


OF_EXAMPLES: tuple[Callable[[Space, int], None], ...] = (
    encode_and_decode_are_inverse,
    the_mask_admits_exactly_the_legal_tokens,
    canonical_is_idempotent_and_blind_to_twins,
    samples_are_legal_and_canonical,
    a_mutant_is_another_canonical_architecture,
    text_reads_back,
    graphs_are_acyclic_and_use_every_state,
)
