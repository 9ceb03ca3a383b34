"""Time and memory of the verbs that read records, with few records and with many.

``python benchmarks/scale.py`` makes results folders of 272 to 20,000 records: those in ``results``,
and copies of them with other seeds, identifiers, dates and values. It runs each verb on each, in a
process of its own: cold, with nothing in the user's cache, and warm, again. It prints processor
seconds, seconds, and megabytes at most, and takes about ten minutes on two idle cores, most of it
for making records and drawing figures. ``merge`` is into an empty folder, then into the same again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from dgm_bench.paths import own_results, stored_results
from dgm_bench.records import Metric, RunRecord, write_record
from dgm_bench.store import Store
from dgm_bench.tracking.runs import LOGGED_TAG, RUN_ID_TAG

SIZES = (272, 1000, 5000, 20000)
#: Relative size of the change of a copied value.
JITTER = 1e-3
#: Between the seeds of a record and of its next copy.
SEEDS_APART = 100
#: What each verb is asked; ``sync`` has nothing to send, so that what it takes is its own share.
VERBS: dict[str, tuple[str, ...]] = {
    "list": ("list", "--results", "{new}"),
    "table": ("table", "ffjord/density", "--results", "{new}"),
    "plan": ("plan", "--results", "{new}"),
    "compare": ("compare", "{new}", "{old}"),
    "report": ("report", "-o", "{page}", "--results", "{new}"),
    "sync": ("sync", "--results", "{new}"),
    "merge": ("merge", "{new}", "--results", "{into}"),
}


class Taken(NamedTuple):
    """What a process took: processor seconds, seconds, and megabytes at most."""

    cpu: float
    wall: float
    peak: float


# --------------------------------------------------------------------------- records


def make_results(folder: Path, count: int, variant: int = 0) -> None:
    """Write ``count`` valid records with their curves: the stored ones, then copies of them.

    Args:
        folder: The results folder.
        count: How many.
        variant: Of another variant, all values are others.
    """
    store = Store(stored_results() or own_results())
    stored = store.records()
    with _without_waiting_for_the_disk():
        for place in range(count):
            origin, copy = stored[place % len(stored)], place // len(stored)
            record = _copied(origin, place, copy, variant) if copy or variant else origin
            path = write_record(record, folder)
            if record.curve is not None:
                path.with_name(record.curve).write_bytes(store.curve_content(origin))


def _copied(origin: RunRecord, place: int, copy: int, variant: int) -> RunRecord:
    """Return a record of another seed, with other values, made later."""
    chance = random.Random(2 * place + variant)
    made = datetime(2026, 12, 1, tzinfo=UTC) + timedelta(seconds=place)
    run_id = f"{made:%Y%m%dt%H%M%S}-{place:05x}{variant}"
    changes = {
        "run_id": run_id,
        "created": f"{made:%Y-%m-%dT%H:%M:%SZ}",
        "seed": origin.seed + SEEDS_APART * copy,
        "supersedes": None,
        "metrics": tuple(_moved(metric, chance) for metric in origin.metrics),
        "curve": None if origin.curve is None else f"{run_id}.csv",
    }
    return origin.model_copy(update=changes)


def _moved(metric: Metric, chance: random.Random) -> Metric:
    value = metric.value and metric.value * (1 + JITTER * chance.gauss(0, 1))
    return metric.model_copy(update={"value": value})


@contextmanager
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Leave out the flush to the disk after each file: 20,000 of them take minutes."""
    flush, os.fsync = os.fsync, lambda file: None
    try:
        yield
    finally:
        os.fsync = flush


# --------------------------------------------------------------------------- MLflow


class AllThere(BaseHTTPRequestHandler):
    """An MLflow server that has every run already, in full: what it takes is left out of a sync."""

    runs: Sequence[str] = ()
    page = 200

    def do_GET(self) -> None:
        """Answer with an experiment."""
        name = parse_qs(urlsplit(self.path).query).get("experiment_name", ["x"])[0]
        found = {"experiment_id": name, "name": name, "lifecycle_stage": "active"}
        self._answer({"experiment": found, "experiments": []})

    def do_POST(self) -> None:
        """Answer with a page of the runs."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        start, (experiment,) = int(asked.get("page_token") or 0), asked["experiment_ids"]
        mine = [run for name, run in self.runs if name == experiment]
        end = start + self.page
        more = {"next_page_token": str(end)} if end < len(mine) else {}
        self._answer({"runs": [self._run(run) for run in mine[start:end]], **more})

    def _run(self, run: str) -> dict[str, Any]:
        tags = [{"key": RUN_ID_TAG, "value": run}, {"key": LOGGED_TAG, "value": "1"}]
        info = {"run_id": run, "run_uuid": run, "experiment_id": "0", "status": "FINISHED"}
        return {"info": info, "data": {"tags": tags}}

    def _answer(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def serving(results: Path) -> Iterator[str]:
    """Serve the runs of a results folder, and give the address."""
    files = (results / "runs").glob("*/*/*/*/*.json")
    runs = [("/".join(file.relative_to(results / "runs").parts[:2]), file.stem) for file in files]
    handler = type("Handler", (AllThere,), {"runs": runs})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# --------------------------------------------------------------------------- measuring


def measured(words: Sequence[str], environment: dict[str, str]) -> Taken:
    """Run a command with its children, and return what it took.

    Raises:
        SystemExit: It failed.
    """
    with open(os.devnull, "wb") as nothing, tempfile.TemporaryFile() as said:
        before, start = os.times(), time.monotonic()
        files = [
            (os.POSIX_SPAWN_DUP2, nothing.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, said.fileno(), 2),
        ]
        command = [sys.executable, "-m", "dgm_bench", *words]
        process = os.posix_spawn(command[0], command, environment, file_actions=files)
        _, status, usage = os.wait4(process, 0)
        wall, after = time.monotonic() - start, os.times()
        said.seek(0)
        if os.waitstatus_to_exitcode(status) not in (0, 1, 3):
            raise SystemExit(f"{' '.join(command)}: {said.read().decode()}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Taken(cpu, wall, usage.ru_maxrss / 1024)


def rows(sizes: Sequence[int], verbs: Sequence[str], folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield verb, number of records, and what was measured cold and warm."""
    for size in sizes:
        new, old = folder / f"new-{size}", folder / f"old-{size}"
        make_results(new, size)
        if "compare" in verbs:
            make_results(old, size, variant=1)
        time.sleep(3)  # the index takes no file that was written within two seconds
        with serving(new) as address:
            others = {"page": "report.html", "into": f"into-{size}"}
            names = {name: str(folder / file) for name, file in others.items()}
            names |= {"new": str(new), "old": str(old)}
            environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
            environment |= {"MLFLOW_TRACKING_URI": address, "OMP_NUM_THREADS": "1"}
            environment["DGM_BENCH_STORED"] = "none"
            for verb in verbs:
                words = [word.format(**names) for word in VERBS[verb]]
                shutil.rmtree(folder / "cache", ignore_errors=True)
                cold, warm = (measured(words, environment) for _ in range(2))
                yield verb, f"{size:,}", *_shown(cold), *_shown(warm)
        for results in (new, old, folder / f"into-{size}"):
            shutil.rmtree(results, ignore_errors=True)


def _shown(taken: Taken) -> tuple[str, str, str]:
    return f"{taken.cpu:.2f}", f"{taken.wall:.2f}", f"{taken.peak:.0f}"


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    """Print the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=_numbers(int), default=SIZES, help="as 272,1000")
    parser.add_argument("--verbs", type=_numbers(str), default=tuple(VERBS), help="as list,table")
    asked = parser.parse_args()
    print("| verb | records | cold: CPU s | s | MB | warm: CPU s | s | MB |")
    print("| --- " * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(asked.sizes, asked.verbs, Path(folder)):
            print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
