"""The script that runs on a GPU, where there is none: what fits into a call, what is left of a piece that is ended."""

import importlib
import inspect
import re
from pathlib import Path

import pieces
import pytest
from pieces import PIECES, Piece, Rows, Table

ROOT = Path(__file__).parents[2]


def test_the_usual_pieces_fit_into_what_is_promised_and_that_into_a_lent_call():
    assert sum(piece.seconds for piece in PIECES.values() if piece.usual) <= pieces.SECONDS
    assert max(piece.seconds for piece in PIECES.values()) <= pieces.SECONDS
    assert pieces.SECONDS <= 600 - 60, "the table, and the archive of packages before"
    promised = re.search(r"^test-gpu:.* in (\d+) minutes", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert int(promised[1]) * 60 == pieces.SECONDS


def test_every_test_marked_gpu_is_collected_by_a_piece():
    assert set(pieces.TESTS) <= set(PIECES["tests"].command)
    marked = [path for path in ROOT.glob("tests/**/*.py") if re.search(r"\bmark\.gpu\b", path.read_text())]
    folders = [ROOT / folder for folder in pieces.TESTS]
    assert [path for path in marked if not any(path.is_relative_to(folder) for folder in folders)] == []
    assert len(marked) > 5


@pytest.mark.parametrize("name", [name for name, piece in PIECES.items() if "bench" in piece.command])
def test_a_measurement_has_the_settings_that_its_piece_gives(name):
    piece = PIECES[name]
    bench, *words = [*piece.command[piece.command.index("bench") + 1 :], *piece.tiny]
    settings = inspect.signature(importlib.import_module(f"nao_ray.bench.{bench}").run).parameters
    given = {word.partition("=")[0] for word in words if word != "--json"}
    assert given <= set(settings)
    assert piece.tiny


def test_every_other_command_names_a_file_that_is_there():
    for piece in PIECES.values():
        for word in piece.command:
            assert not word.startswith("tests/") or (ROOT / word).exists()
    assert manual_names() == set(PIECES)


def manual_names():
    return set(re.findall(r"^  [* ] (\w+) ", pieces.manual(), re.MULTILINE))


HEADER = r"| step | ms | how |\n| --- | --- | --- |\n| plain | 44.5 | eager |\n"


def shell(seconds, text):
    return Piece(seconds, "about", ["bash", "-c", text])


def test_rows_outlive_a_piece_that_is_ended_and_a_call_that_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    ended = shell(60, f"printf '{HEADER}'; kill -9 $$")
    monkeypatch.setattr(
        pieces, "PIECES", {"first": ended, "second": shell(60, 'echo \'{"rows": [{"a": "b", "c": 1.5}]}\'')}
    )
    assert pieces.main(["first", "second"]) == 1
    table = (tmp_path / "table.md").read_text()
    assert re.search(
        r"\| \*\*first\*\* \| about \| \d+ s, exit code -9 \|\n\| first \| plain \| ms 44.5, how eager \|", table
    )
    assert re.search(r"\| \*\*second\*\* \| about \| \d+ s, done \|\n\| second \| b \| c 1.5 \|", table)
    assert capsys.readouterr().out.endswith(table)
    assert "44.5" in (tmp_path / "first.txt").read_text()


def test_a_piece_that_takes_too_long_is_ended_and_one_that_no_time_is_left_for_is_not_begun(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("LIMIT", "0.6")
    monkeypatch.setattr(pieces, "GRACE", 0.2)
    monkeypatch.setattr(pieces, "PIECES", {"first": shell(60, "sleep 600"), "second": shell(60, "true")})
    assert pieces.main(["first", "second"]) == 1
    told = capsys.readouterr().out
    assert "| **first** | about | 0 s, not done in time |" in told
    assert "| **second** | about | no time was left |" in told


def test_a_name_that_is_none_is_refused(capsys):
    assert pieces.main(["chidl"]) == 2
    assert capsys.readouterr().out.startswith("no piece is named chidl; there are tests, child, ")


def test_rows_at_the_end_take_the_place_of_those_that_came_before():
    rows = Rows()
    for line in [
        *HEADER.replace("\\n", "\n").splitlines(),
        "text",
        '{"rows": [{"step": "graph", "ms": 14.6, "x": null}]}',
    ]:
        rows.read(line)
    assert rows.found == [("graph", "ms 14.6")]


def test_tests_with_nothing_to_say_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECES", {"tests": shell(1, "true")})
    said = [
        (name, f"outcome passed, seconds 1.0, said {text}") for name, text in [("a", "-"), ("b", "2e-7"), ("c", "-")]
    ]
    assert Table(tmp_path, {"tests": said}).text().splitlines()[3:] == [
        "| tests | b | outcome passed, seconds 1.0, said 2e-7 |",
        "| tests | others | 2 passed |",
    ]
