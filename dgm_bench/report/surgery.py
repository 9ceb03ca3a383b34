"""The plot of what the negative ELBO is made of, prior by prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dgm_bench.escaping import drawn
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, VERMILION
from dgm_bench.report.panels import panels, runs_by_row
from dgm_bench.report.plots import WIDTH, shared_legend
from dgm_bench.spec import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Metrics in the order in which they are stacked, with label and colour.
PARTS = {
    "reconstruction-train": ("reconstruction", BLUE),
    "mutual-information": ("mutual information", GREEN),
    "marginal-kl": ("KL of the aggregated posterior from the prior", VERMILION),
}
#: Of the numbers inside the bars: the page does not turn these into the reader's text colour.
WHITE, BLACK = "#ffffff", "#111111"
Parts = Mapping[str, float]


def surgery_plots(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Figure]:
    """Stack the parts of the negative ELBO on the training set, one figure for each data set.

    Args:
        table: The table.
        runs: Runs by cell id; a bar is the mean over a row's runs.

    Returns:
        Figures by data set; none where no run measured the parts.
    """
    figures = {}
    for data in dict.fromkeys(column.data for column in table.columns):
        by_row = _parts_by_row(table, runs, data)
        if by_row:
            figures[data] = _figure(data, by_row)
    return figures


def _parts_by_row(
    table: Table, runs: Mapping[str, Sequence[RunRecord]], data: str
) -> dict[str, Parts]:
    """Return the mean parts of each row that has them, by the row's title, smallest sum first."""
    means = {title: _means(found) for title, found in runs_by_row(table, runs, data).items()}
    known = {title: parts for title, parts in means.items() if parts}
    return dict(sorted(known.items(), key=lambda row: sum(row[1].values())))


def _means(runs: Sequence[RunRecord]) -> Parts:
    """Return each part's mean over the runs; nothing where one is missing."""
    values = {
        name: [m.value for run in runs if (m := run.metric(name)) and m.value is not None]
        for name in PARTS
    }
    if not all(values.values()):
        return {}
    return {name: sum(column) / len(column) for name, column in values.items()}


def _figure(data: str, by_row: Mapping[str, Parts]) -> Figure:
    """Draw all parts on the left, and beside them the divergences, which are far smaller."""
    size = (WIDTH, 0.36 * len(by_row) + 1.4)
    figure, (left, right) = panels(1, 2, size, width_ratios=(5, 3))
    for axes, names in zip((left, right), (tuple(PARTS), tuple(PARTS)[1:]), strict=True):
        for height, parts in enumerate(by_row.values()):
            _draw_bar(axes, height, {name: parts[name] for name in names})
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(by_row) - 0.5, -0.5)
        axes.set_xlim(0, 1.13 * axes.dataLim.x1)
    left.set_yticks(range(len(by_row)), list(map(drawn, by_row)))
    right.set_yticks([])
    left.set_xlabel(f"negative ELBO, training set of {data} (nats)", color=INK, fontsize=9)
    right.set_xlabel("of which divergence (nats)", color=INK, fontsize=9)
    shared_legend(figure, [left])
    return figure


def _draw_bar(axes: Axes, height: int, parts: Parts) -> None:
    """Stack the parts, with the number inside where it fits and the sum at the end."""
    left, total = 0.0, sum(parts.values())
    for name, value in parts.items():
        (label, colour), width = PARTS[name], max(value, 0.0)
        axes.barh(height, width, 0.62, left, color=colour, label=label)
        if width > 0.1 * total:
            inside = BLACK if colour == GREEN else WHITE
            look = {"ha": "center", "va": "center", "color": inside, "weight": "bold"}
            axes.text(left + width / 2, height, f"{width:.2f}", look, fontsize=8)
        left += width
    if any(f"{value:.2f}" == f"{total:.2f}" for value in parts.values()):
        return  # the sum stands inside
    end = left + 0.015 * total
    axes.text(end, height, f"{total:.2f}", va="center", fontsize=8, color=INK)
