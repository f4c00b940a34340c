"""NATS-Bench's files, made here in its format: converted, and nothing in them run."""

import bz2
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nao_ray.cli import app as cli
from nao_ray.errors import DataError
from nao_ray.evaluators.parts.nats_bench import convert
from nao_ray.evaluators.tabular import Tabular, TabularConfig
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.trial import Proposal

TEXTS = [
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
]
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def accuracy(index, epochs, dataset, evaluated, seed):
    """Tells every number of the files apart."""
    which = list(SETS).index(dataset) * 5 + ["x-valid", "ori-test", "x-test"].index(evaluated)
    return 10 + 20 * index + which + epochs / 1000 + seed / 1e6


def run_of(index, epochs, dataset, seed):
    """As `ResultsCount.state_dict` has it; numbers from numpy and from Python, as training code leaves them."""
    accuracies = {}
    for name in SETS[dataset]:
        accuracies |= {f"{name}@{epoch}": 0.5 for epoch in range(epochs - 1)}
        accuracies[f"{name}@{epochs - 1}"] = accuracy(index, epochs, dataset, name, seed)
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": OrderedDict((epoch, 50.0) for epoch in range(epochs)),
        "train_acc5es": None,
        "train_losses": OrderedDict((epoch, 1.0) for epoch in range(epochs)),
        "train_times": OrderedDict((epoch, np.float64(2.0 + index)) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": TEXTS[index], "class_num": 10},
        "params": np.float64(0.073306 + 0.028 * index),
        "flop": np.float32(8 + index),
        "seed": str(seed),
        "epochs": epochs,
        "latency": [np.float64(0.01)],
        "eval_names": list(SETS[dataset]),
        "eval_acc1es": accuracies,
        "eval_times": {},
        "eval_losses": {name: np.float64(0.1) for name in accuracies},
    }


def results_of(index, epochs, seeds):
    """As `ArchResults.state_dict` has it."""
    return {
        "arch_index": index,
        "arch_str": TEXTS[index],
        "all_results": {(name, seed): run_of(index, epochs, name, seed) for name in SETS for seed in seeds},
        "dataset_seed": {name: list(seeds) for name in SETS},
        "clear_net_done": True,
    }


def entry_of(index):
    seeds = (777, 888, 999) if index else (888, 777)
    return OrderedDict({"12": results_of(index, 12, (777,)), "200": results_of(index, 200, seeds)})


def save(content, path):
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    save(
        {"meta_archs": TEXTS, "total_archs": 3, "arch2infos": None, "evaluated_indexes": set()},
        folder / "meta.pickle.pbz2",
    )
    for index in range(3):
        save(entry_of(index), folder / f"{index:06d}.pickle.pbz2")
    return folder


def test_every_number_is_where_it_belongs(folder, tmp_path):
    assert convert(folder, tmp_path / "t.parquet") == 3
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert frame["arch_str"].tolist() == TEXTS
    assert frame["index"].tolist() == [0, 1, 2]
    assert frame["params"].tolist() == [73306, 101306, 129306]
    for index, row in frame.iterrows():
        seeds = (777, 888, 999) if index else (777, 888)
        for dataset, evaluated, column in (
            ("cifar10-valid", "x-valid", "cifar10_valid_acc_200"),
            ("cifar10-valid", "ori-test", "cifar10_valid_run_test_acc_200"),
            ("cifar10", "ori-test", "cifar10_test_acc_200"),
            ("cifar100", "x-valid", "cifar100_valid_acc_200"),
            ("cifar100", "x-test", "cifar100_test_acc_200"),
            ("ImageNet16-120", "x-valid", "ImageNet16-120_valid_acc_200"),
            ("ImageNet16-120", "x-test", "ImageNet16-120_test_acc_200"),
        ):
            values = [accuracy(index, 200, dataset, evaluated, seed) for seed in seeds]
            assert row[column] == pytest.approx(np.mean(values), abs=1e-9), column
            short = accuracy(index, 12, dataset, evaluated, 777)
            assert row[column.replace("_200", "_12")] == pytest.approx(short, abs=1e-9)
        assert row["cifar10_valid_acc_200_run1"] == accuracy(index, 200, "cifar10-valid", "x-valid", 888)
        assert row["cifar10_valid_train_time_200_s"] == pytest.approx(200 * (2 + index))
        assert row["cifar100_train_time_12_s"] == pytest.approx(12 * (2 + index))
        assert row["macs_m_ImageNet16-120"] == 8 + index
    assert frame["cifar100_valid_acc_200_run2"].isna().tolist() == [True, False, False]


def test_the_columns_are_those_of_the_known_table(folder, tmp_path, data_folder):
    convert(folder, tmp_path / "t.parquet")
    made = set(pd.read_parquet(tmp_path / "t.parquet").columns)
    known = set(pd.read_parquet(data_folder / "nas_bench_201" / "nas_bench_201.parquet").columns)
    assert {"index", "arch_str", "params", "cifar10_valid_acc_12", "cifar100_test_acc_200"} <= made & known
    assert {name for name in known if "train_time" in name or name.startswith("macs")} <= made


def test_a_search_reads_the_table(folder, tmp_path):
    convert(folder, tmp_path / "t.parquet")
    space = NasBench201()
    config = TabularConfig(
        path=str(tmp_path / "t.parquet"),
        valid="cifar100_valid_acc_200",
        test="cifar100_test_acc_200",
        cost="cifar100_train_time_200_s",
        num_params="params",
    )
    table = Tabular(space, None, config)
    measured = table.evaluate(Proposal(genotype=space.parse(TEXTS[1])))
    assert measured.wall_seconds == 600
    assert measured.num_params == 101306
    assert len(table) == 3


def test_the_one_file_gives_the_same(folder, tmp_path):
    whole = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    save({"meta_archs": TEXTS, "arch2infos": {index: dict(entry_of(index)) for index in range(3)}}, whole)
    convert(folder, tmp_path / "a.parquet")
    convert(whole, tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "b.parquet"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(folder, tmp_path):
    save({"12": Evil(tmp_path / "made")}, folder / "000001.pickle.pbz2")
    with pytest.raises(DataError, match=r"000001\.pickle\.pbz2: it holds posix\.mkdir, which is neither a number nor"):
        convert(folder, tmp_path / "t.parquet")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize("content", [eval, Path, np.array([object()], dtype=object), np.zeros(3), Exception("x"), type])
def test_whatever_is_neither_number_nor_container_is_refused(content, folder, tmp_path):
    save(content, folder / "meta.pickle.pbz2")
    with pytest.raises(DataError, match=r"it holds \S+, which is neither"):
        convert(folder, tmp_path / "t.parquet")


def test_weights_are_refused_with_a_hint(folder, tmp_path):
    save(torch.zeros(2), folder / "000000.pickle.pbz2")
    with pytest.raises(DataError, match=r"it holds torch\.\S+, .* give the folder -simple"):
        convert(folder, tmp_path / "t.parquet")


def changed(entry, **changes):
    entry["200"] |= changes
    return entry


def broken_run(value):
    entry = entry_of(2)
    entry["200"]["all_results"]["cifar10", 888]["eval_acc1es"]["ori-test@199"] = value
    return entry


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (changed(entry_of(2), arch_str=TEXTS[0]), "is of .*, the list says"),
        (changed(entry_of(2), all_results={}), "not laid out as NATS-Bench's results: KeyError"),
        ({"12": entry_of(2)["12"]}, "not laid out as NATS-Bench's results: KeyError: '200'"),
        ([1, 2], "not laid out"),
        (broken_run(float("nan")), "accuracy nan on ori-test, expected 0 to 100"),
        (broken_run(101.0), r"accuracy 101\.0 on ori-test"),
        (broken_run("high"), "not laid out .* ValueError"),
    ],
    ids=["other", "no runs", "no 200", "list", "nan", "over 100", "text"],
)
def test_malformed_results_are_named(content, told, folder, tmp_path):
    save(content, folder / "000002.pickle.pbz2")
    with pytest.raises(DataError, match=rf"000002\.pickle\.pbz2.* ?{told}") as caught:
        convert(folder, tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob(".t*")) == []


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", bz2.compress(b""), bz2.compress(b"cos\n"), bz2.compress(b"\x80\x04}")[:-4]]
)
def test_files_that_are_none_are_named(content, folder, tmp_path):
    (folder / "meta.pickle.pbz2").write_bytes(content)
    with pytest.raises(DataError, match=r"meta\.pickle\.pbz2"):
        convert(folder, tmp_path / "t.parquet")


def test_other_spaces_and_other_files_are_refused(folder, tmp_path):
    save({"meta_archs": ["64:64:64:64:64"]}, folder / "meta.pickle.pbz2")
    with pytest.raises(DataError, match="is not of the topology space"):
        convert(folder, tmp_path / "t.parquet")
    save({"archs": TEXTS}, folder / "meta.pickle.pbz2")
    with pytest.raises(DataError, match="lists no architectures"):
        convert(folder, tmp_path / "t.parquet")
    save({"meta_archs": TEXTS}, tmp_path / "meta.pickle.pbz2")
    with pytest.raises(DataError, match="holds no results"):
        convert(tmp_path / "meta.pickle.pbz2", tmp_path / "t.parquet")


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as left:
            cli.main(["table", "import", *words])
        return left.value.code, capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    code, said = call(str(folder))
    assert code == 0
    assert "3 architectures in nas_bench_201.parquet" in said.out
    assert len(pd.read_parquet("nas_bench_201.parquet")) == 3
    (folder / "000001.pickle.pbz2").unlink()
    code, said = call(str(folder), "--out", "part.parquet")
    assert code == 2
    assert "has 2 of 3 architectures; --partial takes those that are there" in said.err
    assert not Path("part.parquet").exists()
    code, said = call(str(folder), "--out", "part.parquet", "--partial")
    assert code == 0
    assert pd.read_parquet("part.parquet")["index"].tolist() == [0, 2]
    code, said = call(str(folder), "--out", "no/where.parquet", "--partial")
    assert code == 2
    assert "cannot write no/where.parquet" in said.err
    code, said = call("/nowhere")
    assert code == 2
    assert said.err.count("\n") == 1
