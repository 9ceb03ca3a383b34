"""Runs that their budget cut short, on the page and in figures: never as the model's number."""

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
    assert '<span class="theirs">(347.20 so far)</span>' in page
    assert re.search(r"<td>\(347.2000 so far\)<td>[^<]*<td>unfinished<td>", page)
    assert not re.search(r'(class="ours"|<b>|measured</small>)[^/]*347', page)


def test_figures_leave_unfinished_runs_out():
    gap = (make_metric(8.05), make_metric(0.05, name="gap"))
    verdicts = {
        cell.id: SimpleNamespace(mean=None, delta=None, interval=None, error=None) for cell in CELLS
    }
    for status, count in (("budget", 0), ("complete", 1)):
        runs = {CELLS[1].id: [make_record(CELLS[1], metrics=gap, status=status)]}
        assert len(list(figures_of(TABLE, runs, verdicts))) == count
