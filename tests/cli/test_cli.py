"""The command line: verbs, JSON keys, exit codes, and mistakes told in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from cpu_time import YARDSTICK
from factories import make_record

from dgm_bench import paths, record_index, runner
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.cli.data_commands import NO_FILES
from dgm_bench.errors import DataError, ResultsError

CELL = "ffjord/density/maf-5/digits"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a verb with empty results and data folders; return what came of it."""
    monkeypatch.setenv("DGM_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("DGM_BENCH_RESULTS", str(tmp_path / "results"))

    def run(*words):
        return CliRunner().invoke(cli, words)

    return run


@pytest.fixture
def fake_run(monkeypatch):
    """Put a runner in place that records how it is called and ends as it is told."""
    calls = []

    def ends_with(error=None, **ending):
        def run_plan(plan, context, engine=None):
            calls.append((plan, context))
            context.reporter.plan(plan)
            if error:
                raise error
            return runner.RunSummary(**{"finished": [make_record()], **ending})

        monkeypatch.setattr(runner, "run_plan", run_plan)
        return calls

    return ends_with


def told(result, code=2):
    """Return the one line of a mistake."""
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# --------------------------------------------------------------------------- JSON


def test_list_json_has_exactly_the_promised_keys(call):
    result = call("list", "ffjord/*", "--json")
    assert result.exit_code == 0
    cells = json.loads(result.stdout)["cells"]
    for cell in cells:
        assert list(cell) == ["id", "row", "column", "metric", "unit", "direction", "published",
                              "runnable", "state", "measured", "own_seeds", "unfinished",
                              "own_unfinished"]  # fmt: skip
        if cell["published"]:
            assert list(cell["published"]) == ["value", "pm", "pm_kind", "selection", "source"]
            assert isinstance(cell["published"]["value"], float)
        assert cell["measured"] is None
    assert any(cell["published"] for cell in cells)
    assert any(cell["published"] is None for cell in cells)
    assert any(cell["runnable"] for cell in cells)


def test_plan_json_has_exactly_the_promised_keys_and_its_seconds_add_up(call):
    result = call("plan", "ffjord/*", "--seeds", "2", "--json")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert list(plan) == ["cells", "seconds", "workers", "expected_end_seconds"]
    assert (plan["workers"], plan["expected_end_seconds"]) == (1, plan["seconds"])
    for cell in plan["cells"]:
        promised = ["id", "seed", "data", "seconds", "memory_bytes", "runs", "reason"]
        assert list(cell) == [*promised, "h200_seconds"]
        assert cell["runs"] or cell["reason"]
    running = [cell["seconds"] for cell in plan["cells"] if cell["runs"]]
    assert running
    assert sum(running) == pytest.approx(plan["seconds"])
    assert plan["seconds"] <= 600


def test_plan_covers_every_cell_that_list_shows(call):
    listed = {cell["id"] for cell in json.loads(call("list", "--json").stdout)["cells"]}
    planned = {cell["id"] for cell in json.loads(call("plan", "--json").stdout)["cells"]}
    assert planned == listed


def test_data_that_is_not_here_is_a_reason_with_the_command(call):
    cells = json.loads(call("plan", "ffjord/density/maf-5/power", "--json").stdout)["cells"]
    (cell,) = cells
    assert cell["reason"] == "data not here: dgm-bench data fetch power"
    assert cell["data"] == "missing"
    assert not cell["runs"]


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lsit"], "did you mean 'list'?"),
        (["xyz"], "use list, plan"),
        (["data", "fech"], "did you mean 'fetch'?"),
        (["plan", "--budget", "-5m"], "--budget -5m: not a time above zero"),
        (["plan", "--budget", "soon"], "write 90s, 10m, 2h"),
        (["plan", "--seeds", "0"], "--seeds"),
        (["plan", "--seeds", "1000000"], "not in the range 1<=x<=1000"),
        (["run", CELL, "--time-limit", "0s"], "--time-limit 0s"),
        (["run", CELL, "--set", "lr"], "write --set optimizer.lr=1e-4"),
        (["run", CELL, "--set", "optimizer.rate=1"], "a recipe has no 'rate'"),
        (
            ["run", CELL, "--set", "batch_size=many"],
            "--set batch_size=many: should be a valid integer",
        ),
        (["run", CELL, "--set", "evaluation.judge.keep=1"], "'evaluation.judge' has no parts"),
        (["run"], "PATTERN"),
        (["run", CELL, "--paper", "iwae"], f"{CELL}: is no cell of iwae; leave out --paper"),
        (["run", "--paper", "fjord"], "fjord: no such paper; did you mean 'ffjord'?"),
        (["list", ""], "'': matches no cell"),
        (["table", "ffjord"], "use --paper ffjord"),
        (["run", CELL, "--device", "tpu"], "--device"),
        (["run", "ffjord/density/maf-5/digts"], "digits"),
        (["list", "ffjord/density/mof-5/digits"], "did you mean"),
        (["table", "ffjord/densty"], "did you mean 'ffjord/density'?"),
        (["table", "--paper", "fjord"], "did you mean 'ffjord'?"),
        (["table", "ffjord/vi", "--paper", "ffjord"], "takes either a table or a paper"),
        (["table"], "takes either a table or a paper"),
        (["data", "fetch", "mnits"], "did you mean 'mnist'?"),
        (["compare", "no-such-folder", "nor-this"], "no-such-folder"),
        (["list", "--jsn"], "see dgm-bench list --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(call, words, expected, tmp_path):
    assert expected in told(call(*words))
    assert not (tmp_path / "results").exists()


def test_no_verb_at_all_shows_the_help(call):
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    assert "dgm-bench plan 'ffjord/*'" in result.output


def test_missing_data_is_told_by_verify_with_the_command(call):
    assert "dgm-bench data fetch mnist" in told(call("data", "verify", "mnist"))


def test_results_that_are_no_folder_are_told(call, tmp_path):
    (tmp_path / "results").touch()
    assert "--results" in told(call("list"))


def test_a_broken_record_is_told_with_its_file(call, tmp_path, caplog):
    broken = tmp_path / "results" / "runs" / "ffjord" / "x.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    result = call("list")
    assert result.exit_code == 0
    assert "x.json: not a run record" in caplog.text
    assert "x.json" not in result.stdout
    for verb in (["list"], ["plan"], ["table", "ffjord/density"], ["report", "-o", "page.html"]):
        assert "x.json" in told(call(*verb, "--strict"))
    runs = str(broken.parent)
    assert call("compare", runs, runs).exit_code == 3
    assert "x.json" in told(call("compare", runs, runs, "--strict"))


# --------------------------------------------------------------------------- run


def test_run_hands_its_options_on(call, fake_run, tmp_path, monkeypatch):
    calls = fake_run()
    result = call("run", CELL, "--seeds", "2", "--budget", "none", "--time-limit", "9m",
                  "--set", "optimizer.lr=1e-4", "--set", "stopping.max_steps=5", "--offline",
                  "--threads", "1", "--no-tracking")  # fmt: skip
    assert result.exit_code == 0, result.output
    ((plan, context),) = calls
    assert [run.seed for run in plan.chosen] == [0, 1]
    assert plan.budget_seconds is None
    for run in plan.chosen:
        assert run.modified == ("optimizer.lr=1e-4", "stopping.max_steps=5")
        (stage,) = run.recipe.stages
        assert (stage.optimizer.lr, stage.stopping.max_steps) == (1e-4, 5)
    with monkeypatch.context() as patch:
        for passed, reason in ((400, None), (541, "time limit")):
            now = time.monotonic() + passed
            patch.setattr("dgm_bench.control.time", SimpleNamespace(monotonic=lambda now=now: now))
            assert context.control.stop_reason() == reason
    assert context.offline
    assert context.threads == 1
    assert not context.track
    assert context.results == tmp_path / "results"
    assert context.data_root == tmp_path / "data"
    assert result.stdout.startswith("2 of 2 runs (1 cell): about ")


def test_a_wrong_change_is_told_before_anything_is_planned(call, fake_run, monkeypatch):
    calls = fake_run()
    monkeypatch.setattr("dgm_bench.planner.plan", lambda *args, **options: calls.append(args))
    assert "a recipe has no 'rate'" in told(call("run", CELL, "--set", "optimizer.rate=1"))
    assert calls == []


def test_run_exits_with_0_1_or_130(call, fake_run):
    fake_run()
    assert call("run", CELL).exit_code == 0
    fake_run(failed=[make_record(status="diverged")])
    assert call("run", CELL).exit_code == 1
    fake_run(unavailable=True)
    assert call("run", CELL).exit_code == 1
    fake_run(failed=[make_record(status="diverged")], interrupted=True)
    assert call("run", CELL).exit_code == 130


def test_a_command_that_ran_nothing_says_why(call, fake_run):
    fake_run(finished=(), skipped=[(CELL, "data not here: dgm-bench data fetch mnist")])
    result = call("run", CELL)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: nothing ran: data not here: dgm-bench data fetch mnist")


def test_a_paper_stands_for_all_its_cells(call, fake_run):
    calls = fake_run()
    assert call("run", "--paper", "ffjord", "--budget", "none").exit_code == 0
    assert {run.cell.paper for run in calls[0][0].runs} == {"ffjord"}
    assert len(calls[0][0].runs) > 100
    assert "takes a PATTERN or a paper" in told(call("run"))
    assert call("run", "--paper", "ffjord", "ffjord/density/*/digits").exit_code == 0
    assert {run.cell.column.id for run in calls[1][0].runs} == {"digits"}


def test_ctrl_c_anywhere_exits_with_130(call, fake_run):
    fake_run(error=KeyboardInterrupt())
    result = call("run", CELL)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted"


@pytest.mark.parametrize("kind", [ResultsError, DataError])
def test_what_the_runner_cannot_do_is_told_in_one_line(call, fake_run, kind):
    fake_run(error=kind("results/work/ab-s0", "this run is under way in process 7", "wait for it"))
    result = call("run", CELL)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "error: results/work/ab-s0: this run is under way in process 7; wait for it"
    )


# --------------------------------------------------------------------------- other verbs


def test_a_table_says_why_a_cell_has_no_number(call):
    result = call("table", "ffjord/density", "--format", "json")
    assert result.exit_code == 0, result.output
    assert "data not here: dgm-bench data fetch power" in result.stdout
    assert f"dgm-bench run {CELL}" in result.stdout
    assert "no recipe yet" in call("table", "vqvae2/diversity", "--format", "json").stdout


@pytest.mark.parametrize("style", ["text", "markdown", "csv", "json", "latex"])
def test_tables_print_in_every_format(call, style):
    result = call("table", "ffjord/density", "--format", style)
    assert result.exit_code == 0
    assert "MAF" in result.stdout


@pytest.mark.parametrize("style", ["text", "markdown", "csv", "latex"])
def test_a_papers_tables_print_one_after_the_other(call, style):
    tables = load_catalog().paper("discrete").tables
    single = [call("table", table.name, "--format", style).stdout for table in tables]
    assert all(single)
    assert call("table", "--paper", "discrete", "--format", style).stdout == "\n".join(single)


def test_a_papers_tables_are_one_json_object(call):
    found = json.loads(call("table", "--paper", "discrete", "--format", "json").stdout)
    assert list(found) == [table.name for table in load_catalog().paper("discrete").tables]
    single = call("table", "discrete/concrete", "--format", "json").stdout
    assert found["discrete/concrete"] == json.loads(single)


@pytest.mark.parametrize("words", [["table", "--paper", "discrete"], ["list"], ["plan"]])
def test_a_verb_reads_the_stored_records_once(call, tmp_path, monkeypatch, words):
    """However many tables it shows: there may be thousands of records."""
    runs = Path(__file__).parents[2] / "results/runs"
    read, read_as, file = [], record_index.read_as, min(runs.rglob("*.json"))
    target = tmp_path / "results/runs" / file.relative_to(runs)
    target.parent.mkdir(parents=True)
    target.write_bytes(file.read_bytes())
    counted = lambda path, make: read.append(path) or read_as(path, make)  # noqa: E731
    monkeypatch.setattr(record_index, "read_as", counted)
    assert call(*words).exit_code == 0
    assert read == [target]


def test_the_list_and_the_plan_are_readable(call):
    listed = call("list", "ffjord/density/*/power").stdout
    assert "ffjord/density" in listed
    assert "maf-5/power" in listed
    assert " runs (" in call("plan").stdout


def test_comparing_nothing_with_nothing_is_not_comparable(call, tmp_path):
    for name in ("new", "old"):
        (tmp_path / name / "runs").mkdir(parents=True)
    assert call("compare", str(tmp_path / "new"), str(tmp_path / "old")).exit_code == 3


def test_data_list_shows_every_set_and_its_state(call):
    output = call("data", "list").stdout
    assert "digits" in output
    assert "embedded" in output
    assert "missing" in output


def test_a_report_is_written(call, tmp_path):
    result = call("report", "-o", str(tmp_path / "page.html"))
    assert result.exit_code == 0, result.output
    assert "<html" in (tmp_path / "page.html").read_text()


def test_a_report_is_of_what_was_asked_for(call, tmp_path):
    page = tmp_path / "page.html"
    assert call("report", "-o", str(page), "ffjord/density/maf/*", "--paper", "avb").exit_code == 0
    text = page.read_text()
    assert 'href="#ffjord/density/maf/power"' in text
    assert 'id="avb/elbo"' in text
    assert 'href="#ffjord/density/made/power"' not in text
    for wrong in (["ffjord/density/maff/*"], ["--paper", "avbb"]):
        new = tmp_path / "new" / "page.html"
        assert call("report", "-o", str(new), *wrong).exit_code == 2
        assert not new.parent.exists()


def test_a_report_that_cannot_be_written_leaves_nothing(call, tmp_path, monkeypatch):
    """It is told before any record is read."""
    monkeypatch.setattr("dgm_bench.store.Store.__init__", None)
    file = tmp_path / "file"
    file.touch()
    for output, figures in ((file / "page.html", tmp_path), (tmp_path / "x.html", file / "f")):
        result = call("report", "-o", str(output), "--figures", str(figures))
        assert result.exit_code == 2
        assert str(file) in result.stderr
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "verb", ["list", "plan", "data list", "data fetch", "data verify", "run", "status",
             "cancel", "table", "compare", "report", "sync", "doctor"]
)  # fmt: skip
def test_every_verb_has_help_with_real_examples(call, verb):
    result = CliRunner().invoke(cli, [*verb.split(), "--help"])
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:")[2]
    assert f"dgm-bench {verb}" in examples


# --------------------------------------------------------------------------- processes

#: Pieces of work that an answer may take: 35 to 50 are needed, and a heavy import is a hundred.
LIGHT = 150
HEAVY = ("torch", "mlflow", "pandas", "matplotlib", "sklearn", "scipy.stats")
SCRIPT = f"""
{YARDSTICK}
import sys
from dgm_bench.cli import cli
from dgm_bench.cli.data_commands import NO_FILES
sys.stdout = open("/dev/null", "w")
try:
    cli.main(sys.argv[1:], prog_name="dgm-bench")
except SystemExit as end:
    code = end.code
modules = set(sys.modules)
sys.stderr.write(f"{{code}} {{pieces_of_work()}} " + " ".join(sorted(modules)))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["plan"],
        ["table", "ffjord/density"],
        ["table", "--paper", "avb"],
        ["compare", "new", "new"],
        ["status"],
    ],
)
def test_questions_are_answered_fast_and_without_heavy_imports(words, tmp_path):
    (tmp_path / "new" / "runs").mkdir(parents=True)
    where = [] if words[0] == "compare" else ["--results", str(tmp_path / "new")]
    env = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent), "DGM_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words, *where],
        cwd=tmp_path, env=env, capture_output=True, text=True,
    )  # fmt: skip
    code, spent, *modules = done.stderr.split()
    assert code == ("3" if words[0] == "compare" else "0"), done.stderr[-500:]
    assert not set(HEAVY) & set(modules)
    assert float(spent) < LIGHT


def start(*words, **options):
    env = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    command = [sys.executable, "-m", "dgm_bench", *words]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("words", [["list"], ["list", "--json"]])
def test_a_closed_pipe_is_no_trouble(words):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*words, stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_python_m_is_the_command():
    process = start("--version", stdout=subprocess.PIPE)
    assert process.communicate()[0].startswith("dgm-bench, version ")
    assert process.returncode == 0


@pytest.mark.parametrize("verb", ["fetch", "verify"])
def test_data_without_files_says_so(call, verb):
    done = call("data", verb, "digits")
    assert (done.exit_code, done.output.strip()) == (0, f"digits: {NO_FILES}")
