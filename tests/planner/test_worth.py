"""How many workers a plan gets where nobody says."""

from dataclasses import replace

import pytest
from planner_parts import MACHINE, a_cell, a_recipe, around

from dgm_bench.planner import most_workers, plan, plan_for_workers

GB = 10**9


def planned(*seconds, jobs=None, most=4, memory=10**8, machine=MACHINE, budget=None):
    """Plan runs that take so long with any number of workers."""
    cells = [
        a_cell(f"r{place}", recipe=a_recipe(s or 1, lr=place, memory=memory, costed=bool(s)))
        for place, s in enumerate(seconds, 1)
    ]

    def make(workers):
        there = replace(machine, workers=workers, devices=min(machine.devices, workers))
        return plan(cells, around(machine=there), budget=budget)

    return plan_for_workers(make, jobs, most)


@pytest.mark.parametrize(
    ("seconds", "workers"),
    [
        ((100,) * 8, 4),
        ((100,) * 3, 3),
        ((100,), 1),
        ((), 1),
        ((2,) * 8, 1),  # to start torch four times takes longer
        ((10,) * 8, 4),
        ((100, 1), 1),  # the second would gain nothing
        ((None, None), 2),  # nobody knows: they may take long
    ],
)
def test_as_many_as_have_something_to_gain(seconds, workers):
    found = planned(*seconds)
    assert found.machine.workers == workers
    assert len(found.chosen) == len(seconds)


def test_what_is_asked_for_is_done_as_far_as_there_are_runs():
    assert planned(1, 1, jobs=2).machine.workers == 2
    assert planned(1, 1, 1, jobs=2).machine.workers == 2
    assert planned(1, 1, jobs=1000).machine.workers == 2
    assert planned(100, 100, jobs=1).machine.workers == 1


def test_the_largest_runs_fit_together():
    assert planned(*(100,) * 8, memory=GB).machine.workers == 3  # of 4 GB a fifth stays free
    assert planned(*(100,) * 8, memory=2 * GB).machine.workers == 1


def test_gpus_are_shared_by_small_models_only():
    gpus = replace(MACHINE, device="cuda", devices=2)
    assert planned(*(100,) * 8, most=6, machine=gpus).machine.workers == 6
    assert planned(*(100,) * 8, most=6, machine=gpus, memory=GB * 2).machine.workers == 2


def test_more_fits_into_a_budget_with_several_workers():
    seconds = (100,) * 12
    alone, four = (planned(*seconds, budget=400, jobs=jobs) for jobs in (1, 4))
    assert len(alone.chosen) == 3
    assert len(four.chosen) == 12
    assert planned(*seconds, budget=400).machine.workers == 4


def test_each_worker_has_a_core_or_its_threads(monkeypatch):
    monkeypatch.setattr("dgm_bench.planner.workers.provenance.cores", lambda: 8)
    gpu = replace(MACHINE, device="cuda")
    assert [most_workers(MACHINE, threads) for threads in (None, 1, 2, 3, 64)] == [8, 8, 4, 2, 1]
    assert most_workers(gpu, 4) == 8
