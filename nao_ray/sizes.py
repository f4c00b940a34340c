"""How large a network is: numbers of its skeleton's own, which stand among the settings of what builds it.

A config of such settings is spelled flat, ``evaluator: {name: standalone, epochs: 8, channels: 16}``. Which sizes there
are follows from the space, by its skeleton: `Sized.of` makes the config with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, ValidationError, create_model

from nao_ray.config_text import complaint
from nao_ray.settings import Settings
from nao_ray.trial import Sizes


class Size(Settings):
    """Numbers that say how large the networks of one skeleton are, each an integer or None: as published.

    A field's title is its symbol in the paper.
    """

    @property
    def named(self) -> Sizes:
        """By name, in order of the names; without what is None."""
        return tuple(sorted(self.model_dump(exclude_none=True).items()))

    def changed(self, named: Mapping[str, int]) -> Self:
        """With other numbers. Names that it does not have are left out: pools of before recorded such."""
        return self.model_copy(update={name: value for name, value in named.items() if name in type(self).model_fields})

    def __str__(self) -> str:
        """``N = 6, F = 36``."""
        fields = type(self).model_fields
        return ", ".join(f"{fields[name].title or name} = {value}" for name, value in self.model_dump().items())


S = TypeVar("S", bound=Size)


def read_size(kind: type[S], settings: Mapping[str, Any]) -> S:
    """A size of settings by name.

    Raises:
        ConfigError: it has none of this name, or a value is not what it should be.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        raise complaint(error, kind) from None


class Sized(Settings):
    """Settings of what builds networks; made by a class of `of`, the sizes of a skeleton stand among them."""

    usual: ClassVar[Size | None] = None
    """What they are where nothing is said; None: a class without sizes."""

    @property
    def size(self) -> Size:
        """Of the networks."""
        assert self.usual is not None, f"{type(self).__name__} has no sizes: take a class of {type(self).__name__}.of()"
        return self.usual.model_copy(update={name: getattr(self, name) for name in type(self.usual).model_fields})

    @classmethod
    def of(cls, usual: Size, **fields: Any) -> type[Self]:  # noqa: ANN401 - as pydantic's create_model takes them
        """The class with the sizes of `usual`, which are the defaults; and with other `fields`."""
        return _with_sizes(cls, usual) if not fields else _made(cls, usual, fields)


C = TypeVar("C", bound=Sized)


@lru_cache(maxsize=256)
def _with_sizes(config: type[C], usual: Size) -> type[C]:
    return _made(config, usual, {})


def _made(config: type[C], usual: Size, fields: Mapping[str, Any]) -> type[C]:
    sizes: dict[str, Any] = {}
    for name, field in type(usual).model_fields.items():
        default = getattr(usual, name)
        kind: Any = field.annotation if default is None else int
        limited: Any = Annotated[(kind, *field.metadata)] if field.metadata else kind
        sizes[name] = (limited, Field(default=default, title=field.title, description=field.description))
    first = create_model("Sizes", __base__=Settings, **sizes)  # so that they are written first
    made: Any = create_model(config.__name__, __base__=(config, first), __module__=config.__module__, **fields)
    made.usual = usual
    kept: type[C] = made
    return kept
