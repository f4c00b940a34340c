"""How a network is trained, apart from its size and its epochs, and published full trainings. Imports without torch.

The defaults are the search recipe of NAO without weight sharing (Luo, Tian, Qin, Chen, Liu, "Neural Architecture
Optimization", NeurIPS 2018, arXiv 1808.07233, and the child trainer of its TensorFlow code): SGD with momentum 0.9, a
cosine from 0.024 whose period is 100 epochs although training stops at 25, weight decay 5e-4 on all weights, gradients
clipped at norm 5, auxiliary head 0.4, drop path with keep 0.7, no cutout, score of the best epoch.

Differs from the paper: weight decay is added after the clipping, as torch's SGD does; the cosine falls with every step
instead of every epoch; drop path's schedule ends with the epochs trained.

Drop path and identity edges, which `drop_path_identity` decides: the paper's search and final trainings (its TensorFlow
code) leave them alone, and so do ENAS's; NAO_pytorch drops them since 2020-03-16, in supernets and final trainings. The
errors that it publishes for V1 are of before, when it spared the edges that read state 4 or 5 instead, by a mix-up of
ids. So left at null every recipe does as the reference of its results did, those of V1 but for the mix-up, and shared
weights do as the code that is out now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, SerializeAsAny, model_validator

from nao_ray.errors import ConfigError
from nao_ray.settings import Settings
from nao_ray.training import recipe_file
from nao_ray.training.augmentation import Augmentation
from nao_ray.training.published import FULL_TRAININGS, IMAGE_RECIPES, RECIPES, TEXT_RECIPES
from nao_ray.training.schedule import Averaging, Schedule
from nao_ray.training.text_parts import Restarts, Segments, TextPenalties


class _Named(Settings):
    name: str = "paper_search"
    """One of `RECIPES`; what is not given is taken from it. In YAML also a file of such settings."""


class Optimiser(Settings):
    """How a step moves the weights: SGD with momentum, of some weights orthogonalised."""

    batch: int = Field(default=128, ge=2)
    """Examples per step."""
    per_worker: bool = False
    """Of a full training by n workers: `batch`, `lr` and `lr_end` are each one's, and all n together take n times as
    much (128 n and 0.1 n on ImageNet); false: they are those of all, and each takes an n-th of the batch."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)
    """On all trainable weights, those of batch norm too."""
    orthogonal: float = Field(default=0.0, ge=0)
    """Share of the learning rate by which convolutions over several channels take a step made orthogonal (Muon); 0:
    they move as all else does."""
    clip_norm: float | None = Field(default=5.0, gt=0)
    """Largest global norm of the gradient; null: not clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast for a network on its own on a CUDA device that has it, float32 once its step could not
    be recorded; else float32: steps that are launched one by one, as those of shared weights, gain nothing by
    autocast, and those of a CPU lose."""


class Regularisation(Settings):
    """What keeps a network from learning by heart; each family of networks has its own."""

    kind: ClassVar[str] = ""
    """What the family is of, in words."""
    batch_norm: ClassVar[bool] = False
    """Its networks have it."""


class ImageRegularisation(Regularisation):
    """That of networks for images, and what their heads need for it."""

    kind: ClassVar[str] = "images"
    batch_norm: ClassVar[bool] = True

    auxiliary_weight: float = Field(default=0.4, ge=0)
    """Weight of the auxiliary head's loss; 0: no such head."""
    drop_path_keep: float = Field(default=0.7, gt=0, le=1)
    """Probability of keeping an edge where fewest are kept, see `drop_path_schedule`."""
    drop_path_schedule: Literal["cell_and_step", "epoch"] = "cell_and_step"
    """How the share of dropped edges grows. `cell_and_step`: from cell to cell and from step to step, most in the last
    cell at the last step (NAO); `epoch`: alike in all cells, e/E of the most in epoch e of 0..E-1 (DARTS)."""
    drop_path_identity: bool | None = None
    """Identity edges are dropped too; null: in shared weights they are, in a network of one genotype they are not."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping a pooled feature."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class TextRegularisation(TextPenalties, Regularisation):
    """That of recurrent networks."""

    kind: ClassVar[str] = "texts"


class Recipe(Regularisation, Schedule, Optimiser, _Named):
    """Settings of a training. In YAML a name, or a mapping with a name and the settings that differ.

    What a name stands for is a recipe of a family, of images or of texts, which has parts of its own: `Recipe` makes
    and validates that one, and is itself what they have in common.
    """

    named: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    """Those of the family."""
    score: Literal["best", "last"] = "best"
    """Which epoch's validation scores the architecture. `best` is the paper's; where the learning rate ends near 0
    `last` is the fairer one: the best of all epochs rewards noise, and more of it in longer trainings."""

    def __new__(cls, **given: Any) -> Self:  # noqa: ANN401
        made: Any = super().__new__(_family(given.get("name")) if cls is Recipe else cls)
        return cast(Self, made)

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_family(cls, value: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:  # noqa: ANN401
        if cls is not Recipe:
            return handler(value)
        if isinstance(value, Recipe):
            return value
        return _family(value.get("name") if isinstance(value, dict) else value).model_validate(value)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if recipe_file.is_file(value.get("name")):
            value = {**recipe_file.read(value.pop("name"), cls.model_fields), **value}
        name = value.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str) or name not in RECIPES:
            close = get_close_matches(str(name), RECIPES, n=1)
            hint = (
                f"did you mean {close[0]}?" if close else f"known: {', '.join(RECIPES)}, or a file that ends in .yaml"
            )
            raise ValueError(f"name: no recipe is named {name!r}; {hint}")
        if name not in cls.named:
            raise ValueError(f"the recipe {name} is not one of {cls.kind}; those are {', '.join(cls.named)}")
        if foreign := [key for key in value if key not in cls.model_fields and key in _known()]:
            raise ValueError(f"{foreign[0]} is no setting of {name}, which is a recipe of {cls.kind}")
        others = [key for key in value if key not in cls.model_fields]
        strange = [key for key in others if not get_close_matches(str(key), cls.model_fields, n=1)]
        if strange:
            known = ", ".join(cls.model_fields)  # not the other family's
            raise ValueError(f"{strange[0]}: no setting of a recipe of {cls.kind}; known: {known}")
        return {**cls.named[name], **value}

    def of_all(self, workers: int) -> Self:
        """That of so many workers together, see `per_worker`."""
        if not self.per_worker or workers == 1:
            return self
        more = {name: workers * getattr(self, name) for name in ("batch", "lr", "lr_end")}
        return self.model_copy(update={**more, "per_worker": False})

    def check_relaxed(self) -> None:
        """Refuse what a relaxed supernet has none of.

        Raises:
            ValueError: there is some.
        """

    def of_alphas(self, *, augment: bool) -> Self:
        """As the examples of the alphas are read, where this one is the weights'.

        Args:
            augment: as for the weights.

        Raises:
            ValueError: they are not augmented anyway.
        """
        return self

    @classmethod
    def families(cls) -> tuple[type[Recipe], ...]:
        """Of which a recipe is one."""
        return (ImageRecipe, TextRecipe) if cls is Recipe else (cls,)


class ImageRecipe(Averaging, Augmentation, ImageRegularisation, Recipe):
    """For images."""

    named: ClassVar[Mapping[str, Mapping[str, Any]]] = IMAGE_RECIPES

    sync_batch_norm: bool = False
    """Of a full training by several workers: batch norm's statistics are those of the whole batch, and what is dropped
    and augmented is drawn as by one worker, so that any number of them train as one does, but for the order of sums.
    False, as the references train on several GPUs: each has those of its part of the batch."""

    def check_relaxed(self) -> None:
        for name, none in {"auxiliary_weight": 0, "dropout": 0, "drop_path_keep": 1, "orthogonal": 0}.items():
            if getattr(self, name) != none:
                raise ValueError(f"recipe.{name}: a relaxed supernet has none of it; give {none}")

    def of_alphas(self, *, augment: bool) -> Self:
        return self if augment else self.model_copy(update=self.unchanged)


class TextRecipe(Restarts, Averaging, Segments, TextRegularisation, Recipe):
    """For texts, read by a recurrent network."""

    named: ClassVar[Mapping[str, Mapping[str, Any]]] = TEXT_RECIPES

    name: str = "short_text"
    """One of those of texts, else as in others."""

    def of_alphas(self, *, augment: bool) -> Self:
        """Segments of one length, and no penalties, as in the code of DARTS."""
        if not augment:
            raise ValueError("augment_alphas: a text is not augmented; leave it out")
        plain = {"segments": "fixed", "activation_penalty": 0.0, "slowness_penalty": 0.0}
        return self.model_copy(update=plain)


def usually(name: str) -> tuple[Any, Any]:
    """A field of a config: a recipe, the one of this name where none is named."""

    def named(value: Any) -> Any:  # noqa: ANN401
        return {"name": name, **value} if isinstance(value, Mapping) else value

    return Annotated[SerializeAsAny[Recipe], BeforeValidator(named)], Field(default_factory=lambda: Recipe(name=name))


R = TypeVar("R", bound=Regularisation)


def expect(kind: type[R], given: Settings, of: str) -> R:
    """A recipe, or its regularisation, that has to be of a family.

    Args:
        kind: of the family.
        given: what is there.
        of: what needs it; begins the message.

    Raises:
        ConfigError: it is of another one.
    """
    if isinstance(given, kind):
        return given
    table, name = (
        TEXT_RECIPES if kind.kind == TextRegularisation.kind else IMAGE_RECIPES,
        getattr(given, "name", "this"),
    )
    raise ConfigError(
        f"{of} is trained by a recipe of {kind.kind}, and {name} is none; give recipe.name, one of {', '.join(table)}"
    )


def _family(name: object) -> type[ImageRecipe] | type[TextRecipe]:
    """Of a recipe's name, or of a file that names one."""
    if recipe_file.is_file(name):
        name = recipe_file.read(str(name), _known()).get("name")
    return TextRecipe if isinstance(name, str) and name in TEXT_RECIPES else ImageRecipe


def _known() -> list[str]:
    """Settings of any recipe."""
    return list({**ImageRecipe.model_fields, **TextRecipe.model_fields})


def full_training(recipe: str, sizes: Collection[str]) -> dict[str, Any]:
    """Size, epochs and recipe of a full training.

    Args:
        recipe: one of `FULL_TRAININGS`, or a file of settings; that has the size of the one it names, or none.
        sizes: names of those that the networks have; what is said of others is left out.

    Raises:
        ConfigError: there is no such recipe, or file.
    """
    name = recipe_file.read(recipe, _known()).get("name") if recipe_file.is_file(recipe) else recipe
    if name not in FULL_TRAININGS and not recipe_file.is_file(recipe):
        raise ConfigError(
            f"no full training is named {recipe!r}; known: {', '.join(FULL_TRAININGS)}, or a file of settings"
        )
    plan = {"size": {}, **FULL_TRAININGS.get(str(name), {})}
    size = {name: value for name, value in plan.pop("size").items() if name in sizes}
    return {**size, **plan, "recipe": recipe}
