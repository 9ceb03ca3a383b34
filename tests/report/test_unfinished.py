"""Runs that their budget cut short, on the page and in figures: never as the model's number."""

import json
import re
from types import SimpleNamespace

from factories import make_cell, make_metric, make_published, make_record, make_table

from dgm_bench.records import write_record
from dgm_bench.report.figures import figures_of
from dgm_bench.report.page import write_report
from dgm_bench.spec import Citation, Paper
from dgm_bench.store import Store

CELLS = [make_cell("maf", published=make_published("-0.24")), make_cell("maf", "oracle-6")]
TABLE = make_table(CELLS)
CITATION = Citation(
    id="ffjord", title="FFJORD", authors="W. Grathwohl", year=2019, url="https://x.org", bibtex="@"
)
PAPER = Paper(**CITATION.model_dump(), sources=(), tables=(TABLE,))


def test_the_page_shows_an_unfinished_run_as_such(tmp_path):
    write_record(make_record(CELLS[0], value=347.2, status="budget"), tmp_path)
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(tmp_path))
    page = target.read_text()
    assert re.search(r'<td class="unfinished"><a [^>]*><i>[^<]*</i><b>\(347.20 so far\)</b>', page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    cell, (run,) = data["cells"][CELLS[0].id], data["runs"]
    assert (cell["state"], cell["scale"]["so_far"]) == ("unfinished", 347.2)
    assert "measured" not in cell["scale"]
    assert (run["status"], cell["runs"][0][1]) == ("unfinished", "(347.2000 so far)")


def test_a_finished_run_is_drawn_without_the_unfinished_one(tmp_path):
    write_record(make_record(CELLS[0], value=-0.2), tmp_path)
    write_record(make_record(CELLS[0], value=347.2, seed=1, status="budget"), tmp_path)
    target = tmp_path / "page.html"
    write_report(target, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(tmp_path))
    data = json.loads(re.search(r'id="data">(.*?)</script>', target.read_text())[1])
    assert data["cells"][CELLS[0].id]["scale"]["seeds"] == [-0.2]


def test_figures_leave_unfinished_runs_out():
    gap = (make_metric(8.05), make_metric(0.05, name="gap"))
    cells = [make_cell("maf", "oracle-6"), make_cell("made", "oracle-6")]
    verdicts = {cell.id: SimpleNamespace(mean=None, delta=None, difference=None) for cell in cells}
    for status, count in (("budget", 0), ("complete", 1)):
        runs = {cell.id: [make_record(cell, metrics=gap, status=status)] for cell in cells}
        assert len(list(figures_of(make_table(cells), runs, verdicts, lambda run: []))) == count
