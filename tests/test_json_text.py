"""JSON that Python would read as something else than it says, or not at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgm_bench.json_text import UnusableJSON, read_json

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300)
VALUES = st.recursive(
    st.none() | st.booleans() | FINITE | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50)
@given(VALUES)
def test_values_come_back_with_their_types(value):
    assert repr(read_json(json.dumps(value))) == repr(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, NaN]", "NaN, which is no number"),
        ("-Infinity", "-Infinity, which is no number"),
        ('{"a": 1e999}', "beyond the largest float"),
        ("9" * 309, "a whole number of 309 digits"),
        ("-" + "9" * 5000, "a whole number of 5000 digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_finite_value_is_refused(text, reason):
    with pytest.raises(UnusableJSON, match=reason):
        read_json(text)


def test_what_is_no_json_is_a_value_error_of_its_own():
    for text in ("", "{", "nan", b"\xff"):
        with pytest.raises(ValueError, match=r".") as caught:
            read_json(text)
        assert not isinstance(caught.value, UnusableJSON)


def test_half_a_character_is_refused_and_a_whole_one_is_read():
    """What has it can be written nowhere: no page, no record."""
    for text in (r'["\ud800"]', r'{"\uDC80x": 1}', rb'["\udce9"]', r'["\ude00\ud83d"]'):
        with pytest.raises(UnusableJSON, match="half a character"):
            read_json(text)
    assert read_json(r'["\ud83d\ude00", "\\ud800"]') == ["\U0001f600", r"\ud800"]
