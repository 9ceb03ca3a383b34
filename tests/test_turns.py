"""Which runs have their turn, and how long each may take."""

from dataclasses import replace

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from planner_parts import MACHINE, Record, Spent, a_cell, a_recipe, around

from dgm_bench import turns
from dgm_bench.planner import LEAST_SHARE, PLANNED_SHARE, Plan, PlannedRun, plan
from dgm_bench.turns import Pace, Turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets; no run may take the time of others."""
    now = [0.0]
    monkeypatch.setattr(turns, "OVERRUN", 1.0)
    monkeypatch.setattr(turns, "OVERRUN_SHARE", 0.0)
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
    given.close()
    ((run, reason),) = skipped
    assert run.cell.row.id == "r2"
    assert "needs about 20 s, and a fifth of that was not left" in reason


# --------------------------------------------------------------------------- planning again


def ended(group, seconds, whole=True):
    """The record of a run that took so many seconds."""
    run = group[0]
    found = Record(run.chosen_recipe.content_hash, Spent(seconds))
    found.seed, found.cut_short = run.seed, not whole
    return found


def simulated(clock, given, workers, takes):
    """Do what there is; return each group with its limit, the time at which it began, and how
    long it was expected to take then.

    Args:
        clock: Set to the time of each event.
        given: The turns.
        workers: How many go at once.
        takes: What a run really takes.
    """
    going, done = [], []
    while True:
        while len(going) < workers and (turn := given.next()) is not None:
            group, limit = turn
            took = takes(group[0])
            cut = limit is not None and took > limit
            going.append((clock[0] + (limit if cut else took), len(done), group, cut))
            done.append((group, limit, clock[0], given._expected(group)))
        if not going:
            return done
        going.sort(key=lambda run: run[:2])
        now, place, group, cut = going.pop(0)
        began, clock[0] = done[place][2], now
        given.over(group, done=[ended(group, now - began, not cut)])


@settings(max_examples=60, deadline=None)
@drawn(
    st.lists(st.floats(0.5, 400), min_size=1, max_size=30),
    st.floats(30, 900),
    st.integers(1, 4),
    st.floats(0.1, 12),
    st.randoms(use_true_random=False),
)
def test_nothing_is_begun_below_a_fifth_and_nothing_ends_late(seconds, budget, workers, pace, dice):
    """In random plans on machines that are faster or slower than anybody expected."""
    cells = [a_cell(f"r{n}", recipe=a_recipe(s, lr=n)) for n, s in enumerate(seconds, 1)]
    planned = plan(cells, around(machine=replace(MACHINE, workers=workers)), budget=budget)
    clock, skipped, told = [0.0], [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns.time, "monotonic", lambda: clock[0])
        waiting = Turns(planned, lambda *said: skipped.append(said), workers,
                        lambda *said: told.append(said))  # fmt: skip
        done = simulated(
            clock, waiting, workers, lambda run: run.seconds * pace * dice.uniform(0.7, 1.4)
        )
        waiting.close()
    assert all(limit >= LEAST_SHARE * needs - 1e-9 for _, limit, _, needs in done)
    assert all(began + limit <= budget + 1e-6 for _, limit, began, _ in done)
    ran = [group[0].cell.id for group, *_ in done]
    left = [run.cell.id for run, _ in skipped]
    assert sorted([*ran, *left]) == sorted(cell.id for cell in cells)  # each of them, once
    assert all("dgm-bench run" in reason for _, reason in skipped)
    assert sum(bool(text) for text, _ in told) <= 6  # a line for each fifth of the budget
    assert all(runs == len(ran) for _, runs in told[-1:])


def many(clock, pace, seconds=50, budget=300, count=20):
    """What becomes of equal runs on a machine that is so many times as slow as was expected."""
    cells = [a_cell(f"r{n:02}", recipe=a_recipe(seconds, lr=n)) for n in range(1, count + 1)]
    told, skipped = [], []
    waiting = Turns(plan(cells, around(), budget=budget), lambda *said: skipped.append(said),
                    tell=lambda *said: told.append(said))  # fmt: skip
    return simulated(clock, waiting, 1, lambda run: run.seconds * pace), told


def test_on_a_slow_machine_runs_are_left_out_aloud_so_that_others_end(clock):
    done, told = many(clock, pace=2.0)
    assert len(done) <= 3
    assert all(limit >= 100 for _, limit, *_ in done[:2])
    assert "times as long as expected, " in told[0][0]
    assert told[0][0].endswith(" left out")


def test_on_a_fast_machine_runs_are_added_aloud(clock):
    planned = int(PLANNED_SHARE * 300 / 50)
    done, told = many(clock, pace=0.3)
    assert len(done) > 2 * planned
    assert all(text.endswith(" added") for text, _ in told if text)
    assert told[0][0]
    assert told[-1][1] == len(done) == len({group[0].cell.id for group, *_ in done})


def test_as_expected_nothing_is_planned_again(clock):
    done, told = many(clock, pace=1.0)
    assert len(done) == int(PLANNED_SHARE * 300 / 50) + 1  # and what the reserve has time for
    assert [text for text, _ in told] == ["planned again: 1 run added"]


def test_a_run_that_was_begun_may_take_three_times_as_long_before_others_count(clock, monkeypatch):
    monkeypatch.undo()
    given, _ = make_turns(20, 50, 50, budget=200)
    monkeypatch.setattr(turns.time, "monotonic", lambda: clock[0])
    given._started = clock[0]
    assert given.next()[1] == pytest.approx(100)  # all that nobody needs
    given.over(given._going[0][0])
    clock[0] = 100  # which it took
    assert given.next()[1] == pytest.approx(100)


def test_those_left_out_are_the_least_urgent(clock):
    cells = [a_cell(f"r{n}", recipe=a_recipe(50, lr=n + 1), priority=n) for n in range(4)]
    waiting = Turns(plan(cells, around(), budget=260), lambda *_: None)
    done = simulated(clock, waiting, 1, lambda run: run.seconds * 2)
    assert "r0" not in [group[0].cell.row.id for group, *_ in done]


def test_a_run_cut_short_says_no_more_than_that_it_takes_longer():
    pace = Pace()
    pace.note(100, 50, whole=False)
    assert pace.factor == 1.0
    pace.note(100, 230, whole=False)
    assert pace.factor == 2.0
    pace.note(100, 50, whole=True)
    assert pace.factor == pytest.approx(310 / 230)


def test_runs_found_finished_and_seeds_together_say_nothing_about_the_pace(clock):
    given, _ = make_turns(50, 50, 50, budget=170)
    first, _ = given.next()
    given.over(first)  # it was done before: there is no new record
    assert given._pace.factor == 1.0
    second, _ = given.next()
    given.over([*second, *first], done=[ended(second, 500)])
    assert given._pace.factor == 1.0
