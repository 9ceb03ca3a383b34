"""Commands in children of this process: ten times faster than new interpreters."""

import importlib
import io
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from dgm_bench import catalog, paths

for part in ("console", "cli.queries", "report.tables", "report.comparison"):
    importlib.import_module(f"dgm_bench.{part}")  # once, for all children

#: Standard output or error that is not read: closed, or a device that is always full.
CLOSED, FULL = "closed", "full"


@dataclass(frozen=True)
class Done:
    """What became of a command: its exit code, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def told(self) -> list[str]:
        """The lines on standard error."""
        return [line for line in self.err.splitlines() if line.strip()]


def command(*words, cwd, environment=None, out=None, err=None, seconds=60.0) -> Done:
    """Run a command as a new process would, and return what came of it.

    Args:
        words: What stands behind ``dgm-bench``; bytes that are not UTF-8 as surrogates.
        cwd: The current folder; None for one that is gone.
        environment: All variables that it has.
        out: None to read what it prints, or CLOSED or FULL.
        err: Likewise.
        seconds: After which it is killed; the code is then that of the signal.
    """
    catalog.load_catalog()
    reading, writing = zip(os.pipe(), os.pipe(), strict=True)
    began, child = time.monotonic(), os.fork()
    if child == 0:
        ends = [FULL if way == FULL else CLOSED if way == CLOSED else fd
                for way, fd in zip((out, err), writing, strict=True)]  # fmt: skip
        _become(words, cwd, environment or {}, ends)
    for end in writing:
        os.close(end)
    texts = _read(reading, began + seconds, child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Done(code, *texts, time.monotonic() - began)


def _read(ends, deadline, child):
    texts = dict.fromkeys(ends, b"")
    open_ends = set(ends)
    while open_ends:
        ready, _, _ = select.select(open_ends, [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        for end in ready:
            part = os.read(end, 2**16)
            texts[end] += part
            if not part:
                open_ends.discard(end)
    for end in ends:
        os.close(end)
    return [text.decode("utf-8", "surrogateescape") for text in texts.values()]


def _become(words, cwd, environment, ends):
    """Be the command, and leave as an interpreter does."""
    code = 1
    try:
        _enter(cwd, environment)
        for descriptor, end in zip((1, 2), ends, strict=True):
            _connect(descriptor, end)
        os.close(0)
        sys.argv = [str(paths.PACKAGE / "__main__.py"), *words]
        code = _called()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _enter(cwd, environment):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if cwd is None:
        gone = Path(environment["TMPDIR"], f"gone-{os.getpid()}")
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
    else:
        os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)


def _connect(descriptor, end):
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    stream = None
    if end == CLOSED:
        os.close(descriptor)
    else:
        os.dup2(os.open("/dev/full", os.O_WRONLY) if end == FULL else end, descriptor)
        stream = io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding)
    setattr(sys, "stdout" if descriptor == 1 else "stderr", stream)


def _called():
    from dgm_bench.cli import main

    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    try:
        sys.stdout.flush()
    except Exception:
        return 120  # as the interpreter does
    return code
