"""How precision and recall change as more and more samples are rejected."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from dgm_bench.errors import DeclarationError
from dgm_bench.records import Metric
from dgm_bench.report.palette import BLUE, INK
from dgm_bench.report.plots import described, literal, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A label's width, height and distances from its point, in points (1/72 inch).
LABEL_SIZE, LABEL_DISTANCES = (30.0, 11.0), (14.0, 26.0, 38.0, 50.0)
_KEPT = re.compile(r"(?P<features>.*)-(?P<what>precision|recall)-kept-(?P<per_cent>\d+)%")


def rejection_points(
    metrics: Sequence[Metric],
) -> dict[str, list[tuple[float, float, float]]]:
    """Return kept fraction, precision and recall, by the features that they are of."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for metric in metrics:
        match = _KEPT.fullmatch(metric.name)
        if match and metric.value is not None:
            key = (match["features"], int(match["per_cent"]) / 100)
            found.setdefault(key, {})[match["what"]] = metric.value
    points: dict[str, list[tuple[float, float, float]]] = {}
    for (features, kept), both in found.items():
        points.setdefault(features, []).append((kept, both["precision"], both["recall"]))
    return points


def rejection_figure(points: Sequence[tuple[float, float, float]], title: str) -> Figure:
    """Plot precision against recall as more and more samples are rejected.

    Args:
        points: Kept fraction, precision and recall, all in [0, 1]; the fraction is the label.
        title: Heading.

    Raises:
        DeclarationError: No points, or a number outside [0, 1].
    """
    if not points or not all(0 <= number <= 1 for point in points for number in point):
        remedy = "give kept fraction, precision and recall of each, in [0, 1]"
        raise DeclarationError(f"points {list(points)}", "cannot be plotted", remedy)
    figure, axes = new_figure(5.6, 4.4)
    ordered = sorted(points, reverse=True)
    recalls, precisions = [p[2] for p in ordered], [p[1] for p in ordered]
    axes.plot(recalls, precisions, "o-", color=BLUE, linewidth=1.4, markersize=5)
    axes.set(xlabel="recall (fraction of the data)", ylabel="precision (fraction of the samples)")
    axes.margins(0.15)
    axes.set_title(title, loc="left", fontsize=10)
    labels = [f"{100 * kept:.3g} %" for kept, _, _ in ordered]
    _label_points(figure, axes, list(zip(recalls, precisions, strict=True)), labels)
    return described(figure, "labels: fraction of samples kept")


def _label_points(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str]
) -> None:
    """Write a label near each point, at the first place that is free, with a line to its point."""
    literal(figure).draw_without_rendering()  # only now is it known where points are
    at = [(x * 72 / figure.dpi, y * 72 / figure.dpi) for x, y in axes.transData.transform(points)]
    taken = [*_boxes(at)]
    line = {"arrowstyle": "-", "color": INK, "alpha": 0.5, "linewidth": 0.6}
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": INK}
    for point, (x, y), label in zip(points, at, labels, strict=True):
        for dx, dy in _offsets():
            box = (x + dx, y + dy, *LABEL_SIZE)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        look |= {"xytext": (dx, dy), "textcoords": "offset points", "arrowprops": line}
        axes.annotate(label, point, **look)


def _boxes(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, ...]]:
    """Yield what points and the lines between them take: centres and sizes of small boxes."""
    yield from ((x, y, 8.0, 8.0) for x, y in points)
    for (x, y), (to_x, to_y) in pairwise(points):
        steps = math.ceil(math.dist((x, y), (to_x, to_y)) / 3)
        for share in (step / steps for step in range(1, steps)):
            yield x + share * (to_x - x), y + share * (to_y - y), 2.0, 2.0


def _offsets() -> Iterator[tuple[float, float]]:
    """Yield places around a point, near ones first: right above, right below, and so on."""
    for distance, angle in product(LABEL_DISTANCES, (45, -45, 135, -135, 90, -90, 0, 180)):
        yield (
            1.5 * distance * math.cos(math.radians(angle)),
            distance * math.sin(math.radians(angle)),
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Return whether two boxes, each its centre and size, share some room."""
    return 2 * abs(a[0] - b[0]) < a[2] + b[2] and 2 * abs(a[1] - b[1]) < a[3] + b[3]
