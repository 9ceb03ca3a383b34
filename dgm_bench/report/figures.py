"""The figures of tables as files, for a README or a paper."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from dgm_bench.records import write_atomically
from dgm_bench.report.gradients import gradient_plot
from dgm_bench.report.plots import comparison_plot, gap_plot
from dgm_bench.report.ranking import ranking_plots
from dgm_bench.report.relaxation import relaxation_plot
from dgm_bench.report.surgery import surgery_plots
from dgm_bench.report.tradeoff import tradeoff_plots
from dgm_bench.store import Store
from dgm_bench.verdict import judge_table, pool_variances

if TYPE_CHECKING:
    from dgm_bench.catalog import Catalog


def write_figures(folder: Path, *, catalog: Catalog, store: Store) -> list[Path]:
    """Write each table's figures as PNG and return the files.

    ``<paper>-<table>-comparison.png`` has measured minus published numbers,
    ``<paper>-<table>-gaps.png`` the gaps to known entropies, and
    ``<paper>-<table>-ranking-<column>.png`` such gaps against a published ranking. Tables of
    measurements have figures of their own: ``relaxation``, ``gradients``, ``surgery-<data>``,
    ``tradeoff-<data>-<features>``. A figure without runs is left out.

    Raises:
        ResultsError: When a record cannot be read, or a file cannot be written.
    """
    pool, written = pool_variances(store.records()), []
    for table in catalog.tables:
        runs = {cell.id: store.for_cell(cell) for cell in table.cells}
        figures = {
            "comparison": comparison_plot(table, judge_table(table, store, pool)),
            "gaps": gap_plot(table, runs),
            "relaxation": relaxation_plot(table, runs),
            "gradients": gradient_plot(table, runs),
        }
        for column, figure in ranking_plots(table, runs).items():
            figures[f"ranking-{column}"] = figure
        for data, figure in surgery_plots(table, runs).items():
            figures[f"surgery-{data}"] = figure
        for images, figure in tradeoff_plots(table, runs).items():
            figures[f"tradeoff-{images}"] = figure
        for name, made in figures.items():
            if made is not None:
                path = folder / f"{table.name.replace('/', '-')}-{name}.png"
                picture = io.BytesIO()
                made.savefig(picture, format="png", dpi=110, bbox_inches="tight")
                write_atomically(path, picture.getvalue())
                written.append(path)
    return written
