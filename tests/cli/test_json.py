"""What programs read: every command's form, errors, and what the columns of a pool mean.

Of all tests that call a command with `--json` the fixture `call` compares what is printed with the command's form.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from nao_ray.cli.app import app
from nao_ray.cli.forms import forms
from nao_ray.pool import SCHEMAS, columns

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "pool" / "pool_of_before"
CONFIG = "{name: tiny, space: nao_cnn_small, evaluator: closed_form, strategy: random_search, budget: {trials: 3}}"
FREE = {"bench", "page", "recipes", "table"}
"""Commands whose JSON is what the user asks for, not a form of ours; and a server."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_search_from_start_to_end_without_a_person(call):
    Path("tiny.yaml").write_text(CONFIG)
    searched = json.loads(call("search", "tiny.yaml", "--in-process", "--json").out)
    assert (searched["pool"], searched["completed"], searched["failed"]) == ("pools/tiny", 3, 0)
    assert Path(searched["report"]).is_file()
    again = json.loads(call("resume", "pools/tiny", "--set", "budget.trials=4", "--in-process", "--json").out)
    assert again["completed"] == 4
    (best,) = json.loads(call("pool", "pools/tiny", "best", "-n", "1", "--json").out)
    assert (best["trial_id"], best["valid_accuracy"]) == (again["best_trial_id"], again["best_score"])
    assert json.loads(call("pool", "pools/tiny", "check", "--json").out)["problems"] == []
    assert json.loads(call("pool", "pools/tiny", "compact", "--json").out)["trials"] == 4
    assert json.loads(call("report", "pools/tiny", "--out", "here.html", "--json").out)["files"] == ["here.html"]
    (file, *_) = json.loads(
        call(
            "export", best["genotype"], "--space", best["space"], "--format", "genotype", "--out", "it.json", "--json"
        ).out
    )["files"]
    assert json.loads(Path(file).read_text())["genotype"] == best["genotype"]
    nobody = call("cancel", "pools/tiny", "0", "--json")
    assert (nobody.code, json.loads(nobody.err)["error"]) == (2, "PoolError")


def test_a_pool_says_how_many_stand_on_each_rung(call):
    Path("tiny.yaml").write_text(f"{CONFIG[:-1]}, fidelity: {{epochs: [1, 2, 4]}}}}")
    call("search", "tiny.yaml", "--in-process", "--set", "budget.trials=12", "--json")
    rungs = json.loads(call("pool", "pools/tiny", "--json").out)["rungs"]
    assert list(rungs) == ["1", "2", "4"]
    assert sum(rungs.values()) == 12
    assert rungs["1"] > rungs["2"] > 0
    said = ", ".join(f"{count} after {epochs} epoch" + "s" * (epochs != "1") for epochs, count in rungs.items())
    assert f"rungs: {said}\n" in call("pool", "pools/tiny").out
    call("search", "tiny.yaml", "--in-process", "--set", "fidelity=null", "--pool", "pools/plain", "--json")
    assert json.loads(call("pool", "pools/plain", "--json").out)["rungs"] == {}


@pytest.mark.parametrize(
    ("words", "kind", "code", "message"),
    [
        (["pool", "nowhere", "--json"], "PoolError", 2, "nowhere"),
        (["search", "nothing", "--json"], "ConfigError", 2, "no config file nothing"),
        (["pool", "nowhere", "--json", "--csv"], "ConfigError", 2, "choose one of --json and --csv"),
        (["pool", "x", "--jsn", "--json"], "UsageError", 2, "No such option: --jsn"),
    ],
)
def test_an_error_is_an_object_too(call, words, kind, code, message):
    done = call(*words)
    said = json.loads(done.err)
    assert (done.code, said["exit_code"], said["error"], done.out) == (code, code, kind, "")
    assert message in said["message"]


def test_each_command_prints_json_and_its_form_is_known():
    found = get_command(app).commands
    shown = {name: command for name, command in found.items() if not command.hidden and name not in {"schema", *FREE}}
    has_option = {name for name, command in shown.items() if any("--json" in each.opts for each in command.params)}
    assert has_option == set(shown)
    assert {name if name in shown else name.split()[0] for name in forms()} - {"errors"} == set(shown)


def test_schemas_are_printed(call):
    assert set(json.loads(call("schema").out)) == set(forms())
    (row,) = json.loads(call("schema", "pool", "best").out)["$defs"].values()
    assert row["properties"]["macs"]["description"].startswith("multiply-adds of one image")
    assert call("schema", "pol").code == 2


# -- columns ------------------------------------------------------------------------------------------------


def test_every_column_is_explained_and_nothing_else():
    assert [(each.table, each.name) for each in columns()] == [
        (table, field.name) for table, schema in SCHEMAS.items() for field in schema
    ]


def test_what_is_not_said_to_be_null_never_is(call):
    Path("tiny.yaml").write_text(CONFIG.replace("closed_form", "{name: faulty, error_share: 0.5}"))
    call("search", "tiny.yaml", "--in-process", "--json")
    for table, folder in (("trials", "pools/tiny/trials"), ("trials", BEFORE / "trials"), ("final", BEFORE / "final")):
        rows = pd.read_parquet(folder)
        always = [each.name for each in columns() if each.table == table and "null" not in each.meaning]
        assert [name for name in always if name in rows and rows[name].isna().any()] == [], folder


def test_the_page_has_the_columns_as_the_code_says_them():
    from nao_ray._pool.columns import markdown

    page = (ROOT / "docs" / "pool.md").read_text()
    for table in SCHEMAS:
        (written,) = re.findall(rf"<!-- columns of {table} -->\n(.*?)\n<!-- end -->", page, flags=re.DOTALL)
        assert written == markdown(table), f"docs/pool.md: write what nao_ray._pool.columns.markdown({table!r}) gives"
