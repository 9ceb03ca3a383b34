"""Which process wrote a file, and whether it is there, on Linux and elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgm_bench import processes
from dgm_bench.processes import is_gone, is_of_this_machine, own_mark


@pytest.fixture(params=["Linux", "elsewhere"])
def system(request, monkeypatch):
    """The system's files of processes, or none."""
    if request.param == "elsewhere":
        monkeypatch.setattr(processes, "Path", lambda _: Path("/no/such/file"))
    processes._mark.cache_clear()
    yield
    processes._mark.cache_clear()


def test_a_process_is_there_until_it_ends(system):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        mark = processes._mark(other.pid)
        assert mark.count("-") == 2
        assert "." not in mark  # it is a part of names of files
        assert not is_gone(mark)
        assert mark.split("-")[1] != own_mark().split("-")[1]  # it began later
        other.communicate(b"\n")
    assert is_gone(mark)
    assert not is_gone(own_mark())


def test_the_number_of_a_process_may_be_anothers_by_now(system):
    number, started, machine = own_mark().split("-")
    assert is_gone(f"{number}-{int(started) + 1}-{machine}")
    assert not is_gone(f"{number}-0-{machine}")  # nobody could tell when it started
    assert is_gone(f"{10**30}-{started}-{machine}")


@pytest.mark.parametrize("mark", ["", "x", "1-2", "{own}-1-elsewhere", "-1-1-x"])
def test_what_is_of_no_process_of_this_machine_is_never_gone(mark):
    mark = mark.format(own=os.getpid())
    assert not is_gone(mark)
    assert not is_of_this_machine(mark)
