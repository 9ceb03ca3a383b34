"""Reads damaged files in a child process: each is refused in one line, or read."""

import mmap
import os
import pickle
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.mutants import mutants
from hypothesis import HealthCheck, Phase, given, seed, settings
from jaxtyping import config

from dgm_bench.errors import DgmBenchError

#: What a reader may take beyond what its process has: address space, and processor time an input.
MEMORY, SECONDS = 2**30, 10
#: Where a child writes what it reads next, for when it dies of it.
LARGEST_INPUT = 2**22


@dataclass(frozen=True)
class Target:
    """A reader, and a file that it reads.

    Attributes:
        name: Of the format.
        write: Writes a small whole file, as its publisher or we do, to the path it is given;
            other files that the reader needs go beside it.
        read: Reads it with our reader; gives anything :func:`digest` knows.
        exact: Whether the format has a digest, so that a damaged file is refused or read as it was.
        filename: What the file is called.
        inside: Takes off a layer that would hide all damage (gzip), and puts it on again: half of
            the damage is then done below it.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], Any]
    exact: bool = False
    filename: str = "sample"
    inside: tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]] | None = None


@dataclass
class Tally:
    """What became of the inputs of one target."""

    tried: int = 0
    refused: int = 0
    as_written: int = 0
    otherwise: int = 0
    slowest: float = 0.0
    memory: int = 0
    failure: str = ""
    input: bytes = field(default=b"", repr=False)


def digest(value: Any) -> Any:
    """Return something that is equal where values are, NaN included: arrays by their bytes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return tuple((key, digest(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(digest(part) for part in value)
    return repr(value)


class Trial:
    """Reads inputs of one target in a folder, and keeps count."""

    def __init__(self, target: Target, folder: Path, shared: mmap.mmap) -> None:
        self.target, self.path, self.shared = target, folder / target.filename, shared
        self.tally = Tally()
        target.write(self.path)
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.folder, self.sample = folder, self.path.read_bytes()
        self.original = digest(target.read(self.path))

    def _restore(self, data: bytes) -> None:
        """Lay the files out anew: a reader may set a damaged one aside."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.files:
                path.unlink()
        for path, whole in self.files.items():
            path.write_bytes(data if path == self.path else whole)

    def read(self, data: bytes, exact: bool) -> None:
        """Read one input.

        Raises:
            AssertionError: The reader did something else than it may.
        """
        self._restore(data)
        self.shared[:8] = len(data).to_bytes(8, "little")
        self.shared[8 : 8 + len(data)] = data
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # kills the child, C code or not
        began = time.process_time()
        try:
            value = digest(self.target.read(self.path))
        except DgmBenchError as error:
            self._check_refusal(error)
            self.tally.refused += 1
        else:
            same = value == self.original
            assert same or not exact, "a damaged file was read as another value"
            self.tally.as_written += same
            self.tally.otherwise += not same
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.tally.slowest = max(self.tally.slowest, time.process_time() - began)
            self.tally.tried += 1

    def _check_refusal(self, error: DgmBenchError) -> None:
        text = str(error)
        assert len(text.splitlines()) == 1, f"not one line: {text!r}"
        assert error.reason, f"no reason: {text}"
        assert error.remedy, f"no remedy: {text}"
        cause: BaseException | None = error
        while cause is not None:
            assert not isinstance(cause, MemoryError), f"more than 1 GB was asked for: {text}"
            cause = cause.__cause__ or cause.__context__

    def run(self, inputs: int, seconds: float, number: int) -> None:
        """Read inputs in rounds of so many, each of another seed, as long as there is time."""
        began = time.monotonic()
        while not self.tally.tried or time.monotonic() - began < seconds:
            self._round(self.sample, self.target.exact, inputs, number)
            if self.target.inside:
                off, on = self.target.inside
                self._round(off(self.sample), False, inputs, number, on)
            number += 1

    def _round(
        self,
        sample: bytes,
        exact: bool,
        inputs: int,
        number: int,
        on: Callable[[bytes], bytes] = bytes,
    ) -> None:
        @seed(number)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(mutants(sample))
        def each(data: bytes) -> None:
            self.read(on(data), exact)

        each()


def _child(
    target: Target, folder: Path, shared: mmap.mmap, inputs: int, seconds: float, number: int
) -> Tally:
    """Read the inputs of one target, with bounded memory; the tally says what failed."""
    config.update("jaxtyping_disable", True)  # users have no checks of shapes
    trial = Trial(target, folder, shared)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        trial.run(inputs, seconds, number)
    except BaseException as error:
        lines = str(error).splitlines() or [""]
        trial.tally.failure = f"{type(error).__name__}: {lines[0]}"
        trial.tally.input = _last_input(shared)
    trial.tally.memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return trial.tally


def _last_input(shared: mmap.mmap) -> bytes:
    return shared[8 : 8 + int.from_bytes(shared[:8], "little")]


@cache
def _warmed() -> None:
    """Let Hypothesis look for constants in the code once, and not in every child."""

    @settings(max_examples=2, database=None, phases=(Phase.generate,))
    @given(mutants(b"a sample"))
    def each(data: bytes) -> None:
        pass

    each()


def fuzz(
    target: Target, folder: Path, *, inputs: int = 200, seconds: float = 0, number: int = 0
) -> Tally:
    """Read damaged forms of a target's file in a child process.

    Args:
        target: What to read.
        folder: For its files.
        inputs: How many a round has; where there is something inside, it has as many there.
        seconds: How long to begin further rounds.
        number: Of the first round, which decides the damage.

    Returns:
        What became of them; with the failure, and the input that led to it.
    """
    _warmed()
    shared = mmap.mmap(-1, LARGEST_INPUT)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(_child(target, folder, shared, inputs, seconds, number), stream)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # the status of a whole answer is not looked at
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if answer:
        return pickle.loads(answer)
    return Tally(failure=_cause_of_death(status), input=_last_input(shared))


def _cause_of_death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return "cannot be begun: see above"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"took longer than {SECONDS} s" if name == "SIGPROF" else f"died of {name}"
