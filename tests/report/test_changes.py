"""A comparison for people: what changed, one line each, and the rest in numbers."""

import json

import pytest
from factories import make_cell, make_column, make_environment, make_metric, make_record

from dgm_bench.compare import Comparison, SpeedRow, compare
from dgm_bench.report.comparison import render_comparison

NAMES = ("dgm-results", "results")


def runs(*values, cell=None, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


BASE = runs(10.0, 10.1, 9.9)


def told(comparison, **settings):
    return render_comparison(comparison, everything=False, names=NAMES, **settings).splitlines()


def test_what_changed_is_a_line_with_both_numbers_and_how_many_standard_errors_apart():
    """Welch: 2 apart, of two means of three, each with a spread of 0.1."""
    assert told(compare(runs(12.0, 12.1, 11.9), BASE)) == [
        "dgm-results against results",
        "",
        "▼ ffjord/density/maf/power nll: 10.00 -> 12.00 nats, 24.5 se worse",
        "",
        "1 number: all worse. --all shows each.",
    ]


def test_what_wants_attention_first_comes_first():
    cells = [make_cell(row) for row in "abc"]
    old = [run for cell in cells for run in runs(10.0, 10.1, 9.9, cell=cell)]
    steps = ((0, -2.0), (1, 2.0), (2, 0.0))
    new = [run for at, by in steps
           for run in runs(10.0 + by, 10.1 + by, 9.9 + by, cell=cells[at])]  # fmt: skip
    lines = told(compare(new, old))
    assert [line.split(":")[0] for line in lines[2:4]] == [
        "▼ ffjord/density/b/power nll",
        "▲ ffjord/density/a/power nll",
    ]
    assert lines[-1] == "3 numbers: 1 worse, 1 better, 1 equal. --all shows each."


def test_folders_that_are_equal_are_one_line():
    (line,) = told(compare(BASE, BASE))
    assert line == "1 number: all equal."
    times = tuple(SpeedRow(str(i), "cpu", "step", 1.0, 1.0, "same", "") for i in range(2000))
    comparison = Comparison(compare(BASE, BASE).rows, times)
    assert told(comparison) == ["1 number: all equal. 2,000 times: all same."]
    assert told(compare([], [])) == ["Nothing to compare."]


def test_a_difference_that_two_decimals_do_not_show_is_equal():
    """Also where it is more than nothing: 10.00 and 10.00 as printed."""
    there = make_environment(machine_class="another")
    near = runs(10.001, 10.101, 9.901, environment=there)
    assert told(compare(near, BASE)) == ["1 number: all equal."]
    everything = render_comparison(compare(near, BASE))
    assert "✓ equal" in everything
    assert "-0.001" not in everything
    (row,) = json.loads(render_comparison(compare(near, BASE), "json"))["rows"]
    assert row["difference"] == pytest.approx(-0.001)


def test_a_change_that_counts_is_shown_with_the_decimals_that_it_needs():
    """Of bits per dimension 0.002 counts."""
    cell = make_cell(column=make_column(unit="bits/dim"))
    new, old = ([make_record(cell, metrics=(make_metric(v, unit="bits/dim", se=None),))]
                for v in (3.284, 3.281))  # fmt: skip
    assert "nll: 3.281 -> 3.284 bits/dim, worse" in told(compare(new, old))[2]


def test_of_a_cell_that_is_not_comparable_the_reason_stands_once():
    cells = [make_cell(row) for row in "ab"]
    metrics = tuple(make_metric(10.0, name=name) for name in ("nll", "gap", "kl"))
    other = tuple(m.model_copy(update={"protocol": "estimate"}) for m in metrics)
    new, old = ([make_record(cell, metrics=of) for cell in cells] for of in (other, metrics))
    lines = told(compare(new, old))
    assert (
        lines[2] == "≠ ffjord/density/a/power nll and 2 more: 10.00 -> 10.00 nats, not comparable ¹"
    )
    assert len([line for line in lines if line.startswith("≠")]) == 2
    assert lines[-1] == "¹ protocol differs (exact before, estimate now)"


def test_what_is_not_finished_now_is_told_and_what_never_was_is_counted():
    other = make_cell("made")
    new = [*runs(12.0, status="budget"), *runs(1.0, cell=other, status="budget")]
    lines = told(compare(new, [*BASE, *runs(1.0, cell=other, status="budget")]), colour=True)
    (line,) = [line for line in lines if "…" in line]
    assert "power nll: 10.00 -> (12.00 so far) nats, unfinished ¹" in line
    assert line.startswith("\x1b[2m")
    assert "Not compared: 2 unfinished." in lines


def test_lines_keep_to_the_width_and_have_no_colour_unless_asked():
    comparison = compare(runs(12.0, 12.1, 11.9), BASE)
    assert max(map(len, told(comparison, width=40))) <= 40
    assert "\x1b[31m" in "".join(told(comparison, colour=True))


@pytest.mark.parametrize(
    ("state", "lines"), [("worse", 1), ("better", 1), ("changed", 0), ("same", 0)]
)
def test_times_of_runs_are_not_judged(state, lines):
    row = SpeedRow("maf-step", "cpu-2", "step / plain network", 1.2, 1.5, state, "slower")
    found = told(Comparison(compare(BASE, BASE).rows, (row,)))
    shown = [line for line in found if "maf-step on cpu-2" in line]
    assert len(shown) == lines
    if lines:
        assert shown[0].endswith(f"step / plain network: 1.2 -> 1.5, +25.0% {state}")
    assert f"1 time: all {state}." in found[-1]


def test_what_is_within_noise_or_on_one_side_is_counted():
    new = [*runs(10.1, 10.2, 10.0), *runs(1.0, cell=make_cell("made"))]
    baseline = [*BASE, *runs(1.0, cell=make_cell("ffjord"))]
    (line,) = told(compare(new, baseline))
    assert line == (
        "1 number: all within noise. Not compared: 1 only new, 1 only in the baseline. "
        "--all shows each."
    )
