"""Verdicts drawn in characters: everything stands where its number is."""

import pytest
from factories import make_cell, make_column, make_published
from hypothesis import given
from hypothesis import strategies as st

from dgm_bench.report.interval import (
    INTERVAL,
    LEAST_COLUMNS,
    MARGIN,
    Bar,
    bars_of,
    drawn,
)
from dgm_bench.verdict import Unfinished, Verdict

numbers = st.floats(-1e4, 1e4).map(lambda x: round(x, 3))


@st.composite
def bars(draw):
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    signs = draw(st.sampled_from([MARGIN, INTERVAL]))
    return Bar("x", value, low, high, signs, "")


@given(st.lists(bars(), min_size=1, max_size=3), st.integers(1, 90))
def test_numbers_are_drawn_in_their_order_on_one_scale(found, columns):
    lines = drawn(found, columns)
    room = max(columns, LEAST_COLUMNS)
    assert len(lines) == len(found) + 1
    assert {len(line) for line in lines[:-1]} == {room}
    at = {}
    for bar, line in zip(found, lines, strict=False):
        marks = [n for n, sign in enumerate(line) if sign != "·"]
        value = next(n for n, sign in enumerate(line) if sign == bar.signs[3])
        assert marks == list(range(marks[0], marks[-1] + 1))
        at |= {bar.low: marks[0], bar.high: marks[-1], bar.value: value}
    known = sorted(at)
    assert [at[number] for number in known] == sorted(at.values())
    span = known[-1] - known[0]
    if span:
        for number in known:  # evenly: within a column of where a ruler has it
            expected = (number - known[0]) / span * (at[known[-1]] - at[known[0]])
            assert abs(at[number] - at[known[0]] - expected) <= 1.01
    assert all(line.isascii() for line in drawn(found, columns, ascii_only=True))


def test_the_scale_tells_its_ends_apart_and_holds_all():
    lines = drawn([Bar("x", 1.0, 0.9999, 1.0001, INTERVAL, "")], 40)
    low, high = map(float, lines[-1].split())
    assert low < 0.9999 < 1.0001 < high
    assert drawn([Bar("x", 0.0, 0.0, 0.0, INTERVAL, "")], 40)[0].count("●") == 1


@pytest.mark.parametrize(("direction", "low", "high"), [("lower", 0.9, 1.2), ("higher", 0.8, 1.1)])
def test_an_interval_is_turned_back_into_the_metrics_unit(direction, low, high):
    """A verdict's difference is positive where a run is better than published."""
    column = make_column(direction=direction)
    cell = make_cell(column=column, published=make_published("1.0"))
    verdict = Verdict(cell.id, "inconclusive", "", mean=1.05, delta=0.1, interval=(-0.2, 0.1))
    margin, measured = bars_of(cell, verdict)
    assert (margin.low, margin.value, margin.high) == pytest.approx((0.9, 1.0, 1.1))
    assert (measured.low, measured.value, measured.high) == pytest.approx((low, 1.05, high))


def test_a_single_run_is_a_point_and_an_unfinished_one_its_forecast():
    cell = make_cell(published=make_published("1.0"))
    one = bars_of(cell, Verdict(cell.id, "inconclusive", "", mean=1.05, delta=0.1, seeds=1))[1]
    assert (one.low, one.high, one.words) == (1.05, 1.05, "no interval yet")
    ahead = Unfinished(3.0, 1.0, 0.1, forecast=1.5, low=1.2, high=2.0)
    (_, bar) = bars_of(cell, Verdict(cell.id, "unfinished", "", unfinished=ahead))
    assert (bar.name, bar.low, bar.value, bar.high) == ("forecast", 1.2, 1.5, 2.0)
    for verdict in (
        Verdict(cell.id, "unfinished", "", unfinished=Unfinished(3.0, 1.0, None)),
        Verdict(cell.id, "not-run", ""),
    ):
        assert bars_of(cell, verdict) == []
    assert bars_of(make_cell(), Verdict(cell.id, "measured", "", mean=1.0)) == []
