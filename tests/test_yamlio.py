"""YAML with line numbers, and without YAML 1.1's surprises."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.fsio import to_json
from hpc_hpo.yamlio import load_yaml


def value_of(word: str) -> Any:
    return load_yaml(f"key: {word}").data["key"]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.0e-5", 1e-5),
        (".5", 0.5),
        ("3.", 3.0),
        ("12", 12),
        ("-7", -7),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_that_a_plain_value_is_what_it_looks_like(word: str, value: Any) -> None:
    assert value_of(word) == value
    assert type(value_of(word)) is type(value)


@pytest.mark.parametrize(
    "word",
    ["2:00", "1:30:00", "yes", "No", "on", "off", "y", "010", "0x10", "1_000", "2024-01-31", "=",
     "1e", "e5", "01e5", "<<", "none", "4GB"],
)  # fmt: skip
def test_that_a_word_with_two_readings_stays_text(word: str) -> None:
    assert value_of(word) == word


def test_that_quotes_make_text() -> None:
    assert value_of('"1e-5"') == "1e-5"
    assert value_of("'true'") == "true"


def test_that_infinity_and_nan_are_read() -> None:
    assert value_of("-.inf") == -math.inf
    assert math.isnan(value_of(".nan"))


def test_that_keys_are_text() -> None:
    assert load_yaml("on: 1\n2: b\ntrue: c\n").data == {"on": 1, "2": "b", "true": "c"}


DOC = """\
# a comment
name: x
space:
  lr:
    dimension: {low: 1, high: 2}
  opts: {choice: [a,
                  b]}
inputs:
  - name: data
    source: d
  - {name: more}
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("name", 2),
        ("space", 3),
        ("space.lr", 4),
        ("space.lr.dimension.high", 5),
        ("space.opts.choice[1]", 7),
        ("inputs[0].source", 10),
        ("inputs[1]", 11),
        ("inputs[1].source", 11),
        ("space.lr.dimension.q", 5),
        ("nowhere", None),
        ("nowhere.at.all[3]", None),
    ],
)
def test_that_a_key_path_leads_to_its_line_or_its_nearest_parent(
    key: str, line: int | None
) -> None:
    assert load_yaml(DOC).line_of(key) == line


def test_that_a_scalar_is_kept_as_it_was_spelled() -> None:
    scalars = load_yaml('a: 0.10\nb: [yes, "1e-5", true]\nc: ~').scalars
    assert scalars == {"a": "0.10", "b[0]": "yes", "b[1]": "1e-5", "b[2]": "true"}


def fault(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_yaml(text, "study.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "given twice (first in line 1)"),
        ("s:\n  x: {low: 1, low: 2}\n", 2, "s.x.low: the key is given twice"),
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a:\n\tb: 2\n", 2, "tab"),
        ("a: [1, 2\nb: 3\n", 2, "begun in line 1"),
        ("a: 'x\n", 2, "quoted scalar"),
        ("files: [*.pt]\n", 1, "put it in quotes"),
        ("a: &x 1\nb: *x\n", 2, "aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: !thing 3\n", 1, "tag"),
        ("a: !!int x\n", 1, "number cannot be read"),
        ("a: !!bool x\n", 1, "tag"),
        ("a: 1e999\n", 1, "number cannot be read"),
        ("a: " + "9" * 5000 + "\n", 1, "number cannot be read"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "a key must be a word"),
        ("command: [a, {{lr}}]\n", 1, "needs quotes"),
        ("a: x\nb: \x07\n", 2, "character"),
        ("a: " + "[" * 5000 + "\n", None, "nested too deeply"),
    ],
)
def test_that_a_fault_is_told_with_its_line(text: str, line: int | None, words: str) -> None:
    error = fault(text)
    assert words in str(error)
    assert error.line == line
    assert str(error).startswith("study.yaml:")


def test_that_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"a: 1\nname: caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        load_yaml(file)
    assert caught.value.line == 2


def test_that_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: x\r\nb: 2\r\n")
    assert load_yaml(file).data == {"name": "x", "b": 2}


def test_that_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="folder"):
        load_yaml(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(tmp_path / ("n" * 300))


def test_that_an_empty_file_is_none() -> None:
    assert load_yaml("# nothing\n").data is None


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8)
trees = st.recursive(
    plain | words,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words.filter(bool), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(trees)
def test_that_json_is_read_as_json(tree: Any) -> None:
    assert load_yaml(to_json(tree)).data == json.loads(to_json(tree))


@given(st.text(max_size=40))
def test_that_any_text_gives_data_or_an_input_error(text: str) -> None:
    try:
        load_yaml(text)
    except InputError as error:
        assert str(error)
