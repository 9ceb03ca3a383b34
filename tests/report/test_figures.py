"""Figures of tables: what they show, in which order, and how they are written."""

import re
from types import SimpleNamespace

import pytest
from factories import (
    make_cell,
    make_column,
    make_metric,
    make_published,
    make_record,
    make_table,
)
from PIL import Image

from dgm_bench.catalog import load_catalog
from dgm_bench.records import write_record
from dgm_bench.report import figures
from dgm_bench.report.figures import write_figures
from dgm_bench.report.page import write_report
from dgm_bench.report.plots import comparison_plot, gap_plot, new_figure, to_svg
from dgm_bench.report.ranking import ranked_rows, ranking_plots
from dgm_bench.report.surgery import surgery_plots
from dgm_bench.report.tradeoff import tradeoff_plots
from dgm_bench.spec import Citation, Paper
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict

CELLS = [
    make_cell("maf", "power", published=make_published("-0.24")),
    make_cell("made", "power", published=make_published("3.08"), same_as="maf-5"),
    make_cell("tan", "power", published=make_published("-0.48"), recipe=None),
    make_cell("maf", "oracle-6"),
    make_cell("made", "oracle-6"),
]
TABLE = make_table(CELLS)
CITATION = Citation(
    id="ffjord", title="FFJORD", authors="W. Grathwohl", year=2019, url="https://x.org", bibtex="@"
)
PAPER = Paper(**CITATION.model_dump(), sources=(), tables=(TABLE,))


def labels_of(axes):
    return (
        axes.get_xlabel(),
        axes.get_ylabel(),
        [text.get_text() for text in axes.get_yticklabels()],
    )


# --------------------------------------------------------------------------- plots


def verdict_of(cell, difference, delta=0.02, **more):
    """A verdict on the difference, better counting as positive."""
    sign = -1 if cell.column.direction == "lower" else 1
    mean = float(cell.published.value) + sign * difference
    given = {"mean": mean, "difference": difference, "delta": delta, "seeds": 3}
    return Verdict(cell.id, "inconclusive", "", **(given | more))


def test_comparison_is_in_margins_best_published_first_and_better_on_the_right():
    verdicts = {cell.id: Verdict(cell.id, "not-run", "") for cell in CELLS}
    verdicts[CELLS[0].id] = verdict_of(CELLS[0], -0.04, interval=(-0.07, -0.01))
    verdicts[CELLS[2].id] = verdict_of(CELLS[2], 0.02, delta=0.1)
    (axes,) = comparison_plot(TABLE, verdicts).axes
    assert axes.get_xlabel() == "difference from the published number, in margins: right is better"
    assert labels_of(axes)[2] == ["TAN, POWER", "MAF, POWER"]
    measured = [bar for bar in axes.containers if bar.get_label() == "measured"]
    assert [bar.lines[0].get_xdata()[0] for bar in measured] == pytest.approx([0.2, -2.0])
    assert measured[1].lines[2][0].get_segments()[0][:, 0] == pytest.approx([-3.5, -0.5])
    assert max(axes.get_yticks()) < axes.get_ylim()[0]


def test_a_number_far_outside_leaves_the_margin_visible():
    verdicts = {cell.id: Verdict(cell.id, "not-run", "") for cell in CELLS}
    verdicts |= {CELLS[0].id: verdict_of(CELLS[0], -40.0), CELLS[2].id: verdict_of(CELLS[2], 0.0)}
    (axes,) = comparison_plot(TABLE, verdicts).axes
    margin = axes.transAxes.inverted().transform(axes.transData.transform([(-1, 0), (1, 0)]))
    assert margin[1][0] - margin[0][0] > 0.1


def test_comparison_of_nothing_is_none():
    assert comparison_plot(TABLE, {c.id: Verdict(c.id, "not-run", "") for c in CELLS}) is None


def gap_runs(cell, *gaps):
    metrics = [(make_metric(8.05), make_metric(gap, name="gap", se=0.01)) for gap in gaps]
    return [make_record(cell, seed=seed, metrics=both) for seed, both in enumerate(metrics)]


def test_gaps_are_shown_by_seed_best_row_first():
    runs = {c.id: [] for c in CELLS}
    runs |= {CELLS[3].id: gap_runs(CELLS[3], 0.3), CELLS[4].id: gap_runs(CELLS[4], 0.05, 0.07)}
    (axes,) = gap_plot(TABLE, runs).axes
    assert axes.get_xlabel() == "gap to the entropy (nats)"
    assert axes.get_title(loc="left") == "ORACLE-6"
    assert labels_of(axes)[2] == ["MADE", "MAF"]
    assert len(axes.containers) == 3
    (bar,) = axes.containers[0].lines[2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.03, 0.07])
    left, right = axes.get_xlim()
    assert left <= 0.0 < 0.32 < right


def test_one_row_makes_no_panel():
    runs = {c.id: [make_record(c)] for c in CELLS}
    assert gap_plot(TABLE, runs) is None
    assert gap_plot(TABLE, runs | {CELLS[3].id: gap_runs(CELLS[3], 0.05, 0.07)}) is None


def compared():
    """A figure with ticks, markers, bars and a legend."""
    verdicts = {cell.id: Verdict(cell.id, "not-run", "") for cell in CELLS}
    return comparison_plot(TABLE, verdicts | {CELLS[0].id: verdict_of(CELLS[0], -0.04)})


def test_svg_has_ids_of_its_own_and_the_colours_of_the_page():
    svg = to_svg(compared(), "one")
    assert svg.startswith("<svg")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }
    assert "http" not in svg
    assert "#24292f" not in svg
    assert svg == to_svg(compared(), "one")


def test_svg_says_what_the_figure_says_and_draws_it_to_a_tenth_of_a_point():
    figure = compared()
    svg = to_svg(figure, "one")
    (axes,) = figure.axes
    for label in axes.get_xticklabels()[1:-1]:
        assert f">{label.get_text()}<" in svg
    assert "opacity: 0.18" in svg
    assert not re.search(r' (d|x|y)="[^"]*\d\.\d\d', svg)
    for name in re.findall(r'class="([^"]*)"', svg):
        assert f".{name}{{" in svg


def written(results, folder, **chosen):
    catalog = SimpleNamespace(tables=[TABLE])
    return write_figures(folder, catalog=catalog, store=Store(results), **chosen)


def stored_gaps(results):
    """A folder with runs of two rows with a gap, and of one with a published number."""
    for cell in CELLS[3:]:
        write_record(gap_runs(cell, 0.05)[0], results)
    for seed in range(3):
        write_record(make_record(CELLS[0], value=-0.23 - 0.001 * seed, seed=seed), results)


def test_the_figures_of_tables_are_files(tmp_path):
    stored_gaps(tmp_path / "results")
    paths = written(tmp_path / "results", tmp_path / "figures")
    names = [path.name for path in paths]
    assert names == ["ffjord-density-comparison.png", "ffjord-density-gaps.png"]
    for path in paths:
        with Image.open(path) as image:
            assert 1100 < image.width < 1200
    chosen = {cell.id for cell in CELLS[:3]}
    paths = written(tmp_path / "results", tmp_path / "some", chosen=chosen)
    assert [path.name for path in paths] == names[:1]


def test_every_kind_of_figure_says_what_is_seen_and_what_its_bars_are():
    assert len({kind.name for kind in figures.FIGURES}) == len(figures.FIGURES)
    for kind in figures.FIGURES:
        assert kind.title
        assert "bars" in kind.caption.lower()
        assert kind.caption.endswith(".")


@pytest.mark.parametrize("several", [False, True])
def test_a_figure_is_declared_once_and_is_in_the_page_and_a_file(tmp_path, monkeypatch, several):
    drawn = []

    def draw(table, runs):
        assert set(runs) == {cell.id for cell in table.cells}
        figure, axes = new_figure(3.0, 2.0)
        axes.set_xlabel("a toy's axis")
        drawn.append(figure)
        return {"a": figure} if several else figure

    toy = figures.FigureKind("toy", "runs", draw, "A toy heading", "A toy <caption>.")
    nothing = figures.FigureKind("none", "verdicts", lambda *_: None, "No heading", "No caption.")
    monkeypatch.setattr(figures, "FIGURES", (*figures.FIGURES, toy, nothing))
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(tmp_path))
    text = target.read_text()
    assert text.count("a toy&#x27;s axis") + text.count("a toy's axis") >= 1
    assert "<h3>A toy heading</h3>" in text
    assert "<figcaption>A toy &lt;caption&gt;.</figcaption>" in text
    assert "No heading" not in text
    (path,) = written(tmp_path, tmp_path / "figures")
    assert path.name == ("ffjord-density-toy-a.png" if several else "ffjord-density-toy.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [t.get_text() for t in drawn[-1].texts] == ["A toy <caption>."]


def ranked(row, published, gap):
    """Cells of a row in a published column and in one that ought to rank like it, and its runs."""
    like = make_column("oracle-6", published=False, ranks_like="power")
    theirs = make_cell(row, "power", published=make_published(published))
    ours = make_cell(row, like)
    gaps = [make_metric(gap + step, name="gap", se=0.5) for step in (-0.1, 0.1)]
    runs = [make_record(ours, seed=s, metrics=(metric,)) for s, metric in enumerate(gaps)]
    return [theirs, ours], {ours.id: runs}


def test_a_ranking_is_plotted_against_the_published_one():
    cells, runs = [], {}
    for row, published, gap in (("maf", "1.0", 0.2), ("made", "3.0", 0.9), ("nice", "2.0", 1.1)):
        found, more = ranked(row, published, gap)
        cells += found
        runs |= more
    table = make_table(cells)
    rows = ranked_rows(table, table.columns[1], runs)
    assert [(row.title, row.published, round(row.gap, 9)) for row in rows] == [
        ("MAF", 1.0, 0.2), ("NICE", 2.0, 1.1), ("MADE", 3.0, 0.9)]  # fmt: skip
    assert [row.error for row in rows] == pytest.approx([0.1 * 2**0.5] * 3)
    (figure,) = ranking_plots(table, runs).values()
    (axes,) = figure.axes
    assert "tau 0.33" in axes.get_title(loc="left")
    assert labels_of(axes)[2] == ["MAF  1.00", "NICE  2.00", "MADE  3.00"]


def test_two_rows_make_no_ranking():
    cells, runs = ranked("maf", "1.0", 0.2)
    assert ranking_plots(make_table(cells), runs) == {}


def test_precision_against_recall_has_a_point_a_row_and_the_way_of_rejection():
    table = load_catalog().table("vqvae2/diversity")
    names = {"": 0.6, "rejected-": 0.8, "reconstruction-": 0.9}
    metrics = [
        make_metric(value, name=f"{prefix}classifier-{what}")
        for prefix, value in names.items()
        for what in ("precision", "recall")
    ]
    for kept in (100, 50):
        for what in ("precision", "recall"):
            metrics.append(make_metric(kept / 100, name=f"classifier-{what}-kept-{kept}%"))
    runs = {
        cell.id: [make_record(cell, metrics=tuple(metrics))]
        for cell in table.cells
        if cell.row.id.startswith("vqvae-2") and cell.column.id == "digits-precision"
    }
    (figure,) = tradeoff_plots(table, runs).values()
    (axes,) = figure.axes
    assert len(axes.containers) == len(runs)
    paths = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert any(list(line.get_xdata()) == [1.0, 0.5] for line in paths)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == len(runs)
    assert legend.index("VQ-VAE-2, reconstructions") < legend.index("VQ-VAE-2")
    alone = dict([next(iter(runs.items()))])
    assert tradeoff_plots(table, {}) == tradeoff_plots(table, alone) == {}


def test_what_an_elbo_is_made_of_is_sorted_and_its_sums_stand_once():
    table = load_catalog().table("priors/elbo-surgery")
    caltech = [c for c in table.cells if c.column.data == "caltech" and not c.repeats]
    cells = list({cell.row.id: cell for cell in caltech}.values())
    parts = {"reconstruction-train": 80.0, "mutual-information": 8.0}
    runs = {}
    for place, cell in enumerate(cells):
        divergence = {"marginal-kl": 20.0 - place if place else 0.0}
        metrics = tuple(make_metric(v, name=n) for n, v in (parts | divergence).items())
        runs[cell.id] = [make_record(cell, metrics=metrics)]
    left, right = surgery_plots(table, runs)["caltech"].axes
    sums = [float(text.get_text()) for text in left.texts if text.get_weight() != "bold"]
    assert sums == sorted(sums)
    assert [text.get_text() for text in right.texts].count("8.00") == len({*labels_of(left)[2]})
