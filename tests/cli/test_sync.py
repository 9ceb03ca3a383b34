"""What ``dgm-bench sync`` prints and returns."""

import time

import pytest
from click.testing import CliRunner

from dgm_bench import tracking
from dgm_bench.cli import cli
from dgm_bench.tracking import SyncReport

WHOLE = SyncReport(logged=["a", "b"], already=["c"])
CUT = SyncReport(logged=["a"], left=["b", "c"], stopped="MLflow server x: not reachable; later")
STOPPED = SyncReport(logged=["a"], left=["b"], stopped="SIGTERM", interrupted=True)
FAILED = SyncReport(failed=dict.fromkeys("abcde", "no") | {"f": "worse"})


@pytest.mark.parametrize(
    ("report", "out", "err", "code"),
    [
        (WHOLE, "2 logged, 1 there already", "", 0),
        (CUT, "1 logged, 0 there already, 2 left",
         "error: MLflow server x: not reachable; later", 1),
        (STOPPED, "1 logged, 0 there already, 1 left",
         "stopped (SIGTERM); the same command goes on from here", 130),
        (FAILED, "0 logged, 0 there already", "a, 4 others: no\nf: worse", 1),
    ],
)  # fmt: skip
def test_sync_says_in_few_lines_what_it_did(report, out, err, code, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "sync", lambda results, control, tracker: report)
    done = CliRunner().invoke(cli, ["sync", "--results", str(tmp_path)])
    assert done.stdout.strip() == f"{tmp_path}: {out}"
    assert (done.stderr.strip(), done.exit_code) == (err, code)


def test_a_time_limit_is_kept(tmp_path, monkeypatch):
    controls = []
    monkeypatch.setattr(
        tracking, "sync", lambda _, control, tracker: controls.append(control) or WHOLE
    )
    CliRunner().invoke(cli, ["sync", "--results", str(tmp_path), "--time-limit", "0.001s"])
    time.sleep(0.01)
    assert controls[0].stop_reason() == "time limit"
