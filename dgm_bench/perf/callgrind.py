"""Tier 2: instructions of a step, counted by valgrind: slow, exact to a few in ten thousand."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.benchmark import Timer

from dgm_bench.errors import UnexpectedError, UsageError
from dgm_bench.perf.cases import case_named

_SETUP = """
from dgm_bench.perf.cases import CASES
from dgm_bench.perf.steps import make_work
import torch
torch.set_num_threads(1)
work = make_work(CASES[{case!r}])
for _ in range(3):
    work()
"""
#: Calls that are counted.
CALLS = 5


def instructions(case: str) -> float:
    """Return the instructions of a call.

    Args:
        case: Its name.

    Raises:
        UsageError: valgrind is not installed.
        DeclarationError: No case has that name.
        UnexpectedError: valgrind failed.
    """
    case_named(case)
    if shutil.which("valgrind") is None:
        raise UsageError("valgrind", "is not installed", "apt-get install valgrind")
    timer = Timer("work()", setup=_SETUP.format(case=case), num_threads=1)
    try:
        with _own_python_first():
            counted = timer.collect_callgrind(
                number=CALLS, repeats=None, collect_baseline=False, retain_out_file=False
            )
    except OSError as error:
        said = str(error).strip().rpartition("\n")[2]
        raise UnexpectedError("valgrind", f"failed: {said}", "see whether it runs") from error
    return float(counted.counts(denoise=True)) / CALLS


@contextmanager
def _own_python_first() -> Iterator[None]:
    """Let torch find this Python: it starts whichever is first of the name ``python``."""
    before = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before
