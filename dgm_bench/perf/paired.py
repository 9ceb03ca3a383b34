"""Tier 1: the working tree against a base, in pairs of processes whose calls alternate."""

from __future__ import annotations

import random
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from dgm_bench.errors import UsageError
from dgm_bench.paths import PACKAGE, checkout_root
from dgm_bench.perf.cases import CASES
from dgm_bench.perf.judgement import MOST_PAIRS, PAIRS, Judgement, judge
from dgm_bench.perf.pairs import PairResult, Side, measure_pair, worker_command

#: Where a merge base is looked for when no base is named.
TRUNKS = ("origin/main", "main")


@dataclass
class CaseResult:
    """What the pairs of processes found of a case so far."""

    name: str
    pairs: list[PairResult] = field(default_factory=list)

    @property
    def lacks(self) -> str:
        """Why it cannot be compared; empty where it can."""
        return next((pair.lacks for pair in self.pairs if pair.lacks), "")

    @property
    def judgement(self) -> Judgement:
        """The judgement on it."""
        return judge([pair.log_ratio for pair in self.pairs])

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of a call, of base and head."""
        return median(p.seconds[0] for p in self.pairs), median(p.seconds[1] for p in self.pairs)

    @property
    def open(self) -> bool:
        """Whether more pairs may decide it."""
        return not self.lacks and self.judgement.state == "perhaps slower"


def compare_sides(
    base: Side,
    head: Side,
    cases: Sequence[str],
    progress: Callable[[str], None] = lambda text: None,
) -> list[CaseResult]:
    """Time cases on both sides, with further pairs of processes for what is perhaps slower.

    Args:
        base: The state to compare with.
        head: The state that is judged.
        cases: Names of cases.
        progress: Is told what is done.

    Raises:
        UnexpectedError: A side's process ended.
    """
    chance = random.Random()
    results = {case: CaseResult(case) for case in cases}
    for number in range(1, MOST_PAIRS + 1):
        due = [name for name, found in results.items() if number <= PAIRS or found.open]
        due = [name for name in due if not results[name].lacks]
        if due:
            progress(f"pair {number} of processes: {', '.join(due)}")
            _add(results, measure_pair(base, head, due, chance))
    return list(results.values())


def _add(results: Mapping[str, CaseResult], found: Mapping[str, PairResult]) -> None:
    for name, pair in found.items():
        results[name].pairs.append(pair)


def timed_cases() -> list[str]:
    """Return the names of the cases that are timed."""
    return [name for name, case in CASES.items() if case.timed]


# --------------------------------------------------------------------------- the two sides


@contextmanager
def sides(revision: str | None, device: str) -> Iterator[tuple[Side, Side]]:
    """Give base and head: the files of a revision in a temporary folder, and the working tree.

    Args:
        revision: Of the base; None for where the work left the main branch.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: There is no such revision, or this is no checkout.
    """
    root = _root()
    commit = _git(root, "rev-parse", "--verify", f"{revision or _default_base(root)}^{{commit}}")
    command = worker_command(device)
    with tempfile.TemporaryDirectory(prefix="dgm-bench-base-") as folder:
        _extract(root, commit, Path(folder))
        yield Side(commit[:10], Path(folder), command), Side("head", PACKAGE.parent, command)


def _root() -> Path:
    root = checkout_root()
    if root is None:
        raise UsageError("dgm_bench", "is not in a checkout, which has a base", "clone it")
    return root


def _default_base(root: Path) -> str:
    """Return where the work left the main branch; of a main branch without changes, its parent."""
    known = [name for name in TRUNKS if _exists(root, name)]
    if not known:
        raise UsageError("--base", f"there is neither {' nor '.join(TRUNKS)}", "name a revision")
    base = _git(root, "merge-base", "HEAD", known[0])
    changed = _git(root, "status", "--porcelain", "--", "dgm_bench")
    return "HEAD~1" if base == _git(root, "rev-parse", "HEAD") and not changed else base


def _exists(root: Path, name: str) -> bool:
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or "fails"
        remedy = "name a revision that is here; a shallow clone lacks most: git fetch --unshallow"
        raise UsageError(f"git {' '.join(words)}", reason, remedy)
    return done.stdout.strip()


def _extract(root: Path, commit: str, folder: Path) -> None:
    """Lay out the package as it was at a commit."""
    archive = folder / "base.tar"
    _git(root, "archive", f"--output={archive}", commit, "dgm_bench")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()


# --------------------------------------------------------------------------- the table

HEAD_LINE = ("case", "base", "head", "change", "at least", "at most", "pairs", "")


def table(results: Iterable[CaseResult]) -> list[tuple[str, ...]]:
    """Return the rows of the table that is printed, the heading first."""
    return [HEAD_LINE, *map(_row, results)]


def _row(result: CaseResult) -> tuple[str, ...]:
    if result.lacks:
        return (result.name, "-", "-", "-", "-", "-", "-", f"not compared: {result.lacks}")
    found, (base, head) = result.judgement, result.seconds
    percents = (f"{100 * x:+.1f} %" for x in (found.change, found.lower, found.upper))
    times = (f"{1e3 * base:.2f} ms", f"{1e3 * head:.2f} ms")
    return (result.name, *times, *percents, str(found.pairs), found.state)
