"""NAS-Bench-201's cell against the published table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nao_ray import rng
from nao_ray.errors import GenotypeError
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"


def test_published_number_of_architectures() -> None:
    space = NasBench201()
    assert (space.num_genotypes, space.num_architectures) == (15625, 6466)


def test_classes_agree_with_the_table(data_folder: Path) -> None:
    table = pd.read_parquet(
        data_folder / "nas_bench_201" / "nas_bench_201.parquet", columns=["index", "arch_str", "unique_index"]
    )
    space = NasBench201()
    keys = table["arch_str"].map(lambda text: space.canonical(space.parse(text)).key)
    assert keys.nunique() == 6466
    assert (table.groupby(keys)["index"].transform("min") == table["unique_index"]).all()


def test_text_tokens_and_twins() -> None:
    space = NasBench201()
    genotype = space.parse(BEST)
    assert str(genotype) == BEST
    assert space.decode(space.encode(genotype)) == genotype
    rows = np.stack([space.encode(space.sample(rng.child(0, "sample", k))) for k in range(50)])
    twins = space.twins(rows, rng.child(0, "twins"))
    assert (twins != rows).any()
    for row, twin in zip(rows, twins, strict=True):
        assert space.canonical(space.decode(twin)) == space.canonical(space.decode(row))


def test_mutant_is_another_architecture() -> None:
    space = NasBench201()
    for k in range(300):
        genotype = space.sample(rng.child(1, "sample", k))
        assert space.mutate(genotype, rng.child(1, "mutate", k)) != space.canonical(genotype)


def test_fewer_operations() -> None:
    space = NasBench201(NasBench201Config(ops=("skip_connect", "nor_conv_3x3", "nor_conv_1x1")))
    assert space.vocabulary == 4
    assert space.parse(BEST).key == BEST
    with pytest.raises(GenotypeError, match="no operation 'none', choose of skip_connect"):
        space.parse(BEST.replace("skip_connect", "none"))
    with pytest.raises(GenotypeError, match="ops must be distinct"):
        NasBench201(NasBench201Config(ops=("none", "none")))


@pytest.mark.parametrize("text", ["|nor_conv_3x3~0|", BEST.replace("~2", "~1"), "", BEST + "+|none~0|"])
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(GenotypeError, match="space nas_bench_201"):
        NasBench201().parse(text)
