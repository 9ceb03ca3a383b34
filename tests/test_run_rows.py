"""Rows of finished runs: what stands in them, how wide they are, and which runs share one."""

import pytest
from factories import make_metric, make_record
from planner_parts import MACHINE, a_cell, a_recipe
from rich.cells import cell_len

from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.run_rows import (
    MOST_ROWS,
    TOGETHER,
    Layout,
    Row,
    Rows,
    Shared,
    StoredNumbers,
    key_of,
    row_of,
    shared_rows,
)
from dgm_bench.spec import YES_NO


class Stored:
    """As much of a store as rows read."""

    def __init__(self, *records, own=()):
        self.known, self.own = [*records, *own], own

    def records(self):
        return self.known

    def is_own(self, record):
        return record in self.own


def a_run(row="maf", seconds=5.0, priority=0, seed=0, lr=1e-3, **changes):
    recipe = a_recipe(lr=lr)
    cell = a_cell(row, recipe=recipe, priority=priority)
    return PlannedRun(cell, (cell.id,), seed, recipe, seconds=seconds, runs=True, **changes)


def record_of(run, value=2.5, se=0.01, **changes):
    number = make_metric(value, name=run.cell.metric, unit=run.cell.column.unit, se=se)
    return make_record(run.cell, recipe=run.recipe, seed=run.seed,
                       **{"metrics": (number,), **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("value", "word"),
    [(2.5, "equal"), (2.5000001, "equal"), (2.9, "+0.4"), (2.1, "-0.4")],
)
def test_one_run_is_held_against_the_stored_one_of_its_cell(value, word):
    """Of one seed on each side nobody knows the spread: there is a difference, no judgement."""
    run = a_run(seed=1)
    stored = StoredNumbers(Stored(record_of(a_run())))
    assert row_of(run, record_of(run, value), stored).against == word


@pytest.mark.parametrize(
    ("value", "word"), [(2.51, "within noise"), (9.0, "worse"), (0.1, "better")]
)
def test_with_several_stored_seeds_a_difference_is_judged(value, word):
    run = a_run(seed=7)
    values = (2.4, 2.5, 2.6)
    seeds = [record_of(a_run(seed=s), v) for s, v in enumerate(values)]
    direction = run.cell.column.direction
    assert direction == "lower"
    assert row_of(run, record_of(run, value), StoredNumbers(Stored(*seeds))).against == word


def test_own_modified_and_absent_runs_are_nothing_to_compare_with():
    run = a_run()
    other = record_of(run)
    for store in (Stored(), Stored(own=(other,)), Stored(record_of(run, modified=("a=1",)))):
        assert row_of(run, record_of(run), StoredNumbers(store)).against == "none stored"
    changed = record_of(run, modified=("optimizer.lr=1",))
    assert row_of(run, changed, StoredNumbers(Stored(other))).against == "none stored"


def test_a_row_has_the_number_of_its_cell_alone_and_the_gap():
    run = a_run()
    metrics = (make_metric(7.0, name="other"), make_metric(2.5, name=run.cell.metric, se=0.01),
               make_metric(0.25, name="gap", unit="nats"))  # fmt: skip
    row = row_of(run, record_of(run, metrics=metrics), StoredNumbers())
    assert (row.number, row.gap) == ("2.500 ±0.020", "0.250")
    short = row_of(run, record_of(run, status="budget", metrics=metrics), StoredNumbers())
    assert short.number == "(2.50 so far)"
    assert short.against.startswith("unfinished")
    assert short.gap == ""
    assert row_of(run, record_of(run, metrics=()), StoredNumbers()).number == "-"


def test_a_property_is_yes_or_no_without_a_unit():
    cell = a_run().cell
    column = cell.column.model_copy(update={"unit": YES_NO})
    cell = cell.model_copy(update={"column": column})
    run = PlannedRun(cell, (cell.id,), 0, cell.recipe, runs=True)
    row = row_of(run, record_of(run, 1.0, se=None), StoredNumbers())
    assert (row.number, row.unit) == ("yes", "")


# --------------------------------------------------------------------------- layout

ROWS = [
    Row("MAF", "digits", "2.500 ±0.020", "bits/dim", "equal", "0.250"),
    Row("Sylvester, orthogonal", "digits, binary", "(23.73 so far)", "nats", "unfinished 65 %"),
    Row("a very long name of a model that nobody printed", "and of its data set", "-157.73 ±0.28",
        "nats", "within noise", "12.3"),
    Row("MADE, MAF (5)", "12 data sets", text="12 runs: 9 equal, 3 within noise"),
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_rows_stay_within_their_width_and_keep_the_number(width):
    layout = Layout([a_run("Sylvester, orthogonal"), a_run("x")])
    heading = layout.heading(width)
    assert cell_len(heading.plain) <= max(width, 60)
    for row in ROWS:
        text = layout.line(row, width)
        assert cell_len(text.plain) <= width
        assert "\n" not in text.plain
        if width >= 60 and row.number != "-":
            assert row.number in text.plain


def test_columns_stand_below_each_other():
    layout = Layout([a_run("Sylvester, orthogonal"), a_run("x")])
    lines = [layout.line(row, 120).plain for row in ROWS[:3]]
    starts = [line.index(row.number) for line, row in zip(lines, ROWS[:3], strict=True)]
    assert len(set(starts)) == 1
    assert layout.heading(120).plain.index("measured") == starts[0]


# --------------------------------------------------------------------------- shared rows


def shared_of(runs):
    return shared_rows(Plan(tuple(runs), None, MACHINE))


def rows_in(runs):
    found = shared_of(runs)
    return len({id(found.get(key_of(run), run)) for run in runs})


def many(count, **changes):
    return [a_run(f"r{n}", lr=1e-4 * (n + 1), **changes) for n in range(count)]


def test_runs_have_rows_of_their_own_where_there_are_not_too_many():
    assert rows_in(many(MOST_ROWS)) == MOST_ROWS
    assert rows_in(many(MOST_ROWS + 1)) == 1


def test_short_runs_of_the_least_priority_share_a_row_first():
    urgent = [a_run(f"u{n}", lr=n + 1.0, priority=9) for n in range(10)]
    others = many(20)
    found = shared_of([*urgent, *others])
    assert {key_of(run) for run in others} == set(found)
    assert rows_in([*urgent, *others]) == 11


def test_a_run_of_minutes_never_shares_its_row():
    assert rows_in(many(60, seconds=61.0)) == 60
    assert rows_in(many(60, seconds=None)) == 60


def test_a_shared_row_is_told_once_all_have_ended_and_alarms_at_once():
    shared = Shared({("a", 0), ("b", 0), ("c", 0)})
    alarm = Row("MAF", "rings", against="worse")
    assert shared.take(("a", 0), Row("MADE", "moons", against="equal")) is None
    assert shared.take(("b", 0), alarm) is alarm
    told = shared.take(("c", 0), Row("MAF", "rings", against="+0.1"))
    assert (told.model, told.data) == ("MADE, MAF", "2 data sets")
    assert told.text == "2 runs: 1 equal, 1 unjudged"
    assert shared.told() is None


def test_an_alarm_that_ends_last_leaves_no_run_untold():
    shared = Shared({("a", 0), ("b", 0)})
    calm = Row("MADE", "moons", against="equal")
    assert shared.take(("a", 0), calm) is None
    assert shared.take(("b", 0), Row("MAF", "rings", against="worse")).against == "worse"
    assert shared.told() == calm


@pytest.mark.parametrize("count", [0, 1, MOST_ROWS, MOST_ROWS + 1, MOST_ROWS + TOGETHER, 200])
def test_runs_that_come_after_many_rows_share_some_and_none_is_lost(count):
    """Those that are added while a command runs, too."""
    rows, told = Rows(), []
    for number in range(count):
        against = "worse" if number % 50 == 40 else "equal"
        told.append(rows.take(Row("MADE", f"set {number}", against=against)))
    told = [row for row in [*told, rows.told()] if row is not None]
    alarms = [row for row in told if row.against == "worse"]
    shared = [row for row in told if row.text]
    runs = sum(int(row.text.partition(" ")[0]) for row in shared)
    assert runs + len(told) - len(shared) == count
    assert len(alarms) == len([n for n in range(count) if n % 50 == 40])
    assert len(told) - len(alarms) <= MOST_ROWS + count / TOGETHER + 1
    assert rows.told() is None


def test_a_shared_row_is_not_shared_again():
    rows = Rows()
    for number in range(MOST_ROWS + 3):
        rows.take(Row("MADE", f"set {number}", against="equal"))
    whole = Row("MAF", "4 data sets", text="4 runs: 4 equal")
    assert rows.take(whole) is whole
    assert rows.told().text == "3 runs: 3 equal"
