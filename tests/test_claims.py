"""What a paper says of two rows without numbers, judged on columns of ours."""

import json

import pytest
from factories import make_cell, make_column, make_metric, make_recipe, make_record, make_table

from dgm_bench.catalog import Catalog, load_catalog
from dgm_bench.records import write_record
from dgm_bench.report.page import write_report
from dgm_bench.report.tables import CLAIMED, render_table
from dgm_bench.spec import Claim, Paper
from dgm_bench.stats import VariancePrior
from dgm_bench.store import Store
from dgm_bench.verdict import Pool, judge_claims
from dgm_bench.verdict.claims import LEVELS, ClaimVerdict, Gap, at_level, front

COLUMN = make_column(
    "digits-recall", metric="net-recall", unit="fraction", direction="higher", data="power"
)
ROWS = ("vae", "gan")


def claim(**more):
    fields = {"id": "diverse", "title": "more diverse", "where": "figure 7", "relation": "higher"}
    return Claim(**{**fields, "row": "vae", "than": "gan", "columns": ("digits-recall",), **more})


@pytest.fixture
def judged(tmp_path):
    """Judges a claim by runs of two rows, each with its metrics by name."""

    def judge(runs, pool=None, **more):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        recipes = {
            row: make_recipe(row, args={"layers": len(row) + n}) for n, row in enumerate(ROWS)
        }
        cells = [make_cell(row, COLUMN, recipe=recipes[row]) for row in ROWS]
        for cell in cells:
            for seed, metrics in enumerate(runs[cell.row.id]):
                found = [
                    make_metric(value, name=name, unit="fraction", direction="higher")
                    for name, value in metrics.items()
                ]
                write_record(make_record(cell, seed=seed, metrics=tuple(found)), folder)
        table = make_table(cells, claims=(claim(**more),))
        (verdict,) = judge_claims(table, Store(folder), pool or Pool())
        return verdict

    return judge


def recalls(*values):
    return [{"net-recall": value} for value in values]


HIGH, LOW, WIDE = recalls(0.8, 0.81, 0.79), recalls(0.6, 0.61, 0.59), recalls(0.4, 0.9, 0.7)


@pytest.mark.parametrize(
    ("vae", "gan", "relation", "state"),
    [
        (HIGH, LOW, "higher", "holds"),
        (HIGH, LOW, "lower", "opposite"),
        (LOW, HIGH, "higher", "opposite"),
        (LOW, HIGH, "lower", "holds"),
        (HIGH, WIDE, "higher", "inconclusive"),
        (HIGH, [], "higher", "not-run"),
    ],
)
def test_the_side_of_the_interval_decides(judged, vae, gan, relation, state):
    verdict = judged({"vae": vae, "gan": gan}, relation=relation)
    assert verdict.state == state
    assert verdict.seeds == (len(vae), len(gan))


def test_the_interval_is_welchs(judged):
    (gap,) = judged({"vae": HIGH, "gan": LOW}).gaps
    half = 2.131847 * (0.0002 / 3) ** 0.5  # t of 4 degrees of freedom
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_single_seeds_need_the_spread_of_others(judged):
    one = {"vae": HIGH[:1], "gan": LOW[:1]}
    assert judged(one).reason == "no spread between seeds known"
    known = Pool({("power", "net-recall", "fraction"): VariancePrior(0.01**2, 8.0)})
    assert judged(one, known).state == "holds"


def curve(shift, *points):
    """A run whose recall is some points above a line, at these precisions."""
    found = {}
    for place, (precision, recall) in enumerate(points):
        ending = f"-truncated-{place}" if place else ""
        found |= {f"net-precision{ending}": precision, f"net-recall{ending}": recall + shift}
    return found


def seeds(*points):
    return [curve(shift, *points) for shift in (-0.01, 0.0, 0.01)]


FLAT, STEEP = ((0.6, 0.8), (0.9, 0.7)), ((0.5, 0.75), (0.7, 0.65), (0.95, 0.2))


def test_along_curves_rows_are_compared_where_precision_is_the_same(judged):
    """By their plain samples alone the second row would be less diverse or more, by chance."""
    verdict = judged({"vae": seeds(*FLAT), "gan": seeds(*STEEP)}, at_equal="precision")
    assert verdict.state == "holds"
    assert [gap.at for gap in verdict.gaps] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert verdict.gaps[0].difference == pytest.approx(0.8 - 0.75)
    assert verdict.gaps[1].difference == pytest.approx(0.8 - 0.7)
    assert verdict.gaps[-1].difference == pytest.approx(0.7 - 0.29)
    assert "at equal precision" in verdict.reason


def test_curves_that_cross_are_told(judged):
    over = ((0.6, 0.9), (0.9, 0.3))
    verdict = judged({"vae": seeds(*FLAT), "gan": seeds(*over)}, at_equal="precision")
    assert verdict.state == "crosses"


@pytest.mark.parametrize(("recall", "state"), [(0.9, "opposite"), (0.5, "holds")])
def test_a_row_that_begins_at_a_higher_precision_has_no_more_recall_at_less(judged, recall, state):
    """The curves of such rows have no precision in common, and one may be above the other."""
    apart = ((0.95, recall), (0.99, 0.1))
    verdict = judged({"vae": seeds(*FLAT), "gan": seeds(*apart)}, at_equal="precision")
    assert verdict.state == state
    assert [gap.at for gap in verdict.gaps][:: LEVELS - 1] == pytest.approx([0.6, 0.9])
    assert verdict.gaps[-1].difference == pytest.approx(0.7 - recall)


def test_curves_of_one_seed_decide_nothing(judged):
    single = {"vae": seeds(*FLAT), "gan": seeds(*STEEP)[:1]}
    assert judged(single, at_equal="precision").state == "inconclusive"


def test_a_front_has_the_best_recall_of_at_least_a_precision():
    values = {"": (0.5, 0.6), "-kept-50%": (0.7, 0.8), "-kept-20%": (0.9, 0.3), "-query": (1, 1)}
    metrics = []
    for ending, (precision, recall) in values.items():
        metrics.append(make_metric(precision, name=f"net-precision{ending}"))
        metrics.append(make_metric(recall, name=f"net-recall{ending}"))
    found = front(make_record(metrics=tuple(metrics)), "net-recall", "net-precision")
    assert found == [(0.5, 0.8), (0.7, 0.8), (0.9, 0.3)]
    assert [at_level(found, level) for level in (0.5, 0.6, 0.8, 0.9)] == pytest.approx(
        [0.8, 0.8, 0.55, 0.3]
    )


# --------------------------------------------------------------------------- as it is told


@pytest.fixture
def told():
    """A table with two claims, of which one was judged."""
    cells = [make_cell(row, COLUMN) for row in ROWS]
    table = make_table(cells, claims=(claim(),))
    holds = ClaimVerdict(
        claim(), COLUMN.id, "holds", "holds: by far", (Gap(0.2, 0.1, 0.3),), (3, 3)
    )
    idle = ClaimVerdict(claim(title="idle"), COLUMN.id, "not-run", "not run yet")
    return table, [idle, holds]


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_a_table_says_below_its_columns_what_is_claimed(told, style):
    table, claims = told
    text = " ".join(render_table(table, {}, style, claims=claims).split())
    assert CLAIMED in text
    first = text.index("more diverse (figure 7): DIGITS-RECALL: holds: by far")
    assert text.index("idle (figure 7): DIGITS-RECALL: not run yet") > first
    assert CLAIMED not in render_table(table, {}, style)


def test_machines_read_claims_with_their_intervals(told):
    table, claims = told
    found = json.loads(render_table(table, {}, "json", claims=claims))["claims"]
    assert [(entry["title"], entry["state"]) for entry in found] == [
        ("idle", "not-run"),
        ("more diverse", "holds"),
    ]
    assert found[1]["gaps"] == [{"difference": 0.2, "low": 0.1, "high": 0.3, "at": None}]
    assert found[1]["seeds"] == [3, 3]
    assert json.loads(render_table(table, {}, "json"))["claims"] == []


def test_the_page_says_so_too(tmp_path):
    cells = [make_cell(row, COLUMN) for row in ROWS]
    fields = dict.fromkeys(("id", "title", "authors", "url", "bibtex"), "x")
    paper = Paper(**fields, year=2019, sources=(), tables=(make_table(cells, claims=(claim(),)),))
    target = tmp_path / "page.html"
    write_report(target, catalog=Catalog((paper,)), store=Store(tmp_path))
    assert "<li>more diverse (figure 7): DIGITS-RECALL: not run yet</li>" in target.read_text()


def test_the_catalogues_claims_are_of_rows_with_recipes():
    claims = [(table, claim) for table in load_catalog().tables for claim in table.claims]
    assert claims
    for table, found in claims:
        for row in (found.row, found.than):
            cells = [c for c in table.cells if c.row.id == row and c.column.id in found.columns]
            assert all(cell.recipe for cell in cells)
