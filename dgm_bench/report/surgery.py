"""The plot of what the negative ELBO is made of, prior by prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dgm_bench.records import RunRecord
from dgm_bench.report.plots import BLUE, GREEN, INK, VERMILION
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
    """Return the mean parts of each row that has them, by the row's title."""
    found: dict[str, dict[str, RunRecord]] = {}
    for cell in table.cells:
        if cell.column.data == data:
            for run in runs.get(cell.id, ()):
                found.setdefault(cell.row.title, {})[run.run_id] = run
    means = {title: _means(list(by_id.values())) for title, by_id in found.items()}
    return {title: parts for title, parts in means.items() if parts}


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
    figure, panels = _two_panels(0.4 * len(by_row) + 1.5)
    for axes, names in zip(panels, (tuple(PARTS), tuple(PARTS)[1:]), strict=True):
        for height, parts in enumerate(by_row.values()):
            _draw_bar(axes, height, {name: parts[name] for name in names})
        axes.set_ylim(len(by_row) - 0.5, -0.5)
        axes.set_xlim(0, 1.13 * axes.dataLim.x1)
    panels[0].set_yticks(range(len(by_row)), list(by_row))
    panels[1].set_yticks([])
    panels[0].set_xlabel(f"negative ELBO, training set of {data} (nats)", color=INK, fontsize=9)
    panels[1].set_xlabel("of which divergence (nats)", color=INK, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    return figure


def _two_panels(height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, height), dpi=130, layout="constrained")
    panels = list(figure.subplots(1, 2, width_ratios=(5, 3)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=INK, alpha=0.12, linewidth=0.8, axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8)
    return figure, panels


def _draw_bar(axes: Axes, height: int, parts: Parts) -> None:
    """Stack the parts, with the number inside where it fits and the sum at the end."""
    left, total = 0.0, sum(parts.values())
    for name, value in parts.items():
        (label, colour), width = PARTS[name], max(value, 0.0)
        axes.barh(height, width, 0.62, left, color=colour, label=label)
        if width > 0.1 * total:
            look = {"ha": "center", "va": "center", "color": "white", "weight": "bold"}
            axes.text(left + width / 2, height, f"{width:.2f}", look, fontsize=8)
        left += width
    end = left + 0.015 * total
    axes.text(end, height, f"{total:.2f}", va="center", fontsize=8, color=INK)
