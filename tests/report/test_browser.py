"""The page as a browser shows it, and colours that people can read."""

import re
from pathlib import Path
from types import SimpleNamespace

import hostile
import pytest
from browser import browser, program
from factories import make_cell, make_published, make_record, make_table

from dgm_bench.escaping import plain
from dgm_bench.records import write_record
from dgm_bench.report import page as page_module
from dgm_bench.report.page import write_report
from dgm_bench.spec import Citation, Paper
from dgm_bench.store import Store

STYLE = (page_module.TEMPLATES / "report.css").read_text()
HOSTILE = "".join(hostile.PIECES).encode("utf-8", "replace").decode()
CELLS = [
    make_cell("maf", "power", published=make_published("-0.24", note=HOSTILE)),
    make_cell("made", "power", published=make_published("3.08")),
    make_cell("tan", "power", published=make_published("-10.5")),
    make_cell("maf", "gas"),
]
CITATION = Citation(
    id="ffjord", title="FFJORD", authors="W. Grathwohl", year=2019, url="https://x.org", bibtex="@"
)
PAPER = Paper(**CITATION.model_dump(), sources=(), tables=(make_table(CELLS),))


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A tab with the page of a small store, and a function that opens it anew."""
    if program() is None:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("page")
    for seed in range(3):
        write_record(make_record(CELLS[0], value=-0.23 - 0.001 * seed, seed=seed), folder)
    file = folder / "page.html"
    write_report(file, catalog=SimpleNamespace(papers=(PAPER,)), store=Store(folder))
    with browser() as opened:
        opened.size(1400)
        opened.page = file
        yield opened
        assert opened.faults() == []


def seen(tab, selector):
    """The texts of what is shown."""
    shown = f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility())"
    return tab.run(f"{shown}.map(e => e.textContent)")


def test_the_page_asks_for_nothing_and_has_no_faults(tab):
    tab.open(tab.page)
    assert [Path(address).name for address in tab.requests()] == ["page.html"]
    assert tab.faults() == []


def test_a_link_opens_a_cell_and_texts_stay_texts(tab):
    tab.open(tab.page, f"#{CELLS[0].id}")
    assert seen(tab, "#cell h2") == ["MAF, POWER"]
    assert "dgm-bench run ffjord/density/maf/power" in seen(tab, "#cell kbd")
    names = seen(tab, "#cell svg[aria-label^=Measured] text")
    assert {"published", "measured", "each seed"} <= set(names)
    assert tab.run("document.querySelectorAll('#cell .margin, #cell circle.seed').length") == 4
    (note,) = [text for text in seen(tab, "#cell p.quiet") if "<script>" in text]
    assert note == plain(HOSTILE) + "."
    tab.run("document.getElementById('cell').close()")
    tab.run("new Promise(r => setTimeout(r, 50))")
    assert tab.run("location.hash") == "#ffjord/density"


def test_numbers_that_differ_by_rounding_alone_have_no_scale(tab):
    tab.open(tab.page)
    assert tab.run("ticks(0.0032931, 0.0032931 + 8e-19, 6).length") < 20
    assert tab.run("ticks(0.1, 0.5, 4).map(([, text]) => text)") == [
        "0.1",
        "0.2",
        "0.3",
        "0.4",
        "0.5",
    ]
    drawn = (
        "scaleFigure({{measured: 0.0032931, error: {}, seeds: [1, 1].fill(0.0032931)}}, '', 600)"
    )
    assert tab.run(f"{drawn.format('5e-19')} === null")
    assert tab.run(f"{drawn.format('5e-5')} !== null")


def test_filters_leave_what_was_asked_for(tab):
    tab.open(tab.page)
    put = "document.forms[0].{0}.value = '{1}'; document.forms[0].dispatchEvent(new Event('input'))"
    tab.run(put.format("text", "made"))
    assert seen(tab, "#filters output") == ["1 of 4 cells"]
    assert seen(tab, ".matrix tbody th") == ["MADE"]
    tab.run(put.format("text", "") + ";" + put.format("data", "gas"))
    assert seen(tab, ".matrix tbody th") == ["MAF"]
    assert [text[:3] for text in seen(tab, ".matrix thead th")] == ["mod", "GAS"]
    tab.run("document.forms[0].reset(); new Promise(r => setTimeout(r, 50))")
    assert seen(tab, ".matrix tbody th") == ["MAF", "MADE", "TAN"]


def test_columns_are_sorted_by_what_was_measured_else_published(tab):
    tab.open(tab.page)
    click = "[...document.querySelectorAll('.matrix thead th button')][1].click()"
    orders = []
    for _ in range(3):
        tab.run(click)
        orders.append(seen(tab, ".matrix tbody th"))
    assert orders == [["TAN", "MAF", "MADE"], ["MADE", "MAF", "TAN"], ["MAF", "MADE", "TAN"]]


# --------------------------------------------------------------------------- colours


def luminance(colour):
    """Relative luminance of WCAG 2.2, of a colour as ``#rrggbb``."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_stand_out_in_both_themes(theme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    assert len(colours) > 15
    for name, colour in colours.items():
        least = 3.0 if re.fullmatch(r"c\d|plot-blue", name) else 4.5
        for ground in () if name in ("page", "card", "line") else ("page", "card"):
            assert contrast(colour, colours[ground]) >= least, (name, ground)
