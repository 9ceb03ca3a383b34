"""Whole trainings of cheap cells end as those that are stored: minutes, so no part of a suite."""

from pathlib import Path

import pytest
import torch
from cheap_cells import CHEAP
from click.testing import CliRunner

from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.compare import compare, declared_directions
from dgm_bench.store import Store

RESULTS = Path(__file__).resolve().parents[2] / "results"
#: Of a number that is what it was.
SAME = {"same", "noise"}


@pytest.mark.parametrize("name", CHEAP)
def test_whole_runs_end_as_those_that_are_stored(name, tmp_path, float64):
    torch.set_default_dtype(torch.float32)
    words = ["run", name, "--seeds", "3", "--budget", "none", "--no-tracking", "--results"]
    done = CliRunner().invoke(cli, [*words, str(tmp_path)])
    assert done.exit_code == 0, done.output
    catalog = load_catalog()
    before = Store(RESULTS).measuring(catalog.select(name)[0])
    found = compare(Store(tmp_path).records(), before, declared_directions(catalog.papers))
    assert found.rows
    others = [f"{row.metric} {row.state}" for row in found.rows if row.state not in SAME]
    assert not others
