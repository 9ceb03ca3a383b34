"""The user's own numbers beside the stored ones: how the two compare, in a word."""

import pytest
from factories import make_budget, make_cell, make_column, make_metric, make_published, make_record
from two_stores import store_of

from dgm_bench.compare import beside_stored
from dgm_bench.report.numbers import side_text
from dgm_bench.spec import YES_NO, StoppingSpec

CELL = make_cell(published=make_published("10.00", "0.20"))
HERE = {"run_id": "mine"}


def stored(*values, cell=CELL, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


def only(own, theirs, cell=CELL):
    (row,) = beside_stored([cell], store_of(own, theirs))
    return row


@pytest.mark.parametrize(
    ("value", "word"),
    [(10.0, "equal"), (10.001, "equal"), (10.1, "within noise"), (13.0, "worse"), (7.0, "better")],
)
def test_ones_own_number_is_held_against_the_stored_one(value, word):
    """10.00 and 10.00 as printed are equal; what else is more than noise, `compare` decides."""
    row = only([make_record(CELL, value=value, **HERE)], stored(9.9, 10.0, 10.1))
    assert (row.word, row.yours.mean, row.yours.seeds) == (word, value, 1)
    assert (row.stored.mean, row.stored.seeds) == (pytest.approx(10.0), 3)
    assert row.published is CELL.published
    assert side_text(CELL, row.yours) == f"{value:.2f} ±0.01"
    assert side_text(CELL, row.stored) == "10.00 ±0.10"


@pytest.mark.parametrize(
    ("pm", "word"), [("3.00", "within noise"), ("3.0", "equal")], ids=["2 decimals", "1 decimal"]
)
def test_numbers_are_equal_as_the_paper_prints_them(pm, word):
    cell = make_cell(published=make_published(pm, None, "none"))
    theirs = stored(2.94, 2.98, 3.02, cell=cell, metrics=())
    theirs = [
        run.model_copy(update={"metrics": (make_metric(v, se=None),)})
        for run, v in zip(theirs, (2.9, 3.0, 3.1), strict=True)
    ]
    mine = make_record(cell, metrics=(make_metric(3.04, se=None),), **HERE)
    assert only([mine], theirs, cell).word == word


def test_a_difference_beyond_the_smallest_is_never_called_equal():
    """Of bits per dimension 0.002 counts, which two decimals do not show."""
    cell = make_cell(column=make_column(unit="bits/dim"))
    bits = {"unit": "bits/dim", "se": None}
    mine = make_record(cell, metrics=(make_metric(3.284, **bits),), **HERE)
    theirs = make_record(cell, metrics=(make_metric(3.281, **bits),))
    assert only([mine], [theirs], cell).word == "worse"


def test_where_one_side_has_nothing_there_is_no_word():
    other = make_cell("made")
    rows = beside_stored([CELL, other], store_of([], stored(10.0)))
    assert [(row.word, row.yours.mean, row.stored.mean) for row in rows] == [
        ("", None, 10.0),
        ("", None, None),
    ]
    row = only([make_record(CELL, value=10.0, **HERE)], [])
    assert (row.word, row.yours.mean, row.stored.mean) == ("", 10.0, None)


@pytest.mark.parametrize("theirs", [(), (10.0, 10.1, 9.9)])
def test_ones_own_unfinished_run_is_no_number(theirs):
    stage = CELL.recipe.stages[0].model_copy(update={"stopping": StoppingSpec(max_steps=4000)})
    cell = CELL.model_copy(update={"recipe": CELL.recipe.model_copy(update={"stages": (stage,)})})
    mine = make_record(cell, value=99.0, status="budget", budget=make_budget(steps=1000), **HERE)
    row = only([mine], stored(*theirs, cell=cell), cell)
    assert (row.word, row.yours.mean, row.yours.so_far) == ("unfinished", None, 99.0)
    assert row.unfinished.fraction == 0.25
    assert side_text(cell, row.yours) == "(99.00 so far)"
    assert row.stored.seeds == len(theirs)


def test_seeds_that_were_cut_short_leave_those_that_ended_as_they_are():
    short = make_record(CELL, value=99.0, seed=1, status="budget", run_id="short")
    row = only([make_record(CELL, value=10.0, **HERE), short], [*stored(10.0), short])
    assert (row.word, row.yours.mean, row.yours.seeds) == ("equal", 10.0, 1)
    assert row.unfinished is None


def test_what_failed_is_said_to_have():
    mine = make_record(CELL, value=None, status="diverged", **HERE)
    assert only([mine], stored(10.0)).word == "failed"
    assert only([mine], []).word == "failed"
    assert side_text(CELL, only([mine], []).yours) == ""


def test_modified_runs_are_left_out():
    mine = make_record(CELL, value=99.0, modified=("optimizer.lr=1",), **HERE)
    assert only([mine], stored(10.0)).yours.mean is None


def test_a_property_is_equal_or_not():
    cell = make_cell(column=make_column(unit=YES_NO, direction="higher"))
    said = {"unit": YES_NO, "se": None, "direction": "higher"}
    theirs = [make_record(cell, metrics=(make_metric(1.0, **said),))]
    for value, words in ((1.0, {"equal"}), (0.0, {"worse"})):
        mine = [make_record(cell, metrics=(make_metric(value, **said),), **HERE)]
        assert only(mine, theirs, cell).word in words


def test_cells_are_in_the_order_in_which_they_were_given():
    cells = [make_cell(row) for row in "cab"]
    assert [row.cell for row in beside_stored(cells, store_of())] == cells
