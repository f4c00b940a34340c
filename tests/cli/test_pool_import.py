"""`nao-ray pool import`: tables of other people's results become pools, whole or not at all."""

import gzip
import json

import pandas as pd
import pytest

from nao_ray.pool import PoolReader

GOOD = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
FAIR = "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
TABLE = pd.DataFrame(
    {
        "arch": [FAIR, GOOD, FAIR],
        "acc": [90.5, 91.6, 91.5],
        "epochs": [12, 200, 200],
        "params": [100, 300, 100],
        "lab": ["a", "b", "a"],
    }
)
OPTIONS = ("--space", "nas_bench_201", "--genotype", "arch", "--score", "acc")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name):
    if name.endswith(".parquet"):
        TABLE.to_parquet(name)
    elif "json" in name:
        with open(name, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in TABLE.to_dict("records"))
    else:
        text = TABLE.to_csv(index=False, sep="\t" if "tsv" in name else ";" if name == "semicolons.csv" else ",")
        data = text.encode()
        with open(name, "wb") as file:
            file.write(gzip.compress(data) if name.endswith(".gz") else data)
    return name


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "semicolons.csv", "odd[1].csv", "t.parquet", "t.jsonl"])
def test_a_row_is_a_trial(name, call):
    done = call("pool", "import", written(name), *OPTIONS, "--unit", "percent", "--column", "num_params=params")
    assert (done.code, done.err) == (0, "")
    assert "3 trials of 2 architectures from 3 rows" in done.out
    assert "epochs, num_params=params" in done.out
    assert "lab" in done.out
    url = done.out.split()[-1]
    rows = pd.read_parquet(f"{url}/trials")
    assert rows["valid_accuracy"].tolist() == pytest.approx([0.905, 0.916, 0.915])
    assert rows["genotype"].tolist() == [FAIR, GOOD, FAIR], "a repeat is a trial of its own"
    assert rows[["epochs", "num_params", "file_row"]].values.tolist() == [[12, 100, 1], [200, 300, 2], [200, 100, 3]]
    assert set(rows["origin"]) == set(rows["strategy"]) == {"imported"}
    source = PoolReader.open(url).manifest["imported"]
    assert (source["file"], source["rows"], len(source["sha256"])) == (name, 3, 64)
    assert source["columns"] == {"genotype": "arch", "score": "acc", "epochs": "epochs", "num_params": "params"}


def test_it_is_a_pool_like_any_other(call):
    call("pool", "import", written("t.csv"), *OPTIONS, "--unit", "percent", "--pool", "mine")
    assert call("pool", "mine", "check").out.strip() == "mine: sound"
    best = json.loads(call("pool", "mine", "best", "-n", "1", "--json").out)
    assert (best[0]["genotype"], best[0]["trial_id"]) == (GOOD, 1)
    assert json.loads(call("describe", "mine:best", "--json").out)["genotype"] == GOOD
    assert call("report", "mine").code == 0
    resumed = call("resume", "mine", "--in-process")
    assert resumed.code == 2
    assert "the trials of mine were imported" in resumed.err
    assert "strategy.warm_start=[mine]" in resumed.err


def test_nothing_is_imported_by_half(call):
    rows = ["arch,acc,macs", f"{GOOD},0.9,5", f"{GOOD},n/a,5", f"{FAIR[:-3]},0.9,", f"{FAIR},91,5", ",0.5,5"]
    rows += [f"{GOOD},,5", f"{GOOD},inf,5", f"{GOOD},0.9,1.5"]
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write("\n".join(rows))
    refused = call("pool", "import", "t.csv", *OPTIONS)
    assert refused.code == 2
    assert "7 of 8 rows cannot be read, and nothing was imported" in refused.err
    reasons = [
        "row 2: acc is 'n/a', expected a number",
        "row 3: space nas_bench_201",
        "row 4: acc is 91",
        "--unit percent",
    ]
    reasons += [
        "row 5: arch is empty",
        "row 6: acc is empty",
        "row 7: acc is inf",
        "row 8: macs is 1.5, expected a whole",
    ]
    for reason in reasons:
        assert reason in refused.err
    assert not PoolReader.exists("pools/t")
    done = json.loads(call("pool", "import", "t.csv", *OPTIONS, "--partial", "--json").out)
    assert (done["trials"], done["rows"], len(done["left_out"])) == (1, 8, 7)


def test_less_than_a_percent_is_chance_among_many_classes(call):
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write(f"arch,acc\n{GOOD},46.7\n{FAIR},0.83\n{FAIR},1\n")
    assert call("pool", "import", "t.csv", *OPTIONS, "--unit", "percent").code == 0
    assert PoolReader.open("pools/t").trials()["valid_accuracy"].tolist() == pytest.approx([0.467, 0.0083, 0.01])


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("arch,acc\na,1,2\n", (), "cannot be read"),
        ("arch,acc\n", (), "has no rows"),
        ("arch,arch\n", (), "two columns 'arch'"),
        ("arch,acc2\n", (), "has no column 'acc'; it has arch, acc2"),
        (f"arch,acc\n{GOOD},1\n", ("--column", "size=acc"), "a pool has no such column to give"),
        (f"arch,acc\n{GOOD},1\n", ("--column", "size"), "expected NAME=COLUMN"),
        (f"arch,acc\n{GOOD},1\n", ("--unit", "nats", "--metric", "accuracy"), "percent or fraction, got 'nats'"),
        (f"arch,acc\n{GOOD},1\n", ("--space", "nowhere"), "no space is named 'nowhere'"),
        (f"arch,acc\n{GOOD},1\n", ("--dialect", "nao"), "dialect"),
        (f"arch,acc\n{GOOD[1:]},1\n", (), "row 1: space nas_bench_201: expected |op~0|"),
        (f"arch,acc\n{GOOD},91.6\n{FAIR},0.92\n{FAIR},93\n", ("--unit", "percent"), "row 2: acc is 0.92 where others"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(text, more, message, call):
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write(text)
    refused = call("pool", "import", "t.csv", *OPTIONS, *more)
    assert refused.code == 2
    assert message in refused.err
    assert not PoolReader.exists("pools/t")


def test_of_a_loss_less_is_better(call):
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write(f"arch,val_loss\n{FAIR},1.5\n{GOOD},1.2\n")
    options = ("--space", "nas_bench_201", "--genotype", "arch", "--score", "val_loss")
    assert "by its name less is better (loss): give --goal minimize" in call("pool", "import", "t.csv", *options).err
    assert call("pool", "import", "t.csv", *options, "--goal", "minimize", "--unit", "nats").code == 0
    assert "loss (nats)" in call("pool", "pools/t").out
    assert PoolReader.open("pools/t").best(1)["genotype"].tolist() == [GOOD]


def test_an_import_that_was_cut_off_is_finished_and_another_table_is_refused(call, monkeypatch):
    from nao_ray._pool.writer import PoolWriter

    with monkeypatch.context() as broken:
        broken.setattr(PoolWriter, "record_finished", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call("pool", "import", written("t.csv"), *OPTIONS, "--unit", "percent").code == 130
    assert PoolReader.open("pools/t").counts().finished == 0
    for _ in range(2):
        assert call("pool", "import", "t.csv", *OPTIONS, "--unit", "percent").code == 0
        assert PoolReader.open("pools/t").counts().finished == 3
    TABLE.head(2).to_csv("t.csv", index=False)
    refused = call("pool", "import", "t.csv", *OPTIONS, "--unit", "percent")
    assert refused.code == 2
    assert "is a pool already, and not of this table" in refused.err


def test_a_pool_of_that_name_is_still_reached(call):
    call("pool", "import", written("t.csv"), *OPTIONS, "--unit", "percent", "--pool", "import")
    assert call("pool", "./import").out.startswith("./import: 3 asked")
