"""Stored times: their files, their history, and how two folders of results are compared by them."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_code, make_environment, make_record

from dgm_bench.cli import cli
from dgm_bench.compare import compare, with_speed
from dgm_bench.compare.speed import compare_measurements, compare_times_to_quality
from dgm_bench.errors import DamagedError, ResultsError, UsageError
from dgm_bench.perf import history
from dgm_bench.perf.plot import write_plot
from dgm_bench.performance import (
    Measurement,
    Timing,
    history_of,
    machine_name,
    read_measurements,
    schema,
    unusual_change,
    write_measurement,
)
from dgm_bench.records import Reached, StageQuality
from dgm_bench.report.comparison import render_comparison

ROOT = Path(__file__).resolve().parent.parent


def timing(ratio=2.0, spread=0.01, **changes):
    fields = {
        "seconds": 0.003, "ratio": ratio, "lower": ratio * (1 - spread),
        "upper": ratio * (1 + spread), "pairs": 5, "kernel": "kernel-64", "work": "w",
        "counters": {"operators": 90},
    }  # fmt: skip
    return Timing(**(fields | changes))


def measurement(day=1, machine="a-cpu-12345678", **timings):
    return Measurement(
        created=f"2026-01-{day:02}T00:00:00Z",
        machine=machine,
        features=("avx2",),
        code=make_code(git_commit=f"{day:040}"),
        environment=make_environment(),
        timings=timings or {"maf": timing()},
    )


# --------------------------------------------------------------------------- files


def test_a_measurement_is_written_once_and_read_back_by_class_of_machine(tmp_path):
    late, early, other = measurement(2), measurement(1), measurement(3, "b-cpu-12345678")
    for each in (late, early, other):
        write_measurement(each, tmp_path)
    assert read_measurements(tmp_path) == {
        "a-cpu-12345678": [early, late], "b-cpu-12345678": [other],
    }  # fmt: skip
    with pytest.raises(ResultsError, match="exists already"):
        write_measurement(late, tmp_path)


@pytest.mark.parametrize("change", [
    lambda text: text.replace('"ratio": 2.0', '"ratio": 1.0'),
    lambda text: text[:-20],
    lambda text: "[]",
    lambda text: text.replace('"digest"', '"another"'),
])  # fmt: skip
def test_a_file_that_is_not_as_it_was_written_is_an_error(tmp_path, change):
    path = write_measurement(measurement(), tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedError, match="not a measurement"):
        read_measurements(tmp_path)


def test_the_stored_schema_is_that_of_the_code():
    """``python -m dgm_bench.performance > results/schema/performance.v1.json`` updates it."""
    assert json.loads((ROOT / "results/schema/performance.v1.json").read_text()) == schema()


def test_the_class_of_a_machine_is_that_of_all_that_decides_speed():
    here = make_environment(cpu="AMD EPYC 9R14", machine_class="11111111")
    name = machine_name(here, ("avx2",))
    assert name.startswith("amd-epyc-9r14-")
    assert machine_name(here, ("avx2",)) == name
    assert machine_name(here, ("avx2", "avx512f")) != name
    other = here.model_copy(update={"machine_class": "22222222"})
    assert machine_name(other, ("avx2",)) != name


def test_only_committed_code_is_stored(monkeypatch):
    for changes in ({"git_dirty": True}, {"git_commit": None, "git_dirty": None}):
        monkeypatch.setattr(history, "code", lambda changes=changes: make_code(**changes))
        with pytest.raises(UsageError, match="commit, then measure"):
            history.committed_code()


# --------------------------------------------------------------------------- history


def test_the_fence_is_three_interquartile_ranges_above_the_third_quartile():
    sizes = [0.01, -0.02, 0.015, -0.005, 0.012]
    ratios = [1.0]
    for change in sizes:
        ratios.append(ratios[-1] * (1 + change))
    first, _, third = statistics.quantiles(map(abs, sizes), method="inclusive")
    fence = third + 3 * (third - first)
    for change, unusual in ((0.99 * fence, False), (1.01 * fence, True), (-1.01 * fence, True)):
        found = unusual_change([*ratios, ratios[-1] * (1 + change)])
        assert (found is not None) == unusual
    assert found == pytest.approx((-1.01 * fence, fence))


def test_a_short_history_has_no_usual_change():
    assert unusual_change([1.0, 1.0, 1.0, 1.0, 5.0]) is None
    assert unusual_change([]) is None


def test_a_history_ends_where_the_case_or_its_network_was_another():
    runs = [
        measurement(1, maf=timing(1.0, work="other")),
        measurement(2, maf=timing(2.0, kernel="kernel-256")),
        measurement(3, nsf=timing(9.0)),
        measurement(4, maf=timing(3.0)),
        measurement(5, maf=timing(4.0)),
    ]
    assert [ratio for _, ratio in history_of(runs, "maf")] == [3.0, 4.0]


def test_an_unusual_change_is_told_and_drawn(tmp_path):
    for day, ratio in enumerate([1.0, 1.01, 1.0, 1.01, 1.0, 1.2], start=1):
        write_measurement(measurement(day, maf=timing(ratio), nsf=timing(1.0)), tmp_path)
    lines = list(history.told(tmp_path))
    assert lines[0].startswith("a-cpu-12345678: 6 measurements")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["maf"]
    assert "changed by +20.0%" in lines[1]
    write_plot(tmp_path / "x.png", tmp_path)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_another_case_has_another_hash_of_its_work():
    cases = history.CASES
    hashes = {name: history.work_hash(case) for name, case in cases.items()}
    assert len(set(hashes.values())) == len(cases)
    assert history.work_hash(replace(cases["maf"], batch=99)) != hashes["maf"]
    assert history.work_hash(replace(cases["maf"], timed=False)) == hashes["maf"]


# --------------------------------------------------------------------------- compare


def states(new, old):
    rows = compare_measurements(
        {"m": [measurement(2, "m", **new)]}, {"m": [measurement(1, "m", **old)]}
    )
    return {row.subject: row.state for row in rows}


def test_a_time_is_worse_beyond_the_margin_and_with_bounds_apart():
    old = {case: timing(2.0) for case in ("slow", "slightly", "unsure", "fast", "gone", "kernel")}
    new = {
        "slow": timing(2.4), "slightly": timing(2.2), "unsure": timing(2.4, spread=0.2),
        "fast": timing(1.6), "kernel": timing(2.4, kernel="kernel-256"), "added": timing(),
    }  # fmt: skip
    assert states(new, old) == {
        "slow": "worse", "slightly": "same", "unsure": "same", "fast": "better",
        "gone": "only-baseline", "kernel": "not-comparable", "added": "only-new",
    }  # fmt: skip


def test_the_newest_measurement_of_each_side_counts():
    runs = [measurement(1, maf=timing(9.0)), measurement(2, maf=timing(2.0))]
    (row,) = compare_measurements({"m": runs}, {"m": runs[1:]})
    assert (row.baseline, row.new, row.change) == (2.0, 2.0, 0.0)


def compared(new, old):
    measured = ({m.machine: [m] for m in side} for side in (new, old))
    return with_speed(compare([], []), ([], []), tuple(measured))


def test_times_of_other_machines_are_refused_in_a_line():
    found = compared([measurement(machine="x-1")], [measurement(machine="y-1")])
    assert found.exit_code == 3
    text = render_comparison(found, width=200)
    assert "not compared" in text
    assert "baseline: y-1; new: x-1" in text


def test_times_decide_the_exit_code_like_numbers():
    for ratio, code in ((2.0, 0), (3.0, 1)):
        found = compared([measurement(2, maf=timing(ratio))], [measurement(1)])
        assert found.exit_code == code
    text = render_comparison(found, width=200)
    assert "+50.0%" in text
    assert json.loads(render_comparison(found, "json"))["speed"][0]["state"] == "worse"


def record(seconds, seed=0, target=1.0, **changes):
    point = Reached(
        fraction=0.99, target=target, validation=target, step=10, epoch=1.0,
        train_seconds=seconds, function_evaluations=None,
    )  # fmt: skip
    quality = StageQuality(
        stage="train", validated="nll", unit="nats", validations=9, first=2.0, best=0.9,
        reached=(point,),
    )  # fmt: skip
    return make_record(seed=seed, quality=(quality,), **changes)


def test_time_to_quality_is_shown_for_runs_that_came_as_far_and_is_not_judged():
    old = [record(10.0, 0), record(20.0, 1), record(30.0, 2)]
    new = [record(20.0, 0), record(40.0, 1), record(1.0, 2, target=1.5), record(1.0, 3)]
    (row,) = compare_times_to_quality(new, old)
    assert (row.baseline, row.new, row.state) == (15.0, 30.0, "changed")
    (row,) = compare_times_to_quality(old, old)
    assert (row.change, row.state) == (0.0, "same")


def test_time_to_quality_of_other_machines_and_unfinished_runs_is_not_compared():
    away = make_environment(machine_class="99999999")
    assert compare_times_to_quality([record(1.0, environment=away)], [record(1.0)]) == ()
    assert compare_times_to_quality([record(1.0, status="budget")], [record(1.0)]) == ()


def test_the_command_compares_times_of_two_folders_of_results(tmp_path):
    for name, ratio in (("old", 2.0), ("new", 3.0)):
        write_measurement(measurement(maf=timing(ratio)), tmp_path / name)
    done = CliRunner().invoke(cli, ["compare", str(tmp_path / "new"), str(tmp_path / "old")])
    assert done.exit_code == 1
    assert "1 time: all worse." in done.output
