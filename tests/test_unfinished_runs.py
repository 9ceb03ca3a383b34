"""Runs that their budget cut short change nothing, wherever they are: whatever else is known."""

from collections import Counter
from dataclasses import replace

from factories import (
    make_cell,
    make_column,
    make_metric,
    make_published,
    make_quality,
    make_recipe,
    make_record,
)
from factories import make_table as make_table_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from two_stores import store_of

from dgm_bench.compare import beside_stored, compare
from dgm_bench.report import figures
from dgm_bench.report.figures import FigureKind, figures_of
from dgm_bench.report.time_to_quality import times_of
from dgm_bench.verdict import judge_table, pool_variances

#: Nothing is measured in these states, nor said of a comparison.
NO_VERDICT = {"not-run", "unfinished"}
ONE_SIDED = {"only-new", "only-baseline", "unfinished"}


def make_cells():
    """Three rows of a published column and of one of ours, and a second revision of a recipe."""
    ours = make_column("oracle-6", published=False, ranks_like="power")
    printed = [make_cell(row, published=make_published(f"{at}.00")) for at, row in enumerate("abc")]
    own = [make_cell(row, ours) for row in "abc"]
    newer = printed[0].model_copy(update={"recipe": make_recipe("a-power", revision=2)})
    return [newer, *printed[1:], *own]


CELLS = make_cells()
OLDER = make_recipe("a-power", revision=1)
TABLE = make_table_of(CELLS)

runs_of = st.fixed_dictionaries(
    {
        "cell": st.sampled_from([CELLS[0], CELLS[0], *CELLS]),
        "seed": st.integers(0, 2),
        "older": st.booleans(),
        "second": st.integers(0, 59),
        "value": st.sampled_from([None, 0.5, 0.503, 1.0, 7.0]),
        "gap": st.sampled_from([None, 0.1, 0.4]),
        "modified": st.sampled_from([(), (), ("lr",)]),
        "own": st.booleans(),
    }
)
ended = st.tuples(runs_of, st.sampled_from(["complete", "complete", "diverged"]))
short = st.tuples(runs_of, st.just("budget"))


def records(drawn, first=0, superseding=()):
    """Return records of what was drawn, the user's own and stored ones."""
    sides = {True: [], False: []}
    for number, (run, status) in enumerate(drawn, first):
        metrics = [make_metric(run["value"])]
        metrics += [make_metric(run["gap"], name="gap")] if run["gap"] else []
        recipe = OLDER if run["older"] and run["cell"] is CELLS[0] else run["cell"].recipe
        record = make_record(
            run["cell"],
            seed=run["seed"],
            status=status,
            recipe=recipe,
            metrics=tuple(metrics),
            quality=(make_quality(),),
            modified=run["modified"],
            run_id=f"run-{number}",
            created=f"2026-01-01T00:00:{run['second']:02d}Z",
            supersedes=superseding[number % len(superseding)] if superseding else None,
        )
        sides[run["own"]].append(record)
    return sides[True], sides[False]


sets_of_records = st.tuples(st.lists(ended, max_size=9), st.lists(short, min_size=1, max_size=4))
thorough = settings(
    max_examples=80, deadline=None, database=None, phases=(Phase.generate, Phase.shrink)
)


def with_and_without(drawn):
    """Return own and stored records, and the same with unfinished ones that supersede them."""
    own, stored = records(drawn[0])
    known = [record.run_id for record in (*own, *stored)]
    more = records(drawn[1], len(drawn[0]), known)
    return (own, stored), (own + more[0], stored + more[1])


@thorough
@given(sets_of_records)
def test_no_verdict_changes_and_no_spread(drawn):
    before, after = (store_of(*sides) for sides in with_and_without(drawn))
    assert pool_variances(before.records()).variances == pool_variances(after.records()).variances
    judged, again = (judge_table(TABLE, store) for store in (before, after))
    told = {"reason": "", "remarks": (), "own_unfinished": None}
    for cell, verdict in judged.items():
        if verdict.state not in NO_VERDICT:
            assert replace(again[cell], **told) == replace(verdict, **told)
        else:
            assert again[cell].state in NO_VERDICT
            assert again[cell].mean is None
    assert times_of(CELLS, judged, before) == times_of(CELLS, again, after)


@thorough
@given(sets_of_records)
def test_no_figure_gets_a_point(drawn):
    """All figures are drawn of these runs and of verdicts."""
    kept, given_runs = figures.FIGURES, []

    def draw(table, runs):
        given_runs.append({cell: [run.run_id for run in found] for cell, found in runs.items()})

    figures.FIGURES = (FigureKind("points", "runs", draw, "", ""),)
    try:
        for sides in with_and_without(drawn):
            store = store_of(*sides)
            runs = {cell.id: store.for_cell(cell) for cell in CELLS}
            list(figures_of(TABLE, runs, judge_table(TABLE, store), store.known_curve))
    finally:
        figures.FIGURES = kept
    assert given_runs[0] == given_runs[1]


@thorough
@given(sets_of_records, st.sampled_from(["new", "baseline", "both"]))
def test_no_comparison_changes(drawn, side):
    before, after = with_and_without(drawn)
    new, baseline = before
    first = compare(new, baseline)
    more = {"new": (after[0], baseline), "baseline": (new, after[1]), "both": after}[side]
    second = compare(*more)

    def judged(comparison):
        return Counter(row for row in comparison.rows if row.state not in ONE_SIDED)

    assert judged(first) == judged(second)
    assert (first.exit_code == 1) == (second.exit_code == 1)
    numbers = [(row.cell, row.metric) for row in second.rows]
    assert {(row.cell, row.metric) for row in first.rows} <= set(numbers)


@thorough
@given(sets_of_records)
def test_no_own_number_beside_a_stored_one_changes(drawn):
    rows, again = (beside_stored(CELLS, store_of(*sides)) for sides in with_and_without(drawn))
    for one, other in zip(rows, again, strict=True):
        assert (other.yours.mean, other.stored.mean) == (one.yours.mean, one.stored.mean)
        if one.word not in ("", "unfinished"):
            assert other.word == one.word
        else:
            assert other.word in ("", "unfinished")
