"""``compare`` from the command line: yours against stored where no folders are named."""

import json
import os

import pytest
from click.testing import CliRunner
from factories import make_cell, make_record

from dgm_bench.cli import cli
from dgm_bench.records import write_record


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Compare in a folder with stored results of two cells; the user's are named beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("DGM_BENCH_STORED", "came")
    for cell in (make_cell(), make_cell("made")):
        for seed, value in enumerate((10.0, 10.1, 9.9)):
            write_record(make_record(cell, value=value, seed=seed), tmp_path / "came")

    def compare(*words, yours=None):
        if yours is not None:
            write_record(make_record(value=yours, run_id="mine"), tmp_path / "dgm-results")
        return CliRunner().invoke(cli, ["compare", *words])

    return compare


@pytest.mark.parametrize("words", [(), ("dgm-results",), ("dgm-results", "came")])
def test_yours_are_compared_with_the_stored_ones(call, words):
    done = call(*words, yours=13.0)
    assert done.exit_code == 1, done.stderr
    names = [("yours (dgm-results)", "stored (came)"), ("dgm-results", "stored (came)"),
             ("dgm-results", "came")][len(words)]  # fmt: skip
    assert done.stdout.splitlines() == [
        " against ".join(names),
        "",
        "▼ ffjord/density/maf/power nll: 10.00 -> 13.00 nats, 26 se worse",
        "",
        "1 number: all worse. Not compared: 1 only in the baseline. --all shows each.",
    ]


def test_all_numbers_are_shown_where_they_are_asked_for(call):
    done = call("--all", yours=10.0)
    assert done.exit_code == 0
    assert "maf/power" in done.stdout
    assert "made/power" in done.stdout
    quiet = CliRunner().invoke(cli, ["compare"]).stdout
    assert "made/power" not in quiet
    body = json.loads(CliRunner().invoke(cli, ["compare", "--format", "json"]).stdout)
    assert [row["state"] for row in body["rows"]] == ["noise", "only-baseline"]


def test_the_stored_ones_against_themselves_are_one_line(call):
    done = call("came", "came")
    assert (done.exit_code, done.stdout) == (0, "2 numbers: all equal.\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "dgm-results: you have no results there yet; dgm-bench run PATTERN makes some"),
        (("--results", "came"), "came: these are the stored results themselves; name two"),
        (("came",), "came: these are the stored results themselves; name two folders"),
        (("--results", "came", "--stored", "none"), "there are no stored results to compare with"),
        (("nowhere", "came"), "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(call, words, says):
    done = call(*words)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    assert os.getcwd() not in line
