"""Plots, figures and the page, from small hand-made declarations and records."""

import csv
import math
import re
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
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

from dgm_bench import report
from dgm_bench.catalog import load_catalog
from dgm_bench.records import write_record
from dgm_bench.report import figures
from dgm_bench.report.figures import write_figures
from dgm_bench.report.page import write_report
from dgm_bench.report.plots import comparison_plot, gap_plot, new_figure, to_svg
from dgm_bench.report.ranking import kendall, ranked_rows, ranking_plots
from dgm_bench.report.tradeoff import tradeoff_plots
from dgm_bench.spec import Erratum, Paper, Source
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict

ERRATUM = Erratum(id="e", cells=("x",), text="Copied <wrongly> & unsaid.", source="a paper")
CELLS = [
    make_cell("maf", "power", published=make_published("-0.24"), errata=(ERRATUM,)),
    make_cell("made", "power", published=make_published("3.08", note="one run"), same_as="maf-5"),
    make_cell("tan", "power", published=make_published("-0.48"), recipe=None),
    make_cell("maf", "oracle-6"),
    make_cell("made", "oracle-6"),
]
TABLE = make_table(CELLS)


def curve_rows(steps=20, start=-0.24):
    return [
        {
            "step": 100.0 * i,
            "epoch": i / 2,
            "seconds": 3.0 * i,
            "train_loss": math.nan if i == 1 else start + 1 / i,
            "validation": start + 1.1 / i,
            "lr": 1e-3 if i < 10 else 1e-4,
            "function_evaluations": math.nan,
        }
        for i in range(1, steps + 1)
    ]


def labels_of(axes):
    return (
        axes.get_xlabel(),
        axes.get_ylabel(),
        [text.get_text() for text in axes.get_yticklabels()],
    )


# --------------------------------------------------------------------------- plots


def test_comparison_shows_the_interval_on_the_printed_scale():
    verdicts = {cell.id: Verdict(cell.id, "not-run", "") for cell in CELLS}
    verdicts[CELLS[0].id] = Verdict(
        CELLS[0].id, "worse", "", mean=-0.2, seeds=3, delta=0.02, interval=(-0.07, -0.01)
    )
    figure = comparison_plot(TABLE, verdicts)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "measured - published (nats), lower is better"
    assert labels_of(axes)[2] == ["MAF"]
    (bar,) = axes.containers[-1].lines[2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.01, 0.07])


def test_comparison_of_nothing_is_none():
    assert comparison_plot(TABLE, {c.id: Verdict(c.id, "not-run", "") for c in CELLS}) is None


def test_gaps_are_shown_by_seed_where_they_were_measured():
    gaps = [make_metric(8.05), make_metric(0.05, name="gap", se=0.01)]
    runs = {c.id: [] for c in CELLS}
    runs[CELLS[3].id] = [make_record(CELLS[3], seed=s, metrics=tuple(gaps)) for s in range(2)]
    (axes,) = gap_plot(TABLE, runs).axes
    assert axes.get_xlabel() == "gap to the entropy (nats)"
    assert axes.get_title(loc="left") == "ORACLE-6"
    assert labels_of(axes)[2] == ["MAF"]
    assert len(axes.containers) == 2
    (bar,) = axes.containers[0].lines[2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.03, 0.07])
    assert gap_plot(TABLE, {c.id: [make_record(c)] for c in CELLS}) is None


def compared():
    """A figure with ticks, markers, bars and a legend."""
    verdicts = {cell.id: Verdict(cell.id, "not-run", "") for cell in CELLS}
    measured = Verdict(CELLS[0].id, "worse", "", mean=-0.2, seeds=3, delta=0.02)
    return comparison_plot(TABLE, verdicts | {CELLS[0].id: measured})


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


# --------------------------------------------------------------------------- page


PAPER = Paper(
    id="ffjord",
    title="Free-form <flows>",
    authors="A. Author",
    year=2019,
    url="https://arxiv.org/abs/1810.01367",
    bibtex="@inproceedings{x, url={https://arxiv.org/abs/1810.01367}}",
    sources=(
        Source(
            id="maf-paper",
            citation="Papamakarios (2017)",
            where="Table 1",
            pm_kind="two_se_test",
            selection="best",
        ),
    ),
    tables=(TABLE.model_copy(update={"columns": (
        make_column("power"), make_column("oracle-6", published=False))}),),
)  # fmt: skip
#: Elements that end where the next begins, or the one around them.
IMPLIED = {"dt", "dd", "p", "td", "th", "tr"}
VOID = {"meta", "img", "input", "br", "link"}


class Checker(HTMLParser):
    """Follows the tags of a page, and collects ids, links and what is loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.loaded = [], [], [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if tag == "a" else []
        self.loaded += [named[key] for key in ("src", "srcset", "data") if key in named]
        self.loaded += [named["href"]] if tag == "link" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        while (last := self.open.pop()) != tag:
            assert last in IMPLIED


PICTURE = b"\x89PNG picture"


@pytest.fixture
def page(tmp_path):
    """The page of a small store, as text."""
    results = tmp_path / "results"
    for seed in range(3):
        files = {"curve": f"c{seed}.csv", "artifacts": {"samples.png": sha256(PICTURE).hexdigest()}}
        record = make_record(CELLS[0], value=-0.23 - 0.001 * seed, seed=seed, **files)
        path = write_record(record, results)
        with path.with_name(f"c{seed}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(curve_rows()[0]))
            writer.writeheader()
            writer.writerows(
                {k: "" if math.isnan(v) else v for k, v in row.items()} for row in curve_rows()
            )
    picture = results / "artifacts" / record.run_id / "samples.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(PICTURE)
    write_record(make_record(CELLS[1], value=None, status="diverged", metrics=()), results)
    gaps = (make_metric(8.05), make_metric(0.05, name="gap", se=0.01))
    write_record(make_record(CELLS[3], metrics=gaps), results)
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(results))
    return target.read_text()


def test_the_page_is_well_formed_and_loads_nothing(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    inner = {link[1:] for link in checker.links if link.startswith("#")}
    assert inner <= set(checker.ids)
    outer = {link for link in checker.links if not link.startswith("#")}
    assert outer == {PAPER.url}
    assert len(checker.loaded) == 1
    assert checker.loaded[0].startswith("data:image/png;base64,")
    without_citations = page.replace(PAPER.url, "")
    assert not re.search(r"https?://|@import|\burl\((?!#)", without_citations)


def test_the_page_says_everything_about_every_cell(page):
    for cell in CELLS:
        assert f"<code>{cell.id}</code>" in page
    assert "dgm-bench run ffjord/density/maf/power" in page
    assert "dgm-bench run ffjord/density/tan/power" not in page
    assert "-0.24 ±0.01" in page
    assert "two standard errors over the test points of one model" in page
    assert "Papamakarios (2017), Table 1" in page
    assert "<dt>optimizer.lr<dd>0.0001" in page
    assert f">{CELLS[0].id}, seed 2</text>" in page
    assert "gap to the entropy (nats)" in page
    assert "Columns of ours" in page
    assert '<p class="quiet">one run.</p>' in page
    assert "Reproduced by the recipe of row maf-5." in page


def test_texts_are_escaped(page):
    assert "Copied &lt;wrongly&gt; &amp; unsaid." in page
    assert "<wrongly>" not in page
    assert "Free-form &lt;flows&gt;" in page


def test_an_empty_store_makes_a_page_that_says_how_to_start(tmp_path):
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(tmp_path))
    assert "No run is stored yet" in target.read_text()


def test_no_module_of_the_report_needs_torch_mlflow_or_a_model():
    files = sorted(Path(report.__file__).parent.glob("*.py"))
    names = [f"dgm_bench.report.{file.stem}" for file in files if file.stem != "__init__"]
    assert "dgm_bench.report.page" in names
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]\n"
        "heavy = {'torch', 'mlflow', 'matplotlib', 'dgm_bench.models', 'dgm_bench.pictures'}\n"
        "print(heavy & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


def written(results, folder, table=TABLE):
    return write_figures(folder, catalog=SimpleNamespace(tables=[table]), store=Store(results))


def test_the_figures_of_tables_are_files(page, tmp_path):
    paths = written(tmp_path / "results", tmp_path / "figures")
    names = [path.name for path in paths]
    assert names == ["ffjord-density-comparison.png", "ffjord-density-gaps.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


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
    assert "<h4>A toy heading</h4>" in text
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
    assert kendall(rows) == pytest.approx(1 / 3)
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
    assert tradeoff_plots(table, {}) == {}
