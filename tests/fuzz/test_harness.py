"""What the trial of readers notices, on readers with one fault each."""

import os
import signal
import time

import pytest
from fuzz.harness import Target, fuzz

from dgm_bench.errors import DataError

SAMPLE = bytes(range(64))
BIG = 3 * 2**30


def refuse(path, reason="is damaged", remedy="replace it"):
    raise DataError(path, reason, remedy)


def hides_memory(path):
    try:
        bytearray(BIG)
    except MemoryError:
        refuse(path)


#: What a reader does with damage, and what is said of it.
FAULTS = {
    "raises": (lambda path: {}[path], "KeyError"),
    "no remedy": (lambda path: refuse(path, remedy=""), "no remedy"),
    "other value": (lambda path: None, "another value"),
    "takes memory": (lambda path: bytearray(BIG), "MemoryError"),
    "hides memory": (hides_memory, "more than 1 GB"),
    "crashes": (lambda path: os.kill(os.getpid(), signal.SIGKILL), "died of SIGKILL"),
}


def target(fault, **settings):
    def read(path):
        data = path.read_bytes()
        return data if data == SAMPLE else fault(path)

    return Target("sample", lambda path: path.write_bytes(SAMPLE), read, **settings)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_reader_is_found_and_named(fault, tmp_path):
    does, says = FAULTS[fault]
    tally = fuzz(target(does, exact=True), tmp_path, inputs=5)
    assert says in tally.failure
    assert tally.input != SAMPLE


def test_a_reader_that_hangs_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.harness.SECONDS", 0.3)

    def hang(path):
        while True:
            time.process_time()

    assert "longer than 0.3 s" in fuzz(target(hang), tmp_path, inputs=5).failure


def test_a_reader_that_refuses_passes_and_all_inputs_are_counted(tmp_path):
    tally = fuzz(target(refuse), tmp_path, inputs=100)
    assert not tally.failure
    assert tally.tried >= 100
    assert tally.refused + tally.as_written == tally.tried
    assert tally.refused > 80
