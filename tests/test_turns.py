"""Which runs have their turn, and how long each may take."""

import pytest
from planner_parts import MACHINE, a_cell, a_recipe

from dgm_bench import turns
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.turns import Turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(turns.time, "monotonic", lambda: now[0])
    return now


def make_turns(*seconds, budget=None, workers=1):
    runs = [
        PlannedRun(cell, (cell.id,), 0, cell.recipe, seconds=taken, runs=True)
        for place, taken in enumerate(seconds, 1)
        for cell in [a_cell(f"r{place}", recipe=a_recipe(lr=place))]
    ]
    skipped = []
    told = Turns(Plan(tuple(runs), budget, MACHINE), lambda *said: skipped.append(said), workers)
    return told, skipped


def test_without_a_budget_all_have_their_turn_in_order():
    given, skipped = make_turns(3, 1, 2)
    rows = []
    while (turn := given.next()) is not None:
        rows.append(turn[0][0].cell.row.id)
        assert turn[1] is None
    assert rows == ["r1", "r2", "r3"]
    assert not skipped


def test_one_worker_keeps_the_time_of_all_later_runs(clock):
    given, _ = make_turns(50, 30, 20, budget=120)
    assert given.next()[1] == pytest.approx(70)
    clock[0] = 70
    assert given.next()[1] == pytest.approx(30)


@pytest.mark.parametrize(
    ("seconds", "limits"),
    [
        ((50, 50), (100, 100)),  # each has a worker of its own, to the end
        ((50, 50, 50, 50), (50, 50)),  # each worker has another to do
        ((50, 50, 25), (87.5, 87.5)),  # the last goes to whichever is free; nobody knows to which
        ((80, 10, 10), (100, 90)),  # the second worker does the last as well
    ],
)
def test_a_worker_keeps_its_part_of_what_is_still_to_do(clock, seconds, limits):
    given, _ = make_turns(*seconds, budget=100, workers=2)
    assert [given.next()[1] for _ in limits] == pytest.approx(limits)


def test_what_others_are_at_counts_until_it_is_over(clock):
    given, _ = make_turns(60, 40, 30, 30, budget=100, workers=2)
    given.next()
    short, _ = given.next()
    clock[0] = 10
    given.over(short)  # sooner than expected
    assert given.next()[1] == pytest.approx(90 - 25)  # until both end at 65 s from now


def test_the_limits_of_all_workers_end_with_the_budget(clock):
    """Whoever uses all that it may: nobody is left without its time, and nothing goes on."""
    given, skipped = make_turns(*[40] * 9, budget=150, workers=3)
    free = [0.0] * 3
    for _ in range(9):
        worker = min(range(3), key=lambda w: free[w])
        clock[0] = free[worker]
        turn = given.next()
        if turn is None:
            break
        group, limit = turn
        free[worker] += limit
        given.over(group)
    assert max(free) <= 150 + 1e-9
    assert len(skipped) <= 3


def test_a_group_that_is_to_be_done_again_is_the_next_one_with_what_time_is_left(clock):
    given, _ = make_turns(50, 20, budget=100)
    group, _ = given.next()
    clock[0] = 20
    given.over(group, again=group)
    again, limit = given.next()
    assert list(again) == list(group)
    assert limit == pytest.approx(100 - 20 - 20)


def test_what_would_get_too_little_is_not_begun(clock):
    given, skipped = make_turns(50, 20, budget=100)
    given.next()
    clock[0] = 97
    assert given.next() is None
    assert [run.cell.row.id for run, _ in skipped] == ["r2"]
