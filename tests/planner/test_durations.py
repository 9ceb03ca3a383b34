"""Durations for people: in one line they have one unit, where all can be read in it."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgm_bench.planner import duration, durations

UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}


def value(text):
    number, unit = re.fullmatch(r"([\d.]+) (s|min|h|days)", text).groups()
    return float(number), UNITS[unit]


@given(st.lists(st.floats(1.0, 1e8), min_size=1, max_size=4))
def test_what_is_said_is_what_it_is_and_none_is_below_one_of_its_unit(seconds):
    said = durations(*seconds)
    for text, true in zip(said, seconds, strict=True):
        number, unit = value(text)
        digit = unit if "." not in text else unit / 10
        assert abs(number * unit - true) <= 0.501 * digit
    units = {value(text)[1] for text in said}
    if max(seconds) < 600 or (min(seconds) >= 60 and max(seconds) < 36_000):
        assert len(units) == 1
    if len(units) > 1:  # each has its own, as if it stood alone
        assert said == [duration(number) for number in seconds]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ((6000.0, 4980.0), ["1.7 h", "1.4 h"]),
        ((53220.0, 540.0), ["15 h", "9 min"]),
        ((780.0, 85.0), ["13 min", "1.4 min"]),
        ((180.0, 38.0), ["180 s", "38 s"]),
        ((0.0, 2.0), ["0 s", "2 s"]),
        ((518400.0, 18000.0), ["144 h", "5.0 h"]),
        ((7 * 86400.0, 30.0), ["7 days", "30 s"]),
        ((None, 90.0), ["unknown", "1.5 min"]),
        ((None, None), ["unknown", "unknown"]),
    ],
)
def test_lines_of_plans(seconds, said):
    assert durations(*seconds) == said
    assert all(math.isfinite(number) for number in seconds if number)
