"""What the command line loads and reads before it answers: modules, and records of a folder.

Each command runs in a process of its own, with an empty cache, then again with what that kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from dgm_bench.errors import UnexpectedError, UsageError
from dgm_bench.paths import PACKAGE, STORED

#: How many records ``list`` is given: more than are read without an index.
MANY = 250
#: And the other verbs.
FEW = 8
#: Seconds after which a file is old enough for what is kept of it.
SETTLED = 3.0
#: How names of our own modules begin.
OWN = ("dgm_bench", "reproductions")
#: Runs a command, and writes on file descriptor 3 what it imported and which records it opened.
_CHILD = """
import sys
before, folder, opened = set(sys.modules), sys.argv.pop(1), []
def heard(event, args):
    if event == "open" and str(args[0]).startswith(folder) and str(args[0]).endswith(".json"):
        opened.append(args[0])
sys.addaudithook(heard)
code = 0
try:
    if sys.argv[1:]:
        from dgm_bench.cli import main
        main()
    else:
        import dgm_bench
except SystemExit as end:
    code = end.code
modules = sorted(set(sys.modules) - before)
import json, os
os.write(int(os.environ["PERF_TELL"]), json.dumps([modules, len(opened), code]).encode())
"""
Counters = dict[str, int]


def startup_counters() -> dict[str, Counters]:
    """Return what each command imports, and how many records it opens.

    Raises:
        UsageError: There are no stored records to read.
        UnexpectedError: A command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, few = (_linked(folder / str(count), count) for count in (MANY, FEW))
        _wait_until_old()
        commands: dict[str, tuple[Path, Sequence[str]]] = {
            "import": (many, ()),
            "list-cold": (many, ("list", "--results", str(many))),
            "list": (many, ("list", "--results", str(many))),
            "plan": (few, ("plan", "ffjord/density/*", "--results", str(few))),
            "table": (few, ("table", "ffjord/density", "--results", str(few))),
            "compare": (few, ("compare", str(few), str(few))),
        }
        return {
            command: _counted(words, results, folder)
            for command, (results, words) in commands.items()
        }


def _linked(folder: Path, count: int) -> Path:
    """Return a results folder that holds links to stored records, always the same number."""
    stored = PACKAGE.parent / "results/runs"
    found = list(islice(sorted(stored.rglob("*.json")), count))
    if len(found) < count:
        reason = f"holds {len(found)} records, and {count} are read"
        raise UsageError(stored, reason, "run it in a checkout of the repository")
    for path in found:
        link = folder / "runs" / path.relative_to(stored)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return folder


def _wait_until_old() -> None:
    """Wait until no file is too new for a command to keep what it made of it."""
    root = PACKAGE.parent
    folders = (PACKAGE, root / "reproductions", root / "results/runs")
    files = [file for folder in folders for file in folder.rglob("*.*") if file.suffix != ".pyc"]
    newest = max(file.stat().st_ctime for file in files)
    time.sleep(min(max(newest + SETTLED - time.time(), 0.0), SETTLED))


def _counted(words: Sequence[str], results: Path, folder: Path) -> Counters:
    modules, opened, code = _told(words, results, _environment(folder))
    if code not in (0, None):
        raise UnexpectedError(f"dgm-bench {' '.join(words)}", f"ends with {code}", "try it by hand")
    counters = {"modules": len(modules), **_sorted_out(modules)}
    return counters | ({"records_read": opened} if words else {})


def _sorted_out(modules: Iterable[str]) -> Counters:
    """Return how many modules are ours, and how many packages of others there are."""
    own = [name for name in modules if name.partition(".")[0].startswith(OWN)]
    foreign = {name.partition(".")[0] for name in set(modules) - set(own)}
    packages = {name for name in foreign - sys.stdlib_module_names if not name.startswith("_")}
    return {"own_modules": len(own), "packages": len(packages)}


def _environment(folder: Path) -> Mapping[str, str]:
    """Return a user's variables, with a cache, a home and data of their own."""
    own = {name: str(folder / name) for name in ("XDG_CACHE_HOME", "DGM_BENCH_DATA")}
    tree = str(PACKAGE.parent)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DGM_BENCH_")}
    return kept | own | {STORED: "none", "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"}


def _told(
    words: Sequence[str], results: Path, environment: Mapping[str, str]
) -> tuple[list[str], int, int | None]:
    """Return modules, number of records and exit code of a command."""
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-c", _CHILD, str(results), *words]
    done = subprocess.Popen(
        command,
        env={**environment, "PERF_TELL": str(writer)},
        pass_fds=(writer,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, errors = done.communicate()
    if not said:
        raise UnexpectedError(f"dgm-bench {' '.join(words)}", errors.strip()[-500:] or "died")
    modules, opened, code = json.loads(said)
    return modules, opened, code
