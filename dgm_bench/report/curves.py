"""Learning curves, drawn as SVG here: a page has hundreds, and matplotlib takes long for each.

A line has at most four points in half a pixel of its width, so that a curve of any length is small.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from typing import NamedTuple

from dgm_bench.escaping import one_line
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, PURPLE, VERMILION

Curve = Sequence[Mapping[str, float]]
Point = tuple[float, float]

#: Of a figure, in pixels; the page scales it.
WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 62, 10, 58, 66, 56
#: Of the frame, the share that is left free to the left and right of a curve.
MARGIN = 0.03
#: Pixels of a letter, nearly: how far apart the names of lines stand.
LETTER = 5.8
_OUTLINE = 'fill="none" stroke="currentColor"'
#: Of each kind of line its colour, and in tenths of pixels how thick it is and its dashes.
LINES: Mapping[str, tuple[str, int, str]] = {
    "training": (BLUE, 13, ""),
    "validation": (VERMILION, 18, ""),
    "learning rate drops": (PURPLE, 15, "20 30"),
    "published": (GREEN, 15, "70 40"),
}


def learning_curve(curve: Curve, record: RunRecord, published: float | None = None) -> str:
    """Return training and validation loss over steps, and over time on the upper edge, as SVG.

    Each stage of a run has a panel of its own, with a loss in the unit of its objective. Text has
    the colour of the text around it.

    Args:
        curve: Rows of the run's curve; losses are in nats per example.
        record: The run; its best step is marked, and drops of the learning rate.
        published: The published value in nats per example, where the two can be compared.
    """
    panels = list(_panels(curve, record, published))
    names = list(dict.fromkeys(name for panel in panels for name in panel.names))
    unit = "loss of the stage" if len(panels) > 1 else "loss (nats per example)"
    title = one_line(f"{record.cells[0]}, seed {record.seed}")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" fill="currentColor" font-size="10">',
        f'<text x="{LEFT}" y="14" font-size="12">{escape(title)}</text>',
        _upright(15, (TOP + HEIGHT - BOTTOM) / 2, unit),
        *(part for panel in panels for part in panel.drawn()),
        *_legend(names),
        "</svg>",
    ]
    return "".join(parts)


def standalone(svg: str) -> str:
    """Return a figure as a file of its own: dark on white."""
    look = f"background:#fff;color:{INK};font-family:sans-serif"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" style="{look}" '
    return svg.replace("<svg ", head, 1).replace("var(--plot-blue)", BLUE)


# --------------------------------------------------------------------------- panels


def _panels(curve: Curve, record: RunRecord, published: float | None) -> Iterator[_Panel]:
    if not curve or "stage" not in curve[0]:
        yield _Panel(LEFT, WIDTH - LEFT - RIGHT, curve, record.budget.best_step, published)
        return
    stages = record.recipe.stages
    room = (WIDTH - LEFT - RIGHT - BETWEEN * (len(stages) - 1)) / len(stages)
    for number, stage in enumerate(stages):
        rows = [row for row in curve if row["stage"] == number]
        yield _Panel(LEFT + number * (room + BETWEEN), room, rows, None, None, stage.name)


class _Axis(NamedTuple):
    """Values between two ends, and where they are in pixels."""

    low: float
    high: float
    start: float
    size: float

    def at(self, value: float) -> float:
        """Return the place of a value; what lies far outside lies just outside."""
        place = (value - self.low) / (self.high - self.low)
        return self.start + self.size * min(max(place, -1.0), 2.0)


@dataclass(frozen=True)
class _Panel:
    """One frame with the curves of a stage."""

    left: float
    width: float
    rows: Curve
    best: int | None
    published: float | None
    title: str = ""

    @property
    def x(self) -> _Axis:
        """Steps from left to right."""
        steps = [row["step"] for row in self.rows] or [0.0, 1.0]
        free = MARGIN * (steps[-1] - steps[0]) or 0.5
        return _Axis(min(steps) - free, max(steps) + free, self.left, self.width)

    @property
    def y(self) -> _Axis:
        """Losses from the lower edge up."""
        values = [y for name in ("train_loss", "validation") for _, y in self.series(name)]
        low, high = limits(values, self.published)
        return _Axis(low, high, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)

    def series(self, name: str) -> list[Point]:
        """Return step and value where there is one."""
        return [(r["step"], r[name]) for r in self.rows if math.isfinite(r.get(name, math.nan))]

    @property
    def drops(self) -> list[float]:
        """Steps at which the learning rate fell."""
        return [b["step"] for a, b in pairwise(self.rows) if b["lr"] < 0.7 * a["lr"]]

    @property
    def best_point(self) -> Point | None:
        """The best step and its validation loss."""
        known = dict(self.series("validation"))
        return None if self.best not in known else (self.best, known[self.best])

    @property
    def names(self) -> list[str]:
        """What is drawn, for the legend."""
        best = [f"best, step {self.best:,}"] if self.best_point else []
        drops = ["learning rate drops"] if self.drops else []
        published = ["published"] if self.published is not None else []
        return ["training", "validation", *best, *drops, *published]

    def drawn(self) -> Iterator[str]:
        """Yield the frame with its ticks, and in it the curves, cut at its edges."""
        x, y = self.x, self.y
        yield from self._frame(x, y)
        inside = f'x="{self.left:.1f}" y="{TOP}" width="{self.width:.1f}" height="{-y.size}"'
        view = " ".join(str(round(10 * size)) for size in (self.left, TOP, self.width, -y.size))
        yield f'<svg {inside} viewBox="{view}" fill="none">'  # cuts what is outside; in tenths
        for step in self.drops:
            yield _line("learning rate drops", [(x.at(step), TOP), (x.at(step), HEIGHT - BOTTOM)])
        if self.published is not None:
            across = (self.left, self.left + self.width)
            yield _line("published", [(place, y.at(self.published)) for place in across])
        for name, column in (("training", "train_loss"), ("validation", "validation")):
            yield _line(name, thinned([(x.at(a), y.at(b)) for a, b in self.series(column)]))
        yield "</svg>"
        if self.best_point:
            yield _dot(x.at(self.best_point[0]), y.at(self.best_point[1]))

    def _frame(self, x: _Axis, y: _Axis) -> Iterator[str]:
        low, right = HEIGHT - BOTTOM, self.left + self.width
        across = ticks(x.low, x.high, max(4, int(self.width / 90)))
        up = ticks(y.low, y.high, 5)
        rules = [f"M{x.at(value):.1f} {TOP}V{low}" for value, _ in across]
        rules += [f"M{self.left:.1f} {y.at(value):.1f}H{right:.1f}" for value, _ in up]
        yield f'<path d="{"".join(rules)}" stroke="currentColor" opacity=".12"/>'
        yield f'<path d="M{self.left:.1f} {TOP}V{low}H{right:.1f}" {_OUTLINE}/>'
        middle = self.left + self.width / 2
        yield _group("middle", 0, low + 14, [_text(x.at(v), 0, text) for v, text in across])
        yield _group("end", self.left - 6, 0, [_text(0, y.at(v) + 3.5, text) for v, text in up])
        yield _group("middle", middle, low + 30, [_text(0, 0, "training step")])
        if self.title:
            yield _text(self.left, TOP - 8, self.title)
        else:
            yield from self._times(x)

    def _times(self, x: _Axis) -> Iterator[str]:
        """Yield time on the upper edge; not where steps start again with another stage."""
        rising = all(
            a["step"] < b["step"] and a["seconds"] < b["seconds"] for a, b in pairwise(self.rows)
        )
        if len(self.rows) < 2 or not rising:
            return
        unit, size = _time_unit(self.rows[-1]["seconds"])
        times = [row["seconds"] / size for row in self.rows]
        steps = [row["step"] for row in self.rows]
        texts = [_text(self.left + self.width / 2, -16, f"training and validation time ({unit})")]
        marks = ""
        for value, label in ticks(times[0], times[-1], 6):
            place = x.at(interpolated(times, steps, value))
            marks += f"M{place:.1f} {TOP}v-4"
            texts.append(_text(place, 0, label))
        yield f'<path d="{marks}" {_OUTLINE}/>'
        yield _group("middle", 0, TOP - 8, texts)


# --------------------------------------------------------------------------- numbers


def limits(values: Sequence[float], published: float | None) -> tuple[float, float]:
    """Return limits that show the end of training: the first, huge losses may leave the frame."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[int(0.95 * (len(ordered) - 1))]
    if published is not None:
        low, high = min(low, published), max(high, published)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Return about ``count`` round values between two, each with its text."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * round for round in (1, 2, 5, 10) if unit * round >= raw * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(step * n, f"{step * n or 0.0:,.{decimals}f}") for n in numbers]


def interpolated(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """Return the straight line between the points around ``at``, which lies among the ``x``."""
    right = min(max(bisect_right(x, at), 1), len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + share * (y[right] - y[right - 1])


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return the first, lowest, highest and last point of each half pixel, in their order."""
    kept: list[Point] = []
    for _, group in groupby(points, key=lambda point: math.floor(2 * point[0])):
        near = list(group)
        heights = [y for _, y in near]
        places = {0, heights.index(min(heights)), heights.index(max(heights)), len(near) - 1}
        kept += [near[place] for place in sorted(places)]
    return kept


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds >= 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds >= 180 else ("seconds", 1.0)


# --------------------------------------------------------------------------- shapes


def _line(name: str, points: Iterable[Point]) -> str:
    """Return a line in tenths of pixels, each point as its way from the one before."""
    colour, width, dashes = LINES[name]
    shown = "var(--plot-blue)" if colour == BLUE else colour
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    places = [(round(10 * x), round(10 * y)) for x, y in points]
    ways = "".join(f"{c - a:+d}{d - b:+d}" for (a, b), (c, d) in pairwise(places))
    begin = f"M{places[0][0]} {places[0][1]}l{ways or '0 0'}" if places else ""
    return f'<path d="{begin}" stroke="{shown}" stroke-width="{width}"{dashed}/>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'


def _text(x: float, y: float, text: str) -> str:
    places = [f' {name}="{at:.1f}"' for name, at in (("x", x), ("y", y)) if at]
    return f"<text{''.join(places)}>{escape(text)}</text>"


def _group(anchor: str, x: float, y: float, texts: Sequence[str]) -> str:
    """Return texts whose places are counted from one."""
    moved = f'transform="translate({x:.1f} {y:.1f})"'
    return f'<g text-anchor="{anchor}" {moved}>{"".join(texts)}</g>'


def _upright(x: float, y: float, text: str) -> str:
    turned = f'transform="translate({x},{y:.0f}) rotate(-90)"'
    return f'<text {turned} text-anchor="middle">{escape(text)}</text>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    """Yield the names of the lines below the panels, in the middle."""
    widths = [44 + LETTER * len(name) for name in names]
    x, y = (WIDTH - sum(widths)) / 2, HEIGHT - 12
    for name, width in zip(names, widths, strict=True):
        if name in LINES:
            line = _line(name, [(x, y - 3.5), (x + 22, y - 3.5)])
            yield f'<g transform="scale(.1)" fill="none">{line}</g>'
        else:
            yield _dot(x + 16, y - 3.5)
        yield _text(x + 27, y, name)
        x += width
