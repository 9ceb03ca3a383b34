"""How many runs go at once, as the command line takes it."""

import pytest
import torch
from cli.commands import command
from factories import make_context

from dgm_bench import provenance
from dgm_bench.engines.choice import Choice, make_engine, visible_gpus
from dgm_bench.errors import UsageError
from dgm_bench.events import Reporter
from dgm_bench.planner import Machine, Speed

CELL = "ffjord/density/made/8gaussians"


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--jobs", "0"], {}, "0 is not auto, or a number from 1 to 1024"),
        (["--jobs", "-1"], {}, "-1 is not auto, or a number from 1 to 1024"),
        (["--jobs", "1025"], {}, "1025 is not auto"),
        (["--jobs", "9" * 5000], {}, "is not auto"),
        (["--jobs", "many"], {}, "many is not auto"),
        (["--jobs", "²"], {}, "is not auto"),
        ([], {"DGM_BENCH_JOBS": "none"}, "none is not auto"),
        (["--jobs", "4", "--device", "cuda"], {}, "--device cuda: torch finds no GPU"),
    ],
)
def test_what_is_no_number_of_jobs_is_told_in_one_line(tmp_path, words, environment, told):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = command("run", CELL, *words, cwd=tmp_path, environment=environment)
    assert (done.code, len(done.told)) == (2, 1)
    assert told in done.err
    assert not list(tmp_path.iterdir())


def machine(workers, device="cpu", memory=10**12):
    return Machine(device, "kind", Speed(1e9), memory, workers)


class Told(Reporter):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def test_one_run_at_once_needs_no_other_process(tmp_path):
    assert make_engine(Choice(), make_context(tmp_path), machine(1)) is None


def test_more_threads_than_cores_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "cores", lambda: 4)
    for threads, told in ((4, []), (9, ["9 threads take turns on 4 cores: --threads 4 is faster"])):
        reporter = Told()
        context = make_context(tmp_path, threads=threads, reporter=reporter)
        assert make_engine(Choice(), context, machine(1)) is None
        assert reporter.texts == told


@pytest.mark.parametrize(
    ("workers", "threads", "each", "crowded"),
    [(2, None, 4, False), (8, None, 1, False), (20, None, 1, False), (2, 4, 4, False),
     (2, 64, 64, True)],
)  # fmt: skip
def test_cores_are_shared_and_a_crowd_is_told(
    tmp_path, monkeypatch, workers, threads, each, crowded
):
    monkeypatch.setattr(provenance, "cores", lambda: 8)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 10**12)
    told = Told()
    context = make_context(tmp_path, threads=threads, reporter=told)
    engine = make_engine(Choice(), context, machine(workers))
    assert engine.slots == workers
    found = {slot.place.environment["OMP_NUM_THREADS"] for slot in engine._slots}
    assert found == {str(each)}
    assert bool(told.texts) == crowded
    if crowded:
        assert "2 runs at once with 64 threads each take turns on 8 cores" in told.texts[0]


def test_more_processes_than_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 24 * 10**9)
    with pytest.raises(UsageError, match=r"--jobs 1000: 1000 processes need 500.0 GB memory"):
        make_engine(Choice(), make_context(tmp_path), machine(1000))


@pytest.mark.parametrize(
    ("shown", "names"),
    [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])],
)
def test_gpus_are_those_that_are_not_hidden(monkeypatch, shown, names):
    monkeypatch.setattr(provenance, "driver_gpus", lambda: (12, ("A", "A")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert visible_gpus() == names
