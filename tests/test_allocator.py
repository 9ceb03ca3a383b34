"""Freed memory stays with the process, as counts of page faults show."""

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource
from dgm_bench.allocator import keep_freed_memory
{call}
faults = []
for _ in range(4):
    blocks = [bytearray(16 * 2**20) for _ in range(6)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-2])
"""


def faults_of_a_round(call):
    command = [sys.executable, "-c", ROUNDS.format(call=call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_a_second_round_faults_no_page_in():
    """Of 24,576 pages, or a few dozen where the system gives large ones."""
    assert 10 * faults_of_a_round("keep_freed_memory()") < faults_of_a_round("")
