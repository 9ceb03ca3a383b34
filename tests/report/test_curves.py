"""Learning curves as SVG: what is drawn where, and no more points than can be seen."""

import math
import random
import re
from html.parser import HTMLParser

import pytest
from factories import make_budget, make_cell, make_recipe, make_record
from report.test_page import curve_rows

from dgm_bench.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LINES,
    TOP,
    WIDTH,
    interpolated,
    learning_curve,
    limits,
    standalone,
    thinned,
    ticks,
)

CELL = make_cell("maf", "power")


class Drawn(HTMLParser):
    """The texts of a figure, and its lines in the frame by their colours, in pixels."""

    def __init__(self, svg):
        super().__init__()
        self.texts, self.lines, self.open, self.inside = {}, {}, [], False
        self.group = self.place = (0.0, 0.0)
        self.feed(svg)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        named = dict(attrs)
        self.inside |= tag == "svg" and len(self.open) > 1
        if tag == "g":
            self.group = tuple(map(float, re.findall(r"[\d.]+", named["transform"])))
        elif tag == "text":
            self.place = [
                float(named.get(k, 0)) + at for k, at in zip("xy", self.group, strict=True)
            ]
        elif tag == "path" and self.inside:
            points = self.lines.setdefault(named["stroke"], [])
            points += absolute(named["d"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.inside &= tag != "svg"
        self.group = (0.0, 0.0) if tag == "g" else self.group

    def handle_data(self, data):
        self.texts.setdefault(data, []).append(tuple(self.place))


def absolute(path):
    """The points of a path of one line, in pixels."""
    begin, _, ways = path.partition("l")
    points = [tuple(map(float, begin[1:].split()))] if begin else []
    numbers = list(map(float, re.findall(r"[+-]?\d+", ways)))
    for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
        points.append((points[-1][0] + dx, points[-1][1] + dy))
    return [(x / 10, y / 10) for x, y in points]


def test_a_curve_names_all_that_it_shows():
    record = make_record(CELL, budget=make_budget(best_step=1500))
    drawn = Drawn(learning_curve(curve_rows(), record, published=-0.24))
    for text in (
        f"{CELL.id}, seed 0",
        "training step",
        "loss (nats per example)",
        "training and validation time (seconds)",
        *LINES,
        "best, step 1,500",
    ):
        assert text in drawn.texts
    (height,) = [y for _, y in drawn.texts["training and validation time (seconds)"]]
    assert 14 < height < TOP - 16, "between the title and the labels of its axis"
    for text in ("training step", *LINES):
        ((x, y),) = drawn.texts[text]
        assert HEIGHT - BOTTOM + 14 < y < HEIGHT
        assert 0 < x < WIDTH
    bare = Drawn(learning_curve(curve_rows(9), make_record(CELL))).texts
    assert not {"published", "learning rate drops"} & set(bare)


def test_losses_are_where_the_axes_say():
    rows = curve_rows(100)
    drawn = Drawn(learning_curve(rows, make_record(CELL)))
    low, high = limits([v for r in rows for v in (r["train_loss"], r["validation"])
                        if math.isfinite(v)], None)  # fmt: skip
    room = HEIGHT - TOP - BOTTOM
    for row, (x, y) in zip(rows, drawn.lines[LINES["validation"][0]], strict=True):
        share = (row["step"] - 100) / 9900 * 0.94 / (0.94 + 0.06 * 0.94)
        assert x == pytest.approx(LEFT + (WIDTH - LEFT - 10) * (share + 0.03 / 1.06), abs=0.1)
        expected = HEIGHT - BOTTOM - room * (row["validation"] - low) / (high - low)
        if expected > TOP:
            assert y == pytest.approx(expected, abs=0.1)


def test_time_stands_above_the_steps_at_which_it_had_passed():
    seconds = [0.0, 1.0, 5.0, 6.0]
    assert interpolated(seconds, [0.0, 10.0, 20.0, 30.0], 3.0) == 15.0
    assert interpolated(seconds, [0.0, 10.0, 20.0, 30.0], 6.0) == 30.0


@pytest.mark.parametrize(
    "rows", [[], curve_rows(1), curve_rows(2), [*curve_rows(9), *curve_rows(9)]]
)
def test_few_rows_or_steps_that_start_again_have_a_curve(rows):
    assert "training step" in Drawn(learning_curve(rows, make_record(CELL))).texts


def test_each_stage_has_a_panel_of_its_own():
    stage = make_recipe().stages[0]
    stages = tuple(stage.model_copy(update={"name": name}) for name in ("codes", "prior"))
    recipe = make_recipe().model_copy(update={"stages": stages})
    rows = [{**row, "stage": s} for s in (0.0, 1.0) for row in curve_rows(9)]
    texts = Drawn(learning_curve(rows, make_record(CELL, recipe=recipe))).texts
    assert {"codes", "prior", "loss of the stage"} <= set(texts)
    assert len(texts["training step"]) == 2


def test_huge_first_losses_do_not_flatten_the_rest():
    rows = curve_rows(100)
    rows[0]["validation"] = 1e9
    assert limits([row["validation"] for row in rows], None)[1] < 10
    lines = Drawn(learning_curve(rows, make_record(CELL))).lines
    assert max(abs(y) for points in lines.values() for _, y in points) < 3 * HEIGHT


def test_thinning_keeps_what_can_be_seen():
    chance = random.Random(0)
    points = [(k / 200, chance.gauss(0, 50)) for k in range(40_000)]
    kept = thinned(points)
    assert len(kept) <= 4 * 2 * 200
    assert set(kept) <= set(points)
    assert kept == sorted(kept)
    for half in range(0, 400, 7):
        before, after = ([y for x, y in of if half <= 2 * x < half + 1] for of in (points, kept))
        assert (min(before), max(before)) == (min(after), max(after))
    assert thinned(points[::400]) == points[::400]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.2, 17.9), (1e-6, 3e-6), (1234.5, 1234.9), (0, 5e7)]
)
def test_ticks_are_round_and_within(low, high):
    found = ticks(low, high, 5)
    assert 3 <= len(found) <= 11
    values = [value for value, _ in found]
    assert all(low - 1e-9 * high <= value <= high * (1 + 1e-9) for value in values)
    assert len({text for _, text in found}) == len(found)
    for value, text in found:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=1e-6, abs=1e-12)


def test_texts_are_escaped_and_a_file_of_its_own_needs_no_page():
    record = make_record(CELL, cells=("a/<b>/c&d",))
    svg = learning_curve(curve_rows(), record)
    assert "a/&lt;b&gt;/c&amp;d" in svg
    alone = standalone(svg)
    assert alone.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "var(" not in alone
