"""``plan --on``: what is printed, JSON keys, and mistakes told in one line."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dgm_bench.cli import cli
from dgm_bench.cli.options import fleet_options
from dgm_bench.planner import parse_duration
from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import CORE_PRICE, GPU_PRICE

CELLS = "ffjord/density/*/power"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_DATA", str(tmp_path))
    monkeypatch.setenv("DGM_BENCH_JOBS", "1")  # which is of this machine
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "results").mkdir()
    return lambda *words: CliRunner().invoke(
        cli, ["plan", *words, "--results", str(tmp_path / "results")]
    )


def test_it_says_hours_cost_efficiency_and_what_bounds_it(call):
    answer = call(CELLS, "--on", "8xh200", "--price", "3").output
    head, _, *rows = answer.splitlines()
    assert head == (
        "8 x H200 SXM, 141.0 GB each, by data sheet, 8 runs at once; nothing of this was measured"
    )
    names = ["runs", "end", "GPU hours", "cost", "efficiency", "bounded by", "assumed"]
    assert [row[:14].strip() for row in rows] == names
    assert "9 of 10 draws" in rows[1]
    assert " at 3 for a GPU hour" in rows[3]
    assert rows[5][14:].startswith(("the longest run: ", "the amount of work; the longest run is "))
    assert rows[6].endswith("taken away every 24h, a run goes on 5 min after that")
    shared = call(CELLS, "--on", "8xh200", "--jobs", "24").output.splitlines()[0]
    assert shared.endswith("24 runs at once; nothing of this was measured")
    quiet = call(CELLS, "--on", "2xcpu", "--mtbf", "none", "--preempt-every", "none").output
    assert "core hours" in quiet
    assert quiet.splitlines()[-1].endswith("no failures")


def test_json_keeps_the_keys_of_a_plan_and_adds_the_outlook(call):
    found = json.loads(call(CELLS, "--on", "8xh200", "--json", "--seeds", "2").stdout)
    assert list(found)[:2] == ["cells", "seconds"]
    running = [entry for entry in found["cells"] if entry["runs"]]
    assert sum(entry["seconds"] for entry in running) == pytest.approx(found["seconds"])
    there = found["outlook"]
    assert there["runs"] == len({(entry["id"], entry["seed"]) for entry in running
                                 if not entry["reason"].startswith("same run")})  # fmt: skip
    assert there["hours_5_percent"] <= there["hours"] <= there["hours_95_percent"]
    assert there["device_hours"] == pytest.approx(8 * there["hours"])
    assert there["cost"] == pytest.approx(there["device_hours"] * there["price"])
    useful = there["efficiency"] * there["device_hours"]
    assert useful == pytest.approx(found["seconds"] / 3600)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["8xh20"], "error: --on 8xh20: no such kind of device; did you mean 'h200'?"),
        (["h200 x"], "write 8xh200, 4xa100 or 2xcpu"),
        (["8xh200", "--budget", "2h"], "error: --budget 2h: is of runs on this machine;"),
        (["8xh200", "--mtbf", "soon"], "error: --mtbf soon: not a time above zero; write 90s"),
        (["8xh200", "--preempt-every", "1s"], "error: --preempt-every: so often interrupted"),
        (["8xh200", "--restart", "none"], "error: --restart none: not a time"),
        (["8xh200", "--price", "-1"], "Invalid value for '--price'"),
    ],
)
def test_mistakes_are_told_in_one_line(call, words, told):
    answer = call(CELLS, "--on", *words)
    assert answer.exit_code == 2
    (line,) = answer.stderr.splitlines()
    assert told in line


def test_defaults_are_those_of_the_simulation():
    usual = Faults()
    options = {option.name: option for option in fleet_options(lambda: None).__click_params__}
    for name, seconds in (
        ("mtbf", usual.mtbf_seconds),
        ("preempt_every", usual.preempt_seconds),
        ("restart", usual.restart_seconds),
    ):
        assert parse_duration(options[name].default, f"--{name}") == seconds
    assert options["price"].show_default.startswith(f"{GPU_PRICE:g}, of a core {CORE_PRICE:g}")


def test_it_imports_neither_torch_nor_mlflow():
    code = (
        "import sys; from dgm_bench.cli import cli\n"
        f"try: cli(['plan', {CELLS!r}, '--on', '8xh200'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("--price", "3"), ("--mtbf", "3h"), ("--restart", "1m")])
def test_what_is_of_a_machine_elsewhere_means_nothing_here(call, words):
    done = call(CELLS, *words)
    assert done.exit_code == 2
    told = done.exception.__cause__ or done.exception
    assert f"{words[0]}: is of a machine elsewhere; add --on" in f"{told} {done.output}"
