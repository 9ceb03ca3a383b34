"""-q leaves the answer and errors."""

import logging

import pytest
from click.testing import CliRunner

from dgm_bench.cli import cli

CELL = "ffjord/density/gaussian/digits"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_RESULTS", str(tmp_path))
    return lambda *words: CliRunner().invoke(cli, words)


def test_a_quiet_verb_says_no_warning_and_still_its_errors(call, tmp_path):
    broken = tmp_path / "runs" / "x.json"
    broken.parent.mkdir()
    broken.write_text("{")
    with_warning = []
    handler = logging.Handler()
    handler.emit = with_warning.append
    logging.getLogger("dgm_bench").addHandler(handler)
    try:
        assert call("list", CELL, "-q").exit_code == 0
        assert with_warning == []
        call("list", CELL)
        assert with_warning
    finally:
        logging.getLogger("dgm_bench").removeHandler(handler)
    assert "did you mean" in call("list", CELL.upper(), "-q").stderr
