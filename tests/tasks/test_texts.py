"""Tasks of text: files, tables, folders that are cut, vocabularies, and what is refused in one line."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nao_ray import registry
from nao_ray.errors import DataError
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.tasks.texts.reading import decode, units
from nao_ray.tasks.texts.vocabulary import Vocabulary
from tests.tasks import _made_up_data as made

DATA = Path(os.environ.get("NAO_RAY_DATA", Path(__file__).parents[3] / "shared" / "data"))


def task(name, **settings):
    cls = registry.load("task", name)
    return cls(cls.Config(**settings))


@pytest.mark.parametrize(
    ("name", "sizes", "vocabulary"),
    [
        ("ptb", (929_589, 73_760, 82_430), 10_000),
        pytest.param("wikitext2", (2_088_628, 217_646, 245_569), 33_278, marks=pytest.mark.slow),
    ],
)
def test_real_texts_have_the_published_tokens_and_words(name, sizes, vocabulary):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there")
    text = task(name, path=str(DATA / name))
    train, valid = text.load()
    assert (len(train), len(valid), len(text.load_test())) == sizes
    assert text.vocabulary == text.usual_vocabulary == vocabulary
    assert text.check_test() == ()
    assert text.facts().line == (
        f"task {name}, {DATA / name}: {sizes[0]:,} tokens train, {sizes[1]:,} validate; {vocabulary:,} words"
    )


@pytest.mark.parametrize(("end", "mark"), [("\n", b""), ("\r\n", b""), ("\n", b"\xef\xbb\xbf")])
def test_ends_of_lines_and_a_mark_of_bytes_change_nothing(tmp_path, end, mark):
    made.text(tmp_path, end)
    train = tmp_path / "made.train.txt"
    train.write_bytes(mark + train.read_bytes())
    text = task("ptb", path=str(tmp_path))
    assert text._vocabulary.words == ("the", "cat", "sat", "on", "mat", "<eos>", "<unk>")
    tokens, valid = text.load()
    assert (len(tokens), len(valid)) == (80 * 6, 20 * 6 + 1)
    assert (tokens == 5).sum() == 80
    assert tokens[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert text.facts().line.endswith("7 words; 1 of 121 validation tokens are unknown words")
    assert text.check_test() == ("1 of 121 test tokens are unknown words",)
    assert isinstance(text.shapes, TokenShapes)
    assert text.shapes.vocabulary == 7


def test_a_table_is_the_files(tmp_path):
    (tmp_path / "files").mkdir()
    made.text(tmp_path / "files")
    files, lines = task("ptb", path=str(tmp_path / "files")), []
    for split in ("test", "valid", "train"):
        rows = (tmp_path / "files" / f"made.{split}.txt").read_text().splitlines()
        lines += [{"split": split, "line": number, "text": row} for number, row in enumerate(rows)]
        rows = pa.table({"text": [row + "\n" for row in rows]})
        (tmp_path / "hub").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "one").mkdir()
    pq.write_table(pa.Table.from_pylist(lines[::-1]), tmp_path / "one" / "t.parquet")
    (tmp_path / "one" / "readme.txt").write_text("not read\n")
    for path in (tmp_path / "one", tmp_path / "one" / "t.parquet", tmp_path / "hub", f"file://{tmp_path}/one"):
        table = task("ptb", path=str(path))
        assert table.data_hash() == files.data_hash(), path
        np.testing.assert_array_equal(table.load_test(), files.load_test())


def test_a_pool_below_the_texts_is_no_data(tmp_path):
    """As where a search is started in the folder of its texts."""
    before = task("ptb", path=str(made.text(tmp_path))).data_hash()
    for folder in ("trials", "events"):
        (tmp_path / "pools" / "t" / folder).mkdir(parents=True)
        pq.write_table(pa.table({folder: [1]}), tmp_path / "pools" / "t" / folder / "a.parquet")
    (tmp_path / "pools" / "t" / "run.yaml").write_text("name: t\n")
    again = task("ptb", path=str(tmp_path))
    assert len(again.load_test()) == 121
    assert again.data_hash() == before


def test_the_vocabulary_is_by_first_appearance_and_one_word_is_unknown():
    text = ["b", "a", "b", "<unk>", "c", "c", "c"]
    assert Vocabulary.of([text]).words == ("b", "a", "<unk>", "c")
    assert Vocabulary.of([text, ["d"]]).words == ("b", "a", "<unk>", "c", "d"), "the same numbers for the first text"
    assert Vocabulary.of([["b", "a"]]).words == ("b", "a", "<unk>")
    assert Vocabulary.of([text], min_count=2).words == ("b", "<unk>", "c")
    assert Vocabulary.of([text], most=2).words == ("<unk>", "c")
    assert Vocabulary.of([["b", "a"]]).encode(["a", "z"]).tolist() == [1, 2]


def test_all_words_can_be_those_of_the_vocabulary(tmp_path):
    own, every = (task("ptb", path=str(made.text(tmp_path)), words=whose) for whose in ("train", "all"))
    assert every._vocabulary.words == (*own._vocabulary.words, "valided", "tested")
    np.testing.assert_array_equal(every.load()[0], own.load()[0])
    assert every.check_test() == ()
    assert every.data_hash() != own.data_hash()


def test_a_text_is_cut_into_words_or_characters():
    assert units("It's <b>\n\n", "word") == ["It", "'", "s", "<", "b", ">", "<eos>", "<eos>"]
    assert units(" It's  <b>\n", "space") == ["It's", "<b>", "<eos>"]
    assert units("a b\n", "character") == ["a", " ", "b", "<eos>"]


def test_a_folder_without_splits_is_cut_file_by_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.md").write_text("a " * 99 + "\n")
    (tmp_path / "b.txt").write_text("b\n" * 50)
    (tmp_path / "c.png").write_bytes(b"\x00")
    text = task("text_folder", path=str(tmp_path))
    train, valid = text.load()
    assert (len(train), len(valid), len(text.load_test())) == (160, 20, 20)
    assert text._vocabulary.words == ("b", "<eos>", "a", "<unk>")
    assert np.bincount(valid).tolist() == [5, 5, 10]
    assert "20 validate, the end of each document" in text.facts().line
    alone = tmp_path.with_name("alone.txt")
    alone.write_text("bc" * 50)
    assert len(task("text_folder", path=str(alone), unit="character").load()[0]) == 80
    (tmp_path / "b.txt").rename(tmp_path / "testing.txt")
    with pytest.raises(DataError, match=r"testing\.txt is named after a split and deep/a\.md is not; .* cut each file"):
        task("text_folder", path=str(tmp_path)).load()
    assert len(task("text_folder", path=str(tmp_path), cut=True).load()[0]) == 160


def test_pythons_help_is_a_text_that_is_there():
    text = task("pydoc_topics")
    train, valid = text.load()
    assert len(train) > 50_000
    assert len(valid) == pytest.approx(len(train) / 8, rel=0.02)
    assert 1_000 < text.vocabulary < 10_000
    assert np.mean(valid == text._vocabulary._numbers["<unk>"]) < 0.15


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, expected text"),
        (b" \r\n\n", "is empty, expected text"),
        ("\ufefftext\n".encode("utf-16-le"), "is UTF-16, expected UTF-8; iconv -f UTF-16 -t UTF-8 makes it that"),
        ("text\n".encode("utf-16-le"), "is not text: byte 1 is 0"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not text: byte 8 is 0"),
        (b"one\ntw\xf6\n", "line 2: byte 6 is not UTF-8 (0xf6)"),
    ],
)
def test_what_is_not_text_is_told_in_one_line(tmp_path, data, message):
    made.text(tmp_path)
    (tmp_path / "made.train.txt").write_bytes(data)
    with pytest.raises(DataError) as told:
        task("ptb", path=str(tmp_path)).load()
    assert message in str(told.value)
    assert str(told.value).startswith(f"{tmp_path}/made.train.txt")
    assert "\n" not in str(told.value)


def test_a_line_of_ten_megabytes_is_read_whole():
    line = "word " * 2_000_000
    assert len(units(decode(line.encode(), "it"), "space")) == 2_000_001


def test_a_split_that_is_missing_is_told(tmp_path):
    made.text(tmp_path)
    (tmp_path / "made.test.txt").unlink()
    text = task("ptb", path=str(tmp_path))
    assert len(text.load()) == 2
    for read in (text.load_test, text.check_test):
        with pytest.raises(
            DataError,
            match=r"has no test text: no file is named after test, testing; there are made\..*; expected ptb\..* http://",
        ):
            read()
    (tmp_path / "made.valid.txt").unlink()
    with pytest.raises(DataError, match="has no validation text"):
        text = task("ptb", path=str(tmp_path)).load()
    table = {"split": ["train", "TEST"], "text": ["a b", "b"]}
    for lost, message in ((None, "has no validation text: column split holds test, train"), ("text", "no column text")):
        pq.write_table(pa.table(table).drop_columns([lost] if lost else []), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=message):
            task("ptb", path=str(tmp_path / "t.parquet")).load()
    with pytest.raises(
        DataError, match=r"no such file or folder; task\.path says where the text is; expected wiki.* https://"
    ):
        task("wikitext2", path=str(tmp_path / "nowhere")).facts()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no files of text"):
        task("wikitext2", path=str(tmp_path / "none")).facts()


def test_what_is_known_of_files_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "text"
    folder.mkdir()
    made.text(folder)
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    digest = task("ptb", path=str(folder)).data_hash()
    monkeypatch.setattr("nao_ray.tasks.texts.sources.decode", None)  # a second reading would call it
    assert task("ptb", path=str(folder)).data_hash() == digest
    (folder / "made.valid.txt").write_text("other\n")
    with pytest.raises(TypeError):
        task("ptb", path=str(folder)).data_hash()


@pytest.mark.parametrize("text", ["a a a\n" * 400, "word " * 400, "x" * 10_000_000 + "\n"])
def test_a_text_of_one_word_is_refused_with_its_place(tmp_path, text):
    """One of ten megabytes too, which no message repeats."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        task("text_folder", path=str(tmp_path), min_count=1).facts()
    assert str(caught.value) == (
        f"task text_folder, {tmp_path}: the training text has 1 word, expected at least 2 beside the end of a line"
    )


def test_a_text_of_rare_words_is_refused(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("one two three four five six seven eight nine ten")
    with pytest.raises(DataError, match=r"has 0 words that appear 2 times \(task.min_count\), expected at least 2 "):
        task("text_folder", path=str(tmp_path)).load()
    assert task("text_folder", path=str(tmp_path), min_count=1).load()


def test_a_text_of_ones_own_whose_tokens_are_one_is_refused(monkeypatch):
    text = task("made_up_text")
    monkeypatch.setattr(text, "_read", lambda split: np.full(50, 3))
    with pytest.raises(DataError, match=r"^task made_up_text: all 50 training tokens are one; there is nothing to pre"):
        text.load()


def test_the_mark_of_an_unknown_word_is_one_word(tmp_path):
    assert units("the <unk> sat <b>\n", "word") == ["the", "<unk>", "sat", "<", "b", ">", "<eos>"]
    assert units("a<unk>b <eos>\n", "word") == ["a", "<unk>", "b", "<eos>", "<eos>"]
    (tmp_path / "train.txt").write_text("a <unk> b a <unk> b\n")
    (tmp_path / "valid.txt").write_text("a <unk> c\n")
    text = task("text_folder", path=str(tmp_path))
    assert text._vocabulary.words == ("a", "<unk>", "b")
    assert text.load()[1].tolist() == [0, 1, 1, 1]
