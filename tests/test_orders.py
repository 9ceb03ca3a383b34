"""Rows in their published order: Kendall's tau, and what noise leaves of it."""

import json
import random

import pytest
from factories import make_cell, make_column, make_published, make_table
from scipy.stats import kendalltau

from dgm_bench.catalog import Catalog, load_catalog
from dgm_bench.report.tables import ORDERED, ordered, render_table
from dgm_bench.spec import Paper
from dgm_bench.stats import kendall
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict, published_orders

COLUMN = make_column("power")
PUBLISHED = {"maf": "1.0", "nice": "2.0", "made": "3.0", "vae": "4.0"}


def judged(measured, half=None, column=COLUMN, published=PUBLISHED):
    """A table of rows with published numbers, and verdicts with these means and intervals."""
    cells = [make_cell(row, column, published=make_published(n)) for row, n in published.items()]
    verdicts = {
        cell.id: Verdict(
            cell.id,
            "inconclusive",
            "",
            mean=mean,
            seeds=3,
            interval=None if half is None else (-half, half),
        )
        for cell, mean in zip(cells, measured, strict=False)
        if mean is not None
    }
    return make_table(cells), verdicts


def test_tau_is_scipys_with_ties_and_without():
    generator = random.Random(1)
    for most in (2, 4, 100):
        for _ in range(20):
            one, other = ([generator.randint(1, most) for _ in range(8)] for _ in range(2))
            assert kendall(one, other) == pytest.approx(
                kendalltau(one, other).statistic, nan_ok=True
            )


@pytest.mark.parametrize(
    ("measured", "tau"), [((1, 2, 3, 4), 1.0), ((1, 3, 2, 4), 2 / 3), ((4, 3, 2, 1), -1.0)]
)
@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_the_order_is_from_the_best_on(measured, tau, direction):
    (order,) = published_orders(*judged(measured, column=make_column("power", direction=direction)))
    rows = tuple(PUBLISHED) if direction == "lower" else tuple(reversed(PUBLISHED))
    assert order.rows == rows
    assert order.tau == pytest.approx(tau)
    assert order.low is order.high is None


def test_the_interval_is_what_noise_leaves():
    """Two neighbours exchange places in one draw of ten where their means are so far apart."""
    half = 1.6448536 / 2**0.5 / 1.2815516  # of their difference, 1 is the 90 % quantile
    (sure,) = published_orders(*judged((1, 2, 3, 4), 1e-3))
    assert (sure.low, sure.tau, sure.high) == (1, 1, 1)
    (order,) = published_orders(*judged((0, 1, 100, 200), half))
    assert (order.low, order.high) == (pytest.approx(2 / 3), 1)
    (order,) = published_orders(*judged((0, 1, 100, 200), half / 2))
    assert (order.low, order.high) == (1, 1)
    (lost,) = published_orders(*judged((1, 2, 3, 4), 100))
    assert lost.low <= -2 / 3
    assert lost.high >= 2 / 3


def test_rows_without_a_number_of_their_own_have_no_place():
    assert published_orders(*judged((1, 2))) == []
    assert published_orders(*judged((1, 2, 3), published=dict.fromkeys(PUBLISHED, "1.0"))) == []
    counts = make_column("power", metric="parameters")
    assert published_orders(*judged((1, 2, 3, 4), column=counts)) == []
    table, verdicts = judged((1, 2, 3, None))
    (order,) = published_orders(table, verdicts)
    assert order.rows == ("maf", "nice", "made")


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_tables_say_it_below(style):
    table, verdicts = judged((1, 2, 4, 3), 1e-3)
    text = " ".join(render_table(table, verdicts, style).split())
    assert " ".join(ORDERED.split()) in text
    assert "POWER: 0.67, 90 % interval 0.67 to 0.67, of 4 rows" in text
    assert ORDERED not in render_table(table, {}, style)
    (found,) = json.loads(render_table(table, verdicts, "json"))["orders"]
    assert found["rows"] == ["maf", "nice", "made", "vae"]
    (text,) = ordered(*judged((1, 2, 4, 3)))
    assert text == "POWER: 0.67, of 4 rows"


def test_the_page_says_it_too(tmp_path, monkeypatch):
    from dgm_bench.report import page

    table, verdicts = judged((1, 2, 3, 4))
    monkeypatch.setattr(page, "judge_table", lambda *_: verdicts)
    fields = dict.fromkeys(("id", "title", "authors", "url", "bibtex"), "x")
    paper = Paper(**fields, year=2019, sources=(), tables=(table,))
    page.write_report(tmp_path / "x.html", catalog=Catalog((paper,)), store=Store(tmp_path))
    assert "<li>POWER: 1.00, of 4 rows</li>" in (tmp_path / "x.html").read_text()


def test_declared_tables_have_columns_to_order():
    """Were all reproduced exactly: MNIST of FFJORD's table has its rows in order."""
    table = load_catalog().table("ffjord/density")
    verdicts = {
        cell.id: Verdict(cell.id, "reproduced", "", mean=float(cell.published.value))
        for cell in table.cells
        if cell.published
    }
    orders = {order.column: order for order in published_orders(table, verdicts)}
    assert orders["mnist"].tau == 1
    assert "made" in orders["mnist"].rows
