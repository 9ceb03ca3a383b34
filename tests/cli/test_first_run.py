"""What a run prints, with runs that are over at once: a row each, and a few last lines."""

import re
from functools import partial

import pytest
from cli.commands import CLOSED, FULL, command
from factories import make_metric, make_record

from dgm_bench import runner
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import write_record
from dgm_bench.summary import RunSummary

FFJORD = ("run", "--paper", "ffjord", "--budget", "10m", "--jobs", "2")
DIGITS = ("run", *(f"ffjord/density/{m}/digits" for m in ("made", "maf-5")), "--budget", "10m")


def record_of(run: PlannedRun, **changes):
    """The record of a run that ended as planned."""
    cell, number = run.cell, make_metric(2.5, name=run.cell.metric, unit=run.cell.column.unit)
    gap = make_metric(0.25, name="gap", unit="nats")
    return make_record(cell, seed=run.seed, recipe=run.recipe, cells=run.cells,
                       metrics=(number, gap), **changes)  # fmt: skip


def fake(plan: Plan, context, engine=None, status="complete"):
    """Do nothing, and say that it was done."""
    context.reporter.plan(plan)
    summary = RunSummary()
    for run in plan.chosen:
        record = record_of(run, status=status)
        write_record(record, context.results)
        summary.take(record, context, None)
    return summary


@pytest.fixture
def first_run(tmp_path, monkeypatch):
    """Do a command in an empty folder whose runs take no time; return what it printed."""
    monkeypatch.setattr(runner, "run_plan", fake)

    def call(*words, **options):
        known = {"HOME": str(tmp_path), "DGM_BENCH_STORED": "none", "PATH": "/usr/bin:/bin"}
        known |= options.pop("environment", {})
        return command(*words, "--no-tracking", cwd=tmp_path, environment=known, **options)

    return call


@pytest.mark.parametrize("columns", ["60", "80"])
def test_the_first_run_of_a_paper_is_told_in_forty_lines(first_run, tmp_path, columns):
    done = first_run(*FFJORD, environment={"COLUMNS": columns})
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) <= 40
    head, _, rest = done.out.partition("gap\n" if columns != "60" else "vs stored\n")
    count = int(re.match(r"(\d+) of \d+ runs \(\d+ of \d+ cells\): about", head)[1])
    assert "Not run: " in head
    rows = rest.partition("\n\n")[0].splitlines()
    told = [int(found[1]) if (found := re.search(r" (\d+) runs: ", row)) else 1 for row in rows]
    assert sum(told) == count  # each run is in one row
    assert max(map(len, [*rows, *head.splitlines()[2:]])) <= int(columns)
    assert lines[-1].startswith(f"{count} done in ")
    assert (tmp_path / "dgm-results/tables/ffjord-density.txt").read_text().count("\n") > 40


def test_a_row_has_model_data_number_unit_and_gap(first_run):
    (row,) = [x for x in first_run(*DIGITS).out.splitlines() if x.startswith("MADE ")]
    assert re.fullmatch(r"MADE +digits +2\.500 ±\S+ +bits/dim none stored +0\.250", row)


def test_runs_are_compared_with_what_was_there_before(first_run):
    first_run(*DIGITS, "--results", "stored")
    again = first_run(*DIGITS, environment={"DGM_BENCH_STORED": "stored"}).out
    assert re.search(r"^MADE +digits .* equal ", again, re.MULTILINE)
    assert re.search(r"^ffjord/density +(\d+) cells +\1 cells ", again, re.MULTILINE)


def test_what_the_budget_cut_short_is_unfinished_and_no_failure(first_run, monkeypatch):
    monkeypatch.setattr(runner, "run_plan", lambda *given: fake(*given, status="budget"))
    done = first_run(*DIGITS)
    assert done.code == 0
    assert re.search(r"^MADE +digits +\(2.50 so far\) +bits/dim unfinished \d", done.out, re.M)
    assert re.fullmatch(
        r"\d+ unfinished in .*; the same command goes on", done.out.splitlines()[-1]
    )


def test_a_command_that_has_to_leave_says_so_in_its_last_line_alone(
    first_run, tmp_path, monkeypatch
):
    def stopped(plan, context, engine=None):
        summary = fake(plan, context)
        context.control.request("SIGTERM")
        summary.leave(plan.chosen[-1:], context)
        return summary

    monkeypatch.setattr(runner, "run_plan", stopped)
    done = first_run(*DIGITS)
    assert done.code == 130
    assert re.fullmatch(r"2 done in .*; the same command goes on", done.out.splitlines()[-1])
    assert "yours" not in done.out
    assert not (tmp_path / "dgm-results/tables").exists()


def test_quiet_prints_the_last_lines_alone(first_run):
    loud, quiet = first_run(*DIGITS).out, first_run(*DIGITS, "-q", "--results", "other").out
    assert "MADE  " in loud
    assert "MADE  " not in quiet
    assert "1 of " not in quiet
    assert "yours" in quiet
    assert quiet.splitlines()[-1].startswith("2 done in ")
    before_the_verb = first_run("-q", *DIGITS, "--results", "third").out
    assert before_the_verb.splitlines()[:3] == quiet.splitlines()[:3]


def test_a_dry_run_prints_the_plan_and_leaves_nothing(first_run, tmp_path):
    done = first_run(*DIGITS, "--dry-run")
    assert done.code == 0
    assert "ffjord/density/maf-5/digits" in done.out
    assert "2 of 2 runs (" in done.out
    assert not (tmp_path / "dgm-results").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_rows_are_written_in_the_marks_that_there_are(first_run, encoding):
    done = first_run(*DIGITS, environment={"PYTHONIOENCODING": encoding})
    assert done.code == 0
    lines = done.out.encode("utf-8", "surrogateescape").decode(encoding).splitlines()
    (row,) = [line for line in lines if line.startswith("MADE ")]
    assert ("+-" if encoding == "ascii" else "±") in row


@pytest.mark.parametrize("out", [FULL, CLOSED])
def test_no_run_is_lost_by_an_output_that_nobody_can_write(first_run, tmp_path, out):
    done = first_run(*DIGITS, out=out)
    assert done.code == 0
    (warning,) = done.told
    assert warning.startswith("warning: standard output: ")
    assert warning.endswith("; the runs go on without it")
    assert list((tmp_path / "dgm-results/runs").rglob("*.json"))


# --------------------------------------------------------------------------- what to type next


def next_commands(done):
    lines = done.out.partition("Next:\n")[2].splitlines()
    return [line.strip().partition("  # ") for line in lines if line.startswith("  ")]


def test_advice_is_what_the_command_line_takes_and_does_what_it_says(first_run):
    """The next larger budget, which does so many runs more."""
    advised = {what: command for command, _, what in next_commands(first_run(*FFJORD))}
    for asked in advised.values():  # and no budget is advised that takes this machine a week
        budget = re.search(r"--budget (\d+)([mh])", asked)
        assert budget is None or int(budget[1]) * {"m": 1, "h": 60}[budget[2]] <= 72 * 60
    (more,) = [what for what in advised if what.endswith(" more") and "data" not in what]
    words = advised[more].split()
    assert words[:4] == ["dgm-bench", "run", "--paper", "ffjord"]
    elsewhere = ("--dry-run", "--results", "other")  # what is done there says how long it takes
    dry = first_run(*words[1:], "--jobs", "2", *elsewhere).out
    now = first_run(*FFJORD, *elsewhere).out
    runs = [int(re.search(r"^(\d+) of \d+ runs", text, re.MULTILINE)[1]) for text in (dry, now)]
    assert runs[0] - runs[1] == int(more.split()[0]) > 0
    words = [word if word != "10m" else "3h" for word in FFJORD]
    longer = {
        what: command for command, _, what in next_commands(first_run(*words, *elsewhere[1:]))
    }
    assert any(command.endswith("--budget 8h") for command in longer.values())


def test_only_what_is_missing_is_done(first_run):
    """Seeds that are here, yours or stored, are left out; where all are, nothing is wrong."""
    first_run(*DIGITS)
    words = (*DIGITS, "--seeds", "2", "--missing")
    dry = first_run(*words, "--dry-run").out
    assert re.search(r"^2 of 4 runs", dry, re.MULTILINE)
    assert "Not run: 2 complete already" in dry
    again = first_run(*words, "--results", "other", environment={"DGM_BENCH_STORED": "dgm-results"})
    assert "2 done" in again.out
    assert "seed 0" not in again.out
    first_run(*words)
    done = first_run(*words)
    assert (done.code, done.out) == (0, "Nothing is missing: 4 runs complete already.\n")


def test_no_spread_over_seeds_is_advised_where_nothing_is_trained(first_run):
    advised = first_run("run", "ffjord/density/gaussian/digits").out
    assert "spread over seeds" not in advised
    assert "spread over seeds" in first_run(*DIGITS).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--partition", "gpu"), "partition gpu: means nothing here; add --engine"),
        (("--engine-option", "time=4h"), "time 4h: means nothing here; add --engine"),
        (("--tracker", "wandb"), "--tracker wandb: contradicts --no-tracking"),
    ],
)
def test_what_means_nothing_is_told_before_a_plan_is(first_run, words, told):
    done = first_run(*DIGITS, "--dry-run", *words)
    assert (done.code, done.out, len(done.told)) == (2, "", 1)
    assert told in done.err


def test_what_is_fitted_takes_no_part_of_a_batch(tmp_path):
    """There is no step whose gradient could be divided, and nothing to refuse."""
    words = ("--accumulate", "2", "--no-tracking", "--results", "own")
    known = {"HOME": str(tmp_path), "DGM_BENCH_STORED": "none", "PATH": "/usr/bin:/bin"}
    done = command("run", "ffjord/density/gaussian/digits", *words, cwd=tmp_path, environment=known)
    assert done.code == 0, done.err
    assert "1 done" in done.out


def test_what_was_cut_short_is_missing(first_run, monkeypatch):
    monkeypatch.setattr(runner, "run_plan", partial(fake, status="budget"))
    first_run(*DIGITS)
    assert "2 of 2 runs" in first_run(*DIGITS, "--missing", "--dry-run").out


def test_advice_looks_where_the_results_are(first_run):
    commands = [command for command, *_ in next_commands(first_run(*DIGITS, "--results", "r 1"))]
    assert commands[-1] == "dgm-bench table ffjord/density --results 'r 1'"
    assert all("--results 'r 1'" in command for command in commands if " run " in command)
