"""YAML with one meaning: read by the rules of 1.2, written so that either version reads the same."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nao_ray.yaml_text import HEAD, YamlTextError, dump, load, load_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("12:30", "12:30"),
        ("010", 10),
        ("0o10", 8),
        ("1e-1", 0.1),
        ("1e3", 1000.0),
        ("true", True),
        ("yes", "yes"),
        ("off", "off"),
        ("2026-11-27", "2026-11-27"),
        ("=", "="),
        ("null", None),
        ("", None),
        ("[1, a]", [1, "a"]),
    ],
)
def test_values_are_read_by_the_rules_of_1_2(text, value):
    found = load(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key a is given twice, in lines 1 and 3"),
        ("s:\n  x: 1\n  x: 1\n", "the key x is given twice, in lines 2 and 3"),
        ("a: 1\n1: 2\n", "line 2: the key 1 is no text: write it in quotes"),
        ("a: [", "line 1, column 5: expected the node content"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("\x00", "special characters are not allowed"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_has_no_meaning_or_two_is_refused_in_one_line(text, told):
    with pytest.raises(YamlTextError, match=told) as caught:
        load(text)
    assert "\n" not in str(caught.value)


_words = st.sampled_from(
    ["1e-1", "1:30", "010", "0o10", "0x1F", "yes", "1_000", ".5", "1.", "+.inf", "2026-11-27", "~"]
)
_values = st.one_of(_words, st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())


@given(st.dictionaries(st.text(), st.one_of(_values, st.lists(_values)), max_size=4))
def test_what_is_written_reads_the_same_by_either_version(data):
    text = dump(data)
    assert load(text) == yaml.safe_load(text) == yaml.safe_load(HEAD + text) == data


def test_a_document_of_an_earlier_version_is_read_as_it_was_written():
    data = {"name": "1e3", "path": "0o17", "gpus": 0.1, "clock": "1:30"}
    old = yaml.safe_dump(data)
    assert load_document(old) == data != load(old)
    assert load_document(HEAD + dump(data)) == data
    with pytest.raises(YamlTextError):
        load_document("a: [")


def test_what_is_read_twice_is_not_shared():
    first = load("a: {b: [1]}")
    first["a"]["b"].append(2)
    assert load("a: {b: [1]}") == {"a": {"b": [1]}}
