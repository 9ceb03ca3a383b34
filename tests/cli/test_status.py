"""The verbs status and cancel: what they print, wait for, and exit with."""

import json
import threading
import time

import pytest
from board_parts import GONE, planned, submit
from click.testing import CliRunner
from factories import make_context

from dgm_bench.cli import cli, status_commands
from dgm_bench.engines.board import Fault
from dgm_bench.errors import DgmBenchError
from dgm_bench.processes import own_mark

RUNNING = {
    "state": "running", "mark": own_mark(), "host": "node7", "device": "cpu",
    "title": "MAF, seed 0", "started": "2026-01-02T03:04:05Z", "stage": "prior", "step": 50,
    "max_steps": 200, "epoch": 1.5, "seconds": 30.0, "validation": 2.25, "best": 2.125,
}  # fmt: skip
LOST = {"state": "lost", "fault": Fault.of(DgmBenchError("its process", "died", "try again"))}
CELL = "ffjord/density/maf/power"


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    return make_context(tmp_path)


@pytest.fixture
def call(context):
    def invoke(*words):
        return CliRunner().invoke(cli, [*words, "--results", str(context.results)])

    return invoke


def test_status_says_what_runs_where_how_far_and_what_failed(call, context):
    submit(context, RUNNING, LOST, runs=planned(0, 1, 2), command="dgm-bench run x")
    done = call("status")
    assert done.exit_code == 0
    for text in (
        "dgm-bench run x", "1 waiting, 1 running, 1 lost", "MAF, seed 0", "node7 cpu",
        "2026-01-02T03:04:05Z", "prior epoch 1.5, step 50", "25%", "2.250", "2.125", "2 min",
        f"{CELL} seed 1: its process: died; try again",
    ):  # fmt: skip
        assert text in " ".join(done.stdout.split()), text
    (view,) = json.loads(call("status", "--json").stdout)["submissions"]
    assert view["counts"] == {
        "waiting": 1, "running": 1, "done": 0, "stopped": 0, "failed": 0, "lost": 1,
    }  # fmt: skip
    first, second, third = view["tasks"]
    assert (first["share"], first["seconds_left"], first["host"]) == (0.25, 90.0, "node7")
    assert second["failures"][0]["remedy"] == "try again"
    assert third == {"id": third["id"], "cells": [CELL], "seeds": [2], "state": "waiting"}


def test_status_says_when_nothing_runs_or_a_command_is_gone(call, context):
    context.results.mkdir()
    done = call("status")
    assert (done.exit_code, f"way in {context.results}" in done.stdout) == (0, True)
    assert json.loads(call("status", "--json").stdout) == {
        "submissions": [], "interrupted": [], "damaged": [],
    }  # fmt: skip
    submit(context, {**RUNNING, "mark": GONE}, process=GONE, command="dgm-bench run x --seeds 2")
    told = call("status").stdout
    assert "its command is gone; the same goes on: dgm-bench run x --seeds 2" in told
    assert "its process is gone" in told


def test_status_watches_until_nothing_runs(call, context, monkeypatch):
    board = submit(context, RUNNING)
    monkeypatch.setattr(time, "sleep", lambda seconds: board.remove())
    done = call("status", "--watch")
    assert (done.exit_code, done.stdout.count("MAF, seed 0"), "Nothing" in done.stdout) == (
        0,
        1,
        True,
    )
    assert call("status", "--watch", "--json").exit_code == 2


# --------------------------------------------------------------------------- cancel


def stop_when_asked(board, state):
    """Be the worker of a task: stop once that is asked for."""

    def work():
        ends = time.monotonic() + 20
        while not board.cancel_requested(state.task) and time.monotonic() < ends:
            time.sleep(0.01)
        state.state = "stopped"
        board.note(state)

    threading.Thread(target=work).start()


def test_cancel_waits_until_what_it_names_has_stopped(call, context, monkeypatch):
    monkeypatch.setattr(status_commands, "_PAUSE", 0.01)
    board = submit(context, RUNNING, runs=[*planned(0, 1), *planned(0, row="made")])
    first, second, other = (task.id for task in board.submission().tasks)
    stop_when_asked(board, board.state(first))
    done = call("cancel", "*/maf/*")
    assert (done.exit_code, done.stdout.strip()) == (0, "1 run stopped, 1 run will not begin")
    assert board.cancelled_among([first, second, other]) == [first, second]
    assert not board.at_once_requested(second)


def test_cancel_does_not_wait_for_ever(call, context, monkeypatch):
    monkeypatch.setattr(status_commands, "PATIENCE", 0.05)
    board = submit(context, RUNNING)
    done = call("cancel", "--all", "--now")
    assert done.exit_code == 1
    assert (
        done.stdout.strip() == "1 run will not begin, 1 run not stopped yet: see dgm-bench status"
    )
    assert all(board.at_once_requested(task.id) for task in board.submission().tasks)
    assert call("cancel", "--all", "--no-wait").exit_code == 0


def test_cancel_of_nothing_is_a_mistake(call, context):
    submit(context, {"state": "done"}, {**RUNNING, "mark": GONE}, process=GONE)
    submit(context, {"state": "done"}, {"state": "stopped"})
    for words, line in (
        (["*/maf/*"], "*/maf/*: matches no run that is under way in "),
        (["--all"], "dgm-bench cancel --all: nothing is under way in "),
        ([], "takes either a PATTERN or --all; name cells"),
        (["x", "--all"], "takes either a PATTERN or --all; name cells"),
    ):
        done = call("cancel", *words)
        assert (done.exit_code, line in done.stderr) == (2, True), done.stderr
