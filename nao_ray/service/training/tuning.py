"""Which settings of the recipe finalists are trained under, where several are tried."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nao_ray import rng, yaml_text
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError


@dataclass(frozen=True)
class Tuning:
    """Values to be tried."""

    values: Mapping[str, tuple[Any, ...]]
    """By the name of a recipe's setting."""
    samples: int | None = None
    """Combinations of them that are drawn for each finalist; None: it is trained under all."""

    @classmethod
    def parse(cls, texts: Sequence[str], samples: int | None = None) -> Tuning:
        """From ``lr=0.01,0.025`` and the like; the values are YAML.

        Raises:
            ConfigError: a text is not of that form, or gives a name or a value twice.
        """
        values: dict[str, tuple[Any, ...]] = {}
        for text in texts:
            name, separator, listed = text.partition("=")
            name = name.strip().removeprefix("evaluator.").removeprefix("recipe.")
            if not separator or not name or not listed.strip():
                raise ConfigError(f"--space {text}: expected SETTING=VALUE,VALUE,... of a recipe")
            if name in values:
                raise ConfigError(f"--space {text}: {name} is given twice; give all its values at once")
            try:
                found = yaml_text.load(f"[{listed}]")
            except yaml_text.YamlTextError as error:
                raise ConfigError(f"--space {text}: {listed!r} is no list of YAML values: {error}") from None
            values[name] = tuple(found)
        return cls(values, samples)

    def checked(self, config: RunConfig) -> Tuning:
        """With the values as the recipe of a config takes them.

        Raises:
            ConfigError: it has no such setting, or a value is wrong, or given twice.
        """
        evaluator, space = config.evaluator_config, config.make_space()
        kind, outline = type(config.make_evaluator()), None if config.task is None else config.make_task().outline
        taken: dict[str, tuple[Any, ...]] = {}
        for name, values in self.values.items():
            given: list[Any] = []
            for value in values:
                try:
                    under = evaluator.under({name: value})
                    kind.check(space, outline, under)
                except ConfigError as error:
                    wrong = str(error).removeprefix(f"{name}: ")
                    raise ConfigError(f"--space {name}={value}: {wrong}") from None
                given.append(under.model_dump(mode="json")["recipe"][name])
            if len(set(map(repr, given))) < len(given):
                raise ConfigError(f"--space {name}: a value is given twice, of {', '.join(map(str, values))}")
            taken[name] = tuple(given)
        return Tuning(taken, self.samples)

    def trials(self, genotypes: Sequence[str], seed: int) -> tuple[list[str], list[dict[str, Any]]]:
        """What is trained under what, the best finalist's first; `seed` names what is drawn."""
        every = [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]
        pairs = []
        for number, genotype in enumerate(genotypes):
            chosen = list(range(len(every)))
            if self.samples is not None and self.samples < len(every):
                drawn = rng.child(seed, "tuning", number).choice(len(every), self.samples, replace=False)
                chosen = sorted(drawn.tolist())
            pairs += [(genotype, every[index]) for index in chosen]
        return [genotype for genotype, _ in pairs], [settings for _, settings in pairs]
