"""The folder of a run under way: its lock, its identity, and what became of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dgm_bench.errors import ResultsError
from dgm_bench.records import new_run_id, utc_now
from dgm_bench.sealed import write_atomically


@dataclass
class RunState:
    """What ``run.json`` says: the run's identity, kept over interruptions, and how it ended."""

    run_id: str
    created: str
    supersedes: str | None = None
    status: str | None = None
    record: str | None = None
    source_hash: str = ""


class WorkFolder:
    """``results/work/<recipe hash>-s<seed>/``: what a run needs to be continued.

    Args:
        results: The results folder.
        recipe_hash: Of the recipe that runs.
        seed: Of the run.
    """

    def __init__(self, results: Path, recipe_hash: str, seed: int) -> None:
        self.results = results
        self.path = results / "work" / f"{recipe_hash[:12]}-s{seed}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes when the process does, however it ends.

        Raises:
            ResultsError: When another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+")
        except OSError as error:
            remedy = "name a folder you may write with --results"
            raise ResultsError(
                self.path, f"cannot be written ({error.strerror})", remedy
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                reason = f"this run is under way in process {file.read().strip() or 'unknown'}"
                raise ResultsError(self.path, reason, "wait for it, or stop it first") from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def state(self) -> RunState | None:
        """Return what ``run.json`` says, or None where no run was started.

        Raises:
            ResultsError: When the file is damaged.
        """
        path = self.path / "run.json"
        if not path.exists():
            return None
        try:
            return RunState(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ResultsError(path, "is damaged", f"delete {self.path}") from error

    def begin(self, source_hash: str) -> RunState:
        """Return the state of the run to do now: the interrupted one's, or a new one's.

        A run that was out of budget continues from its checkpoint as a new run that supersedes the
        old record. After any other end, and when the code that decides its numbers has changed,
        it starts over: no number comes from two versions of the code.
        """
        old = self.state()
        status = old.status if old is not None and old.source_hash == source_hash else "other code"
        if old is not None and status is None:
            return old
        if status != "budget":
            self.clear()
        state = RunState(new_run_id(), utc_now(), source_hash=source_hash)
        if old is not None and old.status == "budget":
            state.supersedes = old.run_id
        self.save(state)
        return state

    def save(self, state: RunState) -> None:
        """Write ``run.json``."""
        write_atomically(self.path / "run.json", (json.dumps(asdict(state)) + "\n").encode())

    def stage(self, name: str) -> Path:
        """Return the folder of a stage's checkpoints."""
        return self.path / name

    def clear(self) -> None:
        """Remove checkpoints; the lock and ``run.json`` stay."""
        for child in self.path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
