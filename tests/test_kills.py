"""Killed anywhere, the same command ends with the record of a run that nobody killed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dgm_bench.records import read_record
from dgm_bench.store import Store

#: At least so many in all; in every phase of every case on request.
KILLS = os.environ.get("DGM_BENCH_KILLS", "12")
FEW = ("stopping.patience=null", "batch_size=16", "stopping.max_steps=20", "validation.every=10")
#: One stage, codes in three stages, a solver's counts, and images that are decoded first.
CASES = {
    "maf": (
        "ffjord/density/maf-5/8gaussians",
        *FEW,
        "stopping.max_steps=300",
        "model.args.layers=2",
        "model.args.hidden=[16]",
    ),
    "ffjord": (
        "ffjord/density/ffjord/8gaussians",
        *FEW,
        "model.args.hidden=[16]",
    ),
    "vqvae-2": (
        "vqvae2/diversity/vqvae-2/digits-precision",
        *FEW,
        *(f"autoencoder.model.args.{name}" for name in ("hidden=8", "residual_units=8")),
        *(
            f"{prior}.model.args.{name}"
            for prior in ("top-prior", "bottom-prior")
            for name in ("layers=1", "hidden=8", "residual=8", "conditioning_residual=8")
        ),
        "top-prior.model.args.attention_layers=1",
        'evaluation.metrics=["codes"]',
    ),
    "folder": (
        "vqvae2/diversity/dvae/imagenet-256-mse",
        *FEW,
        *(f"autoencoder.model.args.{name}" for name in ("codes=16", "hidden=8", "dim=8")),
        *(f"prior.model.args.{name}" for name in ("grids=[[2,2]]", "codes=16", "classes=2")),
        *(f"prior.model.args.{name}" for name in ("width=16", "depth=1", "heads=2")),
        *(f"evaluation.judge.{name}" for name in ("reference=33", "samples=32", "compared=8")),
        'evaluation.judge.features=["classifier"]',
        'evaluation.metrics=["codes"]',
    ),
}
#: What two runs may differ in: their identity, how long they took, and what git says meanwhile.
OWN = {"run_id", "created", "curve", "curve_sha256", "budget", "code", "quality"}
TIMES = {"train_seconds", "validation_seconds", "evaluation_seconds", "segments"}


def arguments(cell, *changes):
    words = ["--budget", "none", "--threads", "1", "--offline", "--no-tracking"]
    return ["run", cell, *words, *(word for change in changes for word in ("--set", change))]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """What became of the runs that were killed."""
    cases = [{"name": name, "arguments": arguments(*words)} for name, words in CASES.items()]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_driver.py"), KILLS,
         tmp_path_factory.mktemp("kills")],
        input=json.dumps(cases), capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


def the_record(folder):
    (path,) = (folder / "results" / "runs").rglob("*.json")
    return read_record(path)


def numbers(folder):
    """All of a record but what is its own; its curve without the clock."""
    record = the_record(folder)
    curve = Store(folder / "results").curve(record)
    spent = record.budget.model_dump(exclude={*TIMES, "peak_memory_bytes"})
    rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in curve]
    return record.model_dump(exclude=OWN), spent, repr(rows)


def files(folder):
    """Names of all that lies in a round's folder, without the identity of its run."""
    run_id = the_record(folder).run_id
    return {str(path.relative_to(folder)).replace(run_id, "RUN") for path in folder.rglob("*")}


def test_a_killed_run_ends_with_the_same_numbers_and_leaves_nothing(rounds, capsys):
    kills = Counter()
    for one in rounds:
        whole, killed = Path(one["whole"]), Path(one["killed"])
        assert one["code"] == 0, one
        assert numbers(killed) == numbers(whole), one
        assert files(killed) == files(whole), one
        kills.update(one["hits"])
    assert kills.total() >= int(KILLS)
    assert {one["case"] for one in rounds} == set(CASES)
    if "DGM_BENCH_KILLS" in os.environ:
        each = ", ".join(f"{phase} {count}" for phase, count in kills.most_common())
        with capsys.disabled():
            print(f"\n{kills.total()} kills in {len(rounds)} runs: {each}")
