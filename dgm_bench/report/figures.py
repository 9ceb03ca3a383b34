"""The figures of tables: which there are, for the page and as files for a README or a paper."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dgm_bench.records import RunRecord
from dgm_bench.report.adaptive import adaptive_plots
from dgm_bench.report.gradients import gradient_plot
from dgm_bench.report.palette import INK
from dgm_bench.report.panels import narrowed
from dgm_bench.report.plots import comparison_plot, gap_plot, literal
from dgm_bench.report.ranking import ranking_plots
from dgm_bench.report.relaxation import relaxation_plot
from dgm_bench.report.surgery import surgery_plots
from dgm_bench.report.thresholds import threshold_plots
from dgm_bench.report.tradeoff import tradeoff_plots
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import Table
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict, judge_table, pool_variances
from dgm_bench.wording import ERROR_BARS, PLUS_MINUS, TWO_ERRORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dgm_bench.catalog import Catalog

#: Characters of a caption in an inch of a file's width.
CAPTION_DENSITY = 17
#: Pixels of an inch: sharp where a README shows 830 pixels, on screens of twice as many as well.
DENSITY = 150


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure.

    Attributes:
        name: Files are called ``<paper>-<table>-<name>.png``, or ``<paper>-<table>-<name>-<of>``
            where a table has several.
        needs: What ``draw`` takes after the table, by cell id; with curves, also what gives the
            rows of a run's curve.
        draw: Returns a figure, several by what they are of, or nothing where there is nothing
            to see.
        title: Heading on the page.
        caption: What is seen, and what the bars are.
    """

    name: str
    needs: Literal["runs", "verdicts", "curves"]
    draw: Callable[..., Figure | Mapping[str, Figure] | None]
    title: str
    caption: str


FIGURES: tuple[FigureKind, ...] = (
    FigureKind(
        "comparison",
        "verdicts",
        comparison_plot,
        "Measured minus published",
        f"Zero is the published number, its bar the printed {PLUS_MINUS}; the dot is the number "
        "measured here. Each line is in units of its own verdict's margin, the green band. "
        f"Bars of measured numbers are the verdicts' 90 % intervals; without one: {ERROR_BARS}",
    ),
    FigureKind(
        "gaps",
        "runs",
        gap_plot,
        "Distance to the optimum, where the entropy of the data is known",
        "Negative log-likelihood on test data minus the entropy, in nats: zero is a perfect "
        f"model. Best rows first, one dot for each seed; bars: {TWO_ERRORS}.",
    ),
    FigureKind(
        "relaxation",
        "runs",
        relaxation_plot,
        "Bias and variance of gradient estimates",
        "Squared bias and variance of each estimate, relative to the squared gradient, over the "
        "temperature; both axes are logarithmic, and rows stand a little apart. Means over seeds; "
        f"bars: {ERROR_BARS} A hollow marker is the upper end of a bar that reaches zero, which "
        "the axis cannot show.",
    ),
    FigureKind(
        "gradients",
        "runs",
        gradient_plot,
        "Gradients through a solver",
        "Relative error of the gradient over the tolerance and over time, and memory held for "
        "the backward pass over evaluations of the dynamics, one line for each way of taking "
        "gradients; all axes are logarithmic. Means over seeds, without bars; seconds are of "
        "each run's own machine.",
    ),
    FigureKind(
        "adaptive",
        "curves",
        adaptive_plots,
        "What adaptive computation does",
        "Left, evaluations of the dynamics in a step of training, with those of the gradient and "
        "of validations, over epochs; right, the test error of the trained network over the "
        "evaluations that each tolerance at test time takes. Means over seeds, without bars.",
    ),
    FigureKind(
        "ranking",
        "runs",
        ranking_plots,
        "Whether the published ranking shows again",
        "Rows from the smallest published number down, over the gap to the entropy measured "
        "here, in nats: dots from the upper left to the lower right rank the same. Kendall's tau "
        f"is 1 where both orders agree. Bars: {ERROR_BARS}",
    ),
    FigureKind(
        "surgery",
        "runs",
        surgery_plots,
        "What the negative ELBO is made of",
        "Parts of the negative ELBO on the training set, in nats: stacked on the left, with their "
        "sum at the end; on the right the two divergences alone. Means over seeds, without bars.",
    ),
    FigureKind(
        "tradeoff",
        "runs",
        tradeoff_plots,
        "Precision against recall",
        "Precision over recall: up is more like real images, right is more of their variety. A "
        "line follows a model's samples as more and more of them are rejected. Means over seeds; "
        f"bars: {ERROR_BARS}",
    ),
    FigureKind(
        "thresholds",
        "runs",
        threshold_plots,
        "What rejection and truncation trade",
        "Precision over recall, FID over Inception score, and the accuracy of a classifier trained "
        "on the images over the threshold. Solid lines go from all samples, in a ring, on as more "
        "of them are rejected, dashed ones from noise that is not truncated, in a ring, on as it "
        "is truncated more; every point of a panel is of equally many images. Means over seeds; "
        f"bars: {ERROR_BARS}",
    ),
)


def figures_of(
    table: Table,
    runs: Mapping[str, Sequence[RunRecord]],
    verdicts: Mapping[str, Verdict],
    curve_of: Callable[[RunRecord], Sequence[Mapping[str, float]]],
) -> Iterator[tuple[FigureKind, str, Figure]]:
    """Yield kind, name and figure of all that can be drawn of a table.

    Args:
        table: The declarations.
        runs: Runs by cell id; those that their budget cut short are left out.
        verdicts: Verdicts by cell id.
        curve_of: The rows of a run's curve.
    """
    finished = {
        cell: [run for run in found if not run.outcome.cut_short] for cell, found in runs.items()
    }
    given: dict[str, tuple[object, ...]] = {
        "runs": (finished,),
        "verdicts": (verdicts,),
        "curves": (finished, curve_of),
    }
    for kind in FIGURES:
        drawn = kind.draw(table, *given[kind.needs])
        if isinstance(drawn, Mapping):
            for name, figure in drawn.items():
                yield kind, f"{kind.name}-{name}", figure
        elif drawn is not None:
            yield kind, kind.name, drawn


def write_figures(
    folder: Path, *, catalog: Catalog, store: Store, chosen: Collection[str] | None = None
) -> list[Path]:
    """Write each table's figures as PNG, each above its caption, and return the files.

    Args:
        folder: Where.
        catalog: The declarations.
        store: The records.
        chosen: Ids of the cells that are drawn; None for all.

    Raises:
        ResultsError: When a record cannot be read, or a file cannot be written.
    """
    pool, written = pool_variances(store.records()), []
    for table in catalog.tables:
        verdicts = judge_table(table, store, pool)
        shown = narrowed(table, chosen)
        runs = {cell.id: store.for_cell(cell) for cell in shown.cells}
        for kind, name, figure in figures_of(shown, runs, verdicts, store.known_curve):
            path = folder / f"{table.name.replace('/', '-')}-{name}.png"
            write_atomically(path, _png(figure, kind.caption))
            written.append(path)
    return written


def _png(figure: Figure, caption: str) -> bytes:
    lines = textwrap.fill(caption, int(CAPTION_DENSITY * figure.get_figwidth()))
    figure.text(0.01, -0.02, lines, va="top", fontsize=8, color=INK)
    file = io.BytesIO()
    literal(figure).savefig(file, format="png", dpi=DENSITY, bbox_inches="tight")
    return file.getvalue()
