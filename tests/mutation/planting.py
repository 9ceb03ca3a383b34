"""Plants one defect at a time in a copy of the tree, and sees whether the tests notice.

Each test run is a process forked from one that has the libraries imported already, but nothing of
the package. A run may use a bounded time of the processor, so that an endless loop ends and a busy
machine changes nothing.
"""

from __future__ import annotations

import importlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEAREST = Path(__file__).parent / "nearest.toml"
#: What a test needs of the tree.
PARTS = ("dgm_bench", "reproductions", "results", "tests", "pyproject.toml", "tox.ini")
#: Imported once, before the forks.
LIBRARIES = ("pytest", "torch", "scipy.stats", "pandas", "pydantic", "jaxtyping", "beartype")
#: Seconds of processor, and of a busy day, that one test run may take.
CPU_SECONDS, WALL_SECONDS = 240, 1_200
#: Pytest's status where no test was chosen.
NO_TESTS = 5


@dataclass(frozen=True)
class Change:
    """A defect: in which file of the package which text becomes which.

    Attributes:
        file: Below ``dgm_bench``.
        text: Occurs exactly once in the file.
        becomes: What takes its place.
        why: What is wrong with it then.
        tests: The tests nearest to it, as pytest takes them.
    """

    file: str
    text: str
    becomes: str
    why: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """Of one test run: whether it failed, and the first test that did."""

    failed: bool
    by: str = ""


class Copy:
    """A copy of the tree below a folder, in which defects are planted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stamp = folder, 10**9
        ignore = shutil.ignore_patterns("__pycache__", "work", "artifacts", "mlflow*")
        for part in PARTS:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copy2(source, target)

    @contextmanager
    def planted(self, file: str, source: str) -> Iterator[None]:
        """Let a file of the package have other source until the block ends."""
        path = self.folder / "dgm_bench" / file
        before, times = path.read_text(), path.stat()
        path.write_text(source)
        # Two versions of one size within a second would share their compiled form.
        self.stamp += 10
        os.utime(path, (self.stamp, self.stamp))
        try:
            yield
        finally:
            path.write_text(before)
            os.utime(path, (times.st_atime, times.st_mtime))

    def run_with(self, file: str, source: str, tests: Sequence[str]) -> Outcome:
        """Run tests with other source of a file."""
        with self.planted(file, source):
            return self.run(tests)

    def source(self, file: str) -> str:
        """Return the source of a file of the package."""
        return (self.folder / "dgm_bench" / file).read_text()

    def run(self, tests: Sequence[str]) -> Outcome:
        """Run tests until the first one fails."""
        with tempfile.NamedTemporaryFile("r", suffix=".txt") as said:
            child = get_context("fork").Process(
                target=_run_tests, args=(self.folder, tuple(tests), said.name)
            )
            child.start()
            child.join(WALL_SECONDS)
            if child.is_alive():
                os.killpg(child.pid or 0, signal.SIGKILL)
                child.join()
            return _outcome(child.exitcode, said.read())


@contextmanager
def copied_tree() -> Iterator[Copy]:
    """Return a copy of the tree, which is deleted when the block ends."""
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="dgm-bench-mutation-") as folder:
        yield Copy(Path(folder))


def nearest_tests() -> dict[str, list[str]]:
    """Return the tests nearest to each file, by ``nearest.toml``."""
    files: dict[str, list[str]] = tomllib.loads(NEAREST.read_text())["files"]
    return files


def import_libraries() -> None:
    """Import what all test runs share; the package itself must not be among it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    if any(name.partition(".")[0] == "dgm_bench" for name in sys.modules):
        raise SystemExit("the package is imported already: its copies would not be tested")


def applied(change: Change, source: str) -> str:
    """Return a file's source with the defect.

    Raises:
        SystemExit: The text does not occur exactly once, or nothing changes.
    """
    if source.count(change.text) != 1 or change.text == change.becomes:
        reason = f"occurs {source.count(change.text)} times, not once: {change.text!r}"
        raise SystemExit(f"{change.file}: {reason}; bring tests/mutation/defects up to date")
    return source.replace(change.text, change.becomes)


def require_sound(copy: Copy, tests: Iterable[str]) -> None:
    """Run tests that caught something on the tree as it is: there they must pass.

    Raises:
        SystemExit: One fails, so that nothing can be said of defects.
    """
    named = sorted({test for test in tests if "::" in test})
    outcome = copy.run(named) if named else Outcome(False)
    if outcome.failed:
        raise SystemExit(f"without any defect {outcome.by or 'a test'} fails; mend that first")


def _run_tests(folder: Path, tests: tuple[str, ...], said: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    os.setsid()
    os.chdir(folder)
    # Without the checks of shapes: half the time, and what only they would catch shows.
    os.environ.update(PYTHONPATH=str(folder), DGM_BENCH_UNCHECKED="1")
    sys.path[:] = [str(folder), *(entry for entry in sys.path if not _of_tree(entry))]
    stream = os.open(said, os.O_WRONLY)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:xdist"]
    # Without the ordinary end of a process: torch's would wait for threads that the fork lost.
    code = int(pytest.main([*options, *tests]))
    sys.stdout.flush()
    os._exit(code)


def _of_tree(entry: str) -> bool:
    return (
        not entry
        or Path(entry).resolve().is_relative_to(ROOT / "tests")
        or (Path(entry).resolve() == ROOT)
    )


def _outcome(code: int | None, said: str) -> Outcome:
    if code is None or code < 0:
        return Outcome(True, f"signal {-(code or 0)}: it takes too long")
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", said, re.MULTILINE)
    if code == NO_TESTS or (code > 1 and found is None):
        raise SystemExit(f"pytest ended with status {code}:\n{said[-2000:]}")
    return Outcome(code != 0, found[1] if found else "")
