"""Boxes from JSON: every form, and every way to get one wrong, told in one line."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redy.errors import InputError
from redy.formats.boxes import read_box, read_boxes
from redy.model.box import Box

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads(resources.files("redy.formats").joinpath("box.schema.json").read_text(encoding="utf-8"))
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("[-1, 1]", [-1, -1, -1, -1], [1, 1, 1, 1]),
        (' {"lower": 0, "upper": 2}', [0, 0, 0, 0], [2, 2, 2, 2]),
        ('{"lower": [0, 1, 2, 3], "upper": 4}', [0, 1, 2, 3], [4, 4, 4, 4]),
        ('{"lower": [[0, 1], [2, 3]], "upper": [[[4, 5], [6, 7]]]}', [0, 1, 2, 3], [4, 5, 6, 7]),
        ('{"center": 0.3, "radius": 0.1}', [0.2] * 4, [0.4] * 4),
        ('{"center": [0, 0.5, 1, 0.5], "radius": [0.5, 0, 1, 2], "clip": [0, 1]}', [0, 0.5, 0, 0], [0.5, 0.5, 1, 1]),
        ('{"center": 0, "radius": 2, "clip": [[-1, -2, -3, -4], 1]}', [-1, -2, -2, -2], [1, 1, 1, 1]),
        ("[1e-999999999, 1]", [0] * 4, [1] * 4),
    ],
)
def test_inline_forms(text, lower, upper):
    assert read_box(text, (2, 2)) == Box(np.reshape(lower, (2, 2)), np.reshape(upper, (2, 2)))
    assert read_boxes(text, (2, 2)) == [read_box(text, (2, 2))]


def test_several_boxes_keep_their_order(tmp_path):
    listed, lines = tmp_path / "boxes.json", tmp_path / "boxes.jsonl"
    listed.write_text('[{"lower": 0, "upper": 1}, {"lower": 2, "upper": 3}]')
    lines.write_text('{"lower": 0, "upper": 1}\n\n[2, 3]\r\n')
    expected = [Box(np.zeros(3), np.ones(3)), Box(np.full(3, 2.0), np.full(3, 3.0))]
    assert read_boxes(str(listed), (3,)) == expected
    assert read_boxes(lines, (3,)) == expected
    with pytest.raises(InputError, match="holds 2 boxes where one is needed"):
        read_box(listed, (3,))


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_bounds_are_read_to_the_last_bit(pairs):
    lower, upper = [min(pair) for pair in pairs], [max(pair) for pair in pairs]
    box = read_box(json.dumps({"lower": lower, "upper": upper}), (len(pairs),))
    assert box.lower.tolist() == lower
    assert box.upper.tolist() == upper


@given(st.decimals(-100, 100, places=6), st.decimals(0, 10, places=6))
def test_center_and_radius_are_rounded_once(center, radius):
    box = read_box(f'{{"center": {center}, "radius": {radius}}}', (1,))
    exact = Fraction(center) - Fraction(radius), Fraction(center) + Fraction(radius)
    assert (box.lower[0], box.upper[0]) == tuple(float(number) for number in exact)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2, 3]", "box 0: is not a box"),
        ("[[0, 0], [1, 1]]", "box 0: is a list"),
        ("[]", "the list of boxes is empty"),
        ("{}", "needs the fields lower and upper, or center and radius (clip optional); has none"),
        ('{"lower": 0}', "has lower"),
        ('{"lower": 0, "upper": 1, "clip": [0, 1]}', "has lower, upper, clip"),
        ('{"lower": 0, "upper": 1, "name": "a"}', "unknown field name"),
        ('{"lower": 0, "lower": 0, "upper": 1}', "field lower is given twice"),
        ('{"lower": [0, 0, 0], "upper": 1}', "field lower: holds 3 numbers but the input has 2"),
        ('{"lower": [], "upper": 1}', "field lower: holds 0 numbers"),
        ('{"lower": [[0, 1], [0]], "upper": 1}', "field lower: the lists in it differ in length"),
        ('{"lower": [0, "a"], "upper": 1}', 'field lower: element 1: "a" is not a number'),
        ('{"lower": [[0, null]], "upper": 1}', "field lower: element 0, 1: null is not a number"),
        ('{"lower": true, "upper": 1}', "field lower: true is not a number"),
        ('{"lower": NaN, "upper": 1}', "NaN is not a finite number"),
        ('{"lower": 0, "upper": Infinity}', "Infinity is not a finite number"),
        ('{"lower": 0, "upper": [1, 1e999]}', "field upper: element 1: 1E+999 is beyond the range of float64"),
        ('{"lower": [0, 2], "upper": 1}', "element 1: lower bound 2.0 is above upper bound 1.0"),
        ('{"center": 0, "radius": [1, -1]}', "field radius: element 1 is negative"),
        ('{"center": 0, "radius": 1, "clip": 1}', "field clip: must be [lowest, highest]"),
        ('{"center": 0, "radius": 1, "clip": [2, 3]}', "element 0: lower bound 2.0 is above upper bound 1.0"),
        ('{"center": 1e308, "radius": 1e308}', "the bounds of element 0 leave the range of float64"),
        ('[{"lower": 0, "upper": 1}, {"lower": 0, "upper": "x"}]', 'box 1: field upper: "x" is not a number'),
        ('{"lower": 0, "upper": }', "is not JSON (Expecting value at line 1, column 23)"),
        ("[" * 200_000, "is nested too deeply"),
        ('{"lower": ' + "[" * 500 + "0" + "]" * 500 + ', "upper": 1}', "is nested too deeply"),
    ],
)
def test_an_error_names_its_place_in_one_line(text, told):
    with pytest.raises(InputError) as caught:
        read_boxes(text, (2,))
    assert str(caught.value).startswith("inline box: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.json", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "is empty"),
        ("latin.json", b'{"lower": 0, "upper": 1} \xe9', "is not UTF-8 text (byte 25)"),
        ("bad.jsonl", b'[0, 1]\n{"lower": 0}\n', "line 2: needs the fields"),
        ("wrong.json", b"hello", "is not JSON"),
        ("empty.vnnlib", b"", "is empty"),
    ],
)
def test_an_error_names_the_file(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        read_boxes(path, (2,))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(str(tmp_path / "none.json"), (2,))
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(str(tmp_path), (2,))


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "box.json"
    path.write_bytes(b"\xef\xbb\xbf[0, 1]")
    assert read_box(path, (1,)) == Box(np.zeros(1), np.ones(1))


def documented_examples() -> list[str]:
    text = (ROOT / "docs" / "boxes.md").read_text(encoding="utf-8")
    return re.findall(r"```json\n(.*?)\n```", text, flags=re.DOTALL)


@pytest.mark.parametrize("example", documented_examples())
def test_documented_examples_are_boxes_and_fit_the_schema(example):
    jsonschema.validate(json.loads(example), SCHEMA)
    assert read_boxes(example, (3,))


def test_the_documentation_has_examples():
    assert len(documented_examples()) >= 5


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.box.json")), ids=lambda path: path.name)
def test_shipped_boxes_fit_the_schema(path):
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        '{"lower": 0}',
        "[1, 2, 3]",
        "[[0, 0], [1, 1]]",
        "[]",
        '{"lower": 0, "upper": "a"}',
        '{"center": 0, "radius": -1}',
        '{"lower":0,"upper":1,"x":1}',
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text):
    with pytest.raises(InputError):
        read_boxes(text, (2,))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(text), SCHEMA)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")
