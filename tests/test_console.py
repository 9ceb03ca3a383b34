"""What people see: tables, plans, and the progress of a run, rendered to a string."""

import io
import sys
from dataclasses import dataclass, field, replace

import pytest
from factories import make_cell, make_column, make_published, make_recipe
from rich.console import Console

from dgm_bench import console, progress
from dgm_bench.events import Progress, Reporter
from dgm_bench.planner import Machine, Plan, PlannedRun, Speed
from dgm_bench.progress import PlainReporter, RichReporter
from dgm_bench.screen import width_and_colour
from dgm_bench.spec import (
    YES_NO,
    Row,
)
from dgm_bench.verdict import Unfinished, Verdict

RECIPE = make_recipe("maf", data="digits")


def a_cell(row="maf-5", column="digits", value="2.31", pm="0.02"):
    published = make_published(value, pm, "sd_runs", source="ffjord") if value else None
    where = Row(id=row, title=row), make_column(column, title=column)
    return make_cell(*where, published=published, recipe=None)


@dataclass
class RecordOf:
    """As much of a RunRecord as the console reads."""

    status: str = "complete"
    reason: str = "30 validations without improvement"
    hint: str = ""
    outcome: object = field(init=False)

    def __post_init__(self):
        self.outcome = self


def an_event(**changes):
    event = {
        "step": 500, "max_steps": None, "epoch": 3.2, "seconds": 30.0, "limit_seconds": 120.0,
        "train_loss": 2.5, "validation": 2.6, "best": 2.4, "lr": 1e-3, "bad_validations": 3,
        "patience": 30,
    }  # fmt: skip
    return Progress(**{**event, **changes})


def screen(width=100, terminal=False):
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, markup=False,
        highlight=False,
    )  # fmt: skip


def shown(view, width=100):
    target = screen(width)
    target.print(view)
    return target.file.getvalue()


def started(reporter):
    reporter.run_started("MAF (5) on digits", "2.31 ±0.02", 120.0, None)
    return reporter


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_and_numbers_are_whole_on_a_narrow_screen(width):
    """Where both do not fit beside each other, the name stands above its numbers."""
    cells = a_cell(), a_cell("nsf-autoregressive", "8gaussians")
    pairs = [(cell, Verdict(cell.id, "not-run", "why")) for cell in cells]
    lines = shown(console.cells_view(pairs), width).splitlines()
    assert max(map(len, lines)) <= width
    for cell, _ in pairs:
        (place,) = (n for n, line in enumerate(lines) if f"{cell.row.id}/{cell.column.id}" in line)
        below = lines[place : place + 2]
        assert any("2.31 ±0.02" in line and "not run" in line for line in below)
    runs = [PlannedRun(cell, (cell.id,), 0, RECIPE, "here", 60.0, 10**9, reason="no time at all")
            for cell, _ in pairs]  # fmt: skip
    machine = Machine("cpu", "here", Speed(1e9, 1e-5), 10**10)
    lines = shown(console.plan_view(Plan(tuple(runs), 600.0, machine)), width).splitlines()
    assert max(map(len, lines)) <= width
    for run in runs:
        assert any(run.cells[0] in line for line in lines)
    assert sum("1.0 min" in line and "1.0 GB" in line for line in lines) == 2
    assert "    no time at all" in [line.rstrip() for line in lines]


def test_the_reporters_answer_to_every_event():
    for name in (name for name in vars(Reporter) if not name.startswith("_")):
        for kind in (PlainReporter, RichReporter):
            assert getattr(kind, name) is not getattr(Reporter, name)


def test_a_start_is_told_only_where_it_goes_on():
    reporter = started(PlainReporter(screen()))
    assert reporter.console.file.getvalue() == ""
    reporter.run_started("MAF (5) on digits", "2.31 ±0.02", 120.0, 400)
    assert reporter.console.file.getvalue() == "MAF (5) on digits: goes on at step 400\n"


def test_plain_progress_is_rate_limited():
    reporter = started(PlainReporter(screen(), interval=3600))
    for _ in range(50):
        reporter.progress(an_event())
    assert reporter.console.file.getvalue() == ""


def test_plain_progress_is_one_line_with_everything():
    reporter = started(PlainReporter(screen(width=60), interval=0))
    reporter.progress(an_event())
    line = reporter.console.file.getvalue().splitlines()[-1]
    for part in ("MAF (5) on digits", "epoch 3.2", "loss 2.500", "val 2.600 (best 2.400)",
                 "best 3/30 ago", "2 min left"):  # fmt: skip
        assert part in line


def test_time_left_is_what_ends_first():
    assert progress.time_left(an_event()) == 90
    assert progress.time_left(an_event(max_steps=600)) == pytest.approx(6)
    assert progress.time_left(an_event(limit_seconds=None)) is None
    assert progress.time_left(an_event(limit_seconds=10.0)) == 0


def test_fraction_done_never_passes_one_and_is_none_where_patience_decides():
    ends = {"patience": None, "bad_validations": 0}
    assert progress.fraction_done(an_event(**ends)) == 0.25
    assert progress.fraction_done(an_event(max_steps=400, **ends)) == 1
    assert progress.fraction_done(an_event(limit_seconds=None, **ends)) is None
    assert progress.fraction_done(an_event(max_steps=400)) is None
    assert "3/30" in progress.short_line(an_event())
    assert "%" not in progress.short_line(an_event())
    assert "25%" in progress.short_line(an_event(**ends))


def test_nothing_measured_yet_is_shown_as_such():
    line = progress.progress_line(an_event(train_loss=None, validation=None, patience=None))
    assert "loss -" in line
    assert "val" not in line
    assert "ago" not in line


def test_a_failed_run_shows_status_reason_and_hint():
    broken = RecordOf(status="diverged", reason="loss is NaN at step 7", hint="lower the rate")
    line = progress.failure_line("MAF", broken)
    assert line == "MAF: diverged: loss is NaN at step 7; lower the rate"


def test_live_progress_shows_title_and_losses_and_goes_away():
    reporter = started(RichReporter(screen(terminal=True)))
    reporter.progress(an_event())
    live = reporter.console.file.getvalue()
    assert "MAF (5) on digits" in live
    assert "best 2.400" in live
    reporter.close()
    assert reporter._live is None


def test_live_lines_fit_a_narrow_terminal():
    reporter = started(RichReporter(screen()))
    reporter.total = 5
    lines = shown(reporter.view_of([(reporter.title, an_event())]), width=40).splitlines()
    assert len(lines) == 2
    assert "0 of 5 runs" in lines[1]


def test_the_terminal_is_restored_after_an_exception():
    reporter = RichReporter(screen(terminal=True))

    def interrupted():
        with reporter:
            started(reporter).progress(an_event())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    hidden, shown_again = "\x1b[?25l", "\x1b[?25h"
    text = reporter.console.file.getvalue()
    assert text.rindex(shown_again) > text.rindex(hidden)


MACHINE = Machine("cpu", "m", Speed(1e9), 10**9)
RUNS = PlannedRun(a_cell(), ("ffjord/density/maf-5/digits", "ffjord/density/maf/digits"), 0, RECIPE,
                  "embedded", 40.0, 10**8, True)  # fmt: skip
WAITS = PlannedRun(a_cell(column="power"), ("ffjord/density/maf-5/power",), 0, RECIPE, "missing",
                   7200.0, 10**9, False, "data not here: dgm-bench data fetch power")  # fmt: skip
BARE = [
    PlannedRun(a_cell(row, column), (f"ffjord/density/{row}/{column}",), 0, reason="no recipe yet")
    for row, column in (("tan", "gas"), ("tan", "power"), ("glow", "gas"))
]


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_shows_what_runs_what_does_not_and_why_in_any_width(width):
    text = shown(console.plan_view(Plan((RUNS, WAITS, *BARE), 600.0, MACHINE)), width)
    assert "ffjord/density/maf-5/digits" in text
    assert "and ffjord/density/maf/digits" in text
    assert "dgm-bench data fetch power" in text
    assert "ffjord/density/tan/{gas,power}: no recipe yet" in text
    assert "ffjord/density/glow/gas: no recipe yet" in text
    assert "1 of 5 runs, about 40 s on cpu (budget 10 min)" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_skipped_cell_that_the_plan_has_named_is_not_named_again():
    reporter = PlainReporter(screen())
    reporter.plan(Plan((RUNS, WAITS), None, MACHINE))
    before = reporter.console.file.getvalue()
    reporter.run_skipped(WAITS.cell.id, WAITS.reason)
    assert reporter.console.file.getvalue() == before
    reporter.run_skipped(RUNS.cell.id, "file is broken")
    assert "file is broken" in reporter.console.file.getvalue()


def test_a_short_plan_counts_what_does_not_run_by_reason():
    over = replace(WAITS, data="here", waits=True, reason="needs about 2 h, over the budget: x")
    text = shown(console.plan_brief(Plan((RUNS, WAITS, over, over, *BARE), 600.0, MACHINE)), 200)
    assert "ffjord/density/maf-5/digits" in text
    assert "power" not in text
    told = "1 of 7 runs (2 of 6 cells): about 40 s of 10 min on cpu\n"
    assert told + "Not run: 3 without a recipe, 2 over the budget, 1 without their data; " in text
    assert text.rstrip().endswith("dgm-bench plan --all lists them")


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits(width):
    cell = a_cell("maf-ddsf", "bsds300", "-157.73", "0.28")
    verdict = Verdict(cell.id, "inconclusive", "", mean=-156.1234, sd=0.1234, se=0.07, seeds=3)
    text = shown(console.cells_view([(cell, verdict)]), width)
    for part in (
        "ffjord/density\n",
        "maf-ddsf/bsds300",
        "-157.73 ±0.28",
        "-156.12 ±0.12",
        "inconclusive",
        "standard deviation over seeds",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


def listed(*verdicts, own="dgm-results"):
    cells = [a_cell(f"row-{at}", "power", "-0.24", "0.01") for at, _ in enumerate(verdicts)]
    pairs = [(c, replace(v, cell=c.id)) for c, v in zip(cells, verdicts, strict=True)]
    return [" ".join(line.split()) for line in shown(console.cells_view(pairs, own)).splitlines()]


MEASURED = Verdict("", "measured", "", mean=1.0, seeds=3)
AHEAD = Unfinished(9.0, 0.4, 0.25, early_stopping=True)


def test_the_list_tells_yours_from_stored():
    shares = ((), (0, 2), (0, 1, 2))
    lines = listed(*(replace(MEASURED, own_seeds=own) for own in shares))
    assert lines[3:6] == [
        "row-0/power -0.24 ±0.01 1.00 3 • measured",
        "row-1/power -0.24 ±0.01 1.00 3, 2 yours • measured",
        "row-2/power -0.24 ±0.01 1.00 3 yours • measured",
    ]
    assert "yours: of your runs, in dgm-results; all others came with the suite." in lines
    assert "yours" not in " ".join(listed(MEASURED))


def test_the_list_tells_how_far_unfinished_runs_are():
    short = Verdict("", "unfinished", "", unfinished=AHEAD)
    mine = replace(short, own_seeds=(0,))
    lines = listed(short, mine, replace(MEASURED, own_unfinished=AHEAD))
    assert lines[3:7] == [
        "row-0/power -0.24 ±0.01 (9.00 so far) … unfinished ~25 %",
        "row-1/power -0.24 ±0.01 (9.00 so far) … unfinished ~25 %, yours",
        "row-2/power -0.24 ±0.01 1.00 3 • measured",
        "yours ~25 % done",
    ]
    assert any(line.startswith("unfinished ~: early stopping not reached") for line in lines)


def test_an_unfinished_number_of_the_list_is_grey():
    cell = a_cell("maf", "power", "-0.24", "0.01")
    short = Verdict(cell.id, "unfinished", "", unfinished=AHEAD)
    (segment,) = [
        part
        for part in Console(file=io.StringIO(), width=120).render(
            console.cells_view([(cell, short)])
        )
        if "so far" in part.text
    ]
    assert segment.style.dim


def test_text_with_brackets_is_shown_as_it_is(monkeypatch, capsys):
    console.make_console().print("see maf[bold] and :smile:")
    assert capsys.readouterr().out == "see maf[bold] and :smile:\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "told",
    [{}, {"COLUMNS": "77"}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"TERM": "dumb"}],
    ids=str,
)
def test_tables_are_laid_out_for_the_screen_that_rich_sees(monkeypatch, terminal, told):
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    rich = console.make_console()
    assert width_and_colour() == (rich.width, rich.is_terminal)


def test_checks_show_their_remedies():
    text = shown(console.checks_view([("gpu", "warn", "unusable", "update the driver")]))
    assert "warn" in text
    assert "update the driver" in text


def test_a_property_is_told_as_yes_or_no():
    column = make_column("one-pass", metric="one-pass", unit=YES_NO, direction="higher")
    cell = make_cell("maf", column, published=make_published("0", None, "none"))
    verdict = Verdict(cell.id, "better", "checked", mean=1.0, seeds=1)
    text = " ".join(shown(console.cells_view([(cell, verdict)]), 100).split())
    assert "maf/one-pass no yes 1" in text


@pytest.mark.parametrize("width", [48, 120])
def test_costs_stand_beside_the_first_of_the_cells_that_a_run_serves(width):
    """Or below it, where there is no room."""
    lines = shown(console.plan_view(Plan((RUNS,), None, MACHINE)), width).splitlines()
    ((place, costs),) = [(n, line) for n, line in enumerate(lines) if "0.1 GB" in line]
    assert (costs if width == 120 else lines[place - 1]).startswith(RUNS.cell.id)
    assert costs.split()[-5:] == ["40", "s", "unknown", "0.1", "GB"]
    assert len(costs.rstrip()) == len(lines[1 if width == 120 else 2].rstrip())
