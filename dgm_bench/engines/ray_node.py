"""What a node of a Ray cluster does with a job: in a folder of its own, as one process does.

Once a second what changed in the folder is sent to the head, which answers whether to stop.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from dgm_bench import __version__, provenance
from dgm_bench.control import every
from dgm_bench.engines.board import ENDED, Board, TaskState, submissions_folder
from dgm_bench.engines.datasets import root_with
from dgm_bench.engines.files import Change, Changes, Content, Outgoing, Storage, take_in
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import ResultsError
from dgm_bench.paths import PACKAGE, SCRATCH
from dgm_bench.processes import is_gone, own_mark

#: Seconds between two looks at what changed.
PAUSE = 1.0
#: Seconds that nothing can be sent before the run saves and leaves.
PATIENCE = 60.0
#: Between two questions for a file.
_PAUSE = 0.2
_BOARDS = "work/submissions/"
_PREFIX = "dgm-bench-run-"
#: Takes in what changed and says whether to stop.
Tell = Callable[[Changes], bool]


@dataclass(frozen=True)
class Order:
    """A job, and all that a node has to know besides.

    Attributes:
        job: Its paths are the head's.
        submission: The id of its board.
        version: Of the head's package; ``source_hash`` is that of what decides its numbers.
        command: The head's, which the record names.
        environment: The head's own settings.
        data: SHA-256 of the files that it reads, by place below the data root.
        storage: Where work folders are kept; None for the head's results folder.
        scratch: Where a node works; None for its folder of temporary files.
    """

    job: Job
    submission: str
    version: str
    source_hash: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    data: Mapping[str, str]
    storage: str | None = None
    scratch: Path | None = None


class NodeError(Exception):
    """A fault of the node, not of the run: the job is better tried on another.

    Args:
        reason: In one line.
        node: Ray's id of the node.
    """

    def __init__(self, reason: str, node: str) -> None:
        self.reason, self.node = reason, node
        super().__init__(reason, node)


def work(order: Order, inbox: Any, needed: Changes) -> None:  # noqa: ANN401  an actor of Ray
    """Do a job as a task of Ray.

    Args:
        order: The job.
        inbox: The head's actor (:class:`dgm_bench.engines.ray_driver.Inbox`).
        needed: Files to begin with.

    Raises:
        NodeError: This node cannot do it.
    """
    import ray

    task_id, attempt = order.job.task.id, order.job.attempt

    def tell(changes: Changes) -> bool:
        return bool(ray.get(inbox.tell.remote(task_id, attempt, changes)))

    def take(place: str) -> bytes:
        while not (found := ray.get(inbox.file.remote(place))):
            time.sleep(_PAUSE)
        content: bytes = ray.get(found[0])
        return content

    try:
        do_here(order, needed, tell, take)
    except ResultsError as error:
        reason = f"on {platform.node()}: {error}"
        raise NodeError(reason, ray.get_runtime_context().get_node_id()) from None


def do_here(order: Order, needed: Changes, tell: Tell, take: Callable[[str], bytes]) -> None:
    """Do a job in a folder of this node, which is removed at the end.

    Args:
        order: The job.
        needed: Files to begin with.
        tell: Takes in what changed, and says whether to stop.
        take: Returns the bytes of a file of the data root.

    Raises:
        ResultsError: This node has other code, or its folder cannot be written.
    """
    _require_same_code(order)
    os.environ.update(order.environment)
    os.environ.pop(SCRATCH, None)  # all that a node writes is on its scratch
    sys.argv[:] = order.command
    with _scratch(order.scratch) as results:
        storage = Storage(order.storage) if order.storage is not None else None
        take_in(results, needed)
        take_in(results, kept := storage.needed_by(order.job.task) if storage is not None else {})
        board = Board(submissions_folder(results) / order.submission)
        sender = _Sender(order, results, tell, storage, [*needed, *kept])
        state = _do(order, results, board, sender, take)
        if state.fault is not None and state.fault.kind == ResultsError.__name__:
            raise ResultsError(state.fault.thing, state.fault.reason, state.fault.remedy)
        sender.send(ended=True)


def _do(
    order: Order, results: Path, board: Board, sender: _Sender, take: Callable[[str], bytes]
) -> TaskState:
    from dgm_bench.engines.worker import do  # which starts torch

    terms = order.job.terms
    root = root_with(order.data, terms.data_root, take)
    own = terms.model_copy(update={"results": results, "data_root": root})
    job = order.job.model_copy(update={"terms": own})
    with _sending(sender, board):
        return do(job, board, gone=lambda: sender.trouble)


def _require_same_code(order: Order) -> None:
    """Refuse to make numbers by another code than the head's."""
    if (__version__, provenance.source_hash(PACKAGE)) != (order.version, order.source_hash):
        reason = f"its code is not that of the command ({__version__} in {PACKAGE})"
        remedy = "install the same there, or add --engine-option ship=true"
        raise ResultsError("dgm-bench", reason, remedy)


@contextmanager
def _scratch(home: Path | None) -> Iterator[Path]:
    """Make a results folder; folders that killed processes of this node have left are removed."""
    parent = home or Path(tempfile.gettempdir())
    for old in parent.glob(f"{_PREFIX}*"):
        if is_gone(old.name.removeprefix(_PREFIX).rpartition(".")[0]):
            shutil.rmtree(old, ignore_errors=True)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{own_mark()}.", dir=parent))
    except OSError as error:
        raise ResultsError(parent, f"cannot be written ({error.strerror})", "free it") from error
    try:
        yield folder / "results"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------ what changed


class _Sender:
    """Sends what changed in the node's results folder.

    Attributes:
        trouble: Why nothing can be sent any more; None while all is well.
    """

    def __init__(
        self,
        order: Order,
        results: Path,
        tell: Tell,
        storage: Storage | None,
        there: list[str],
    ) -> None:
        self.task_id, self.head = order.job.task.id, order.job.terms.results
        self.results, self.tell, self.storage = results, tell, storage
        self.trouble: str | None = None
        self._outgoing, self._lock = Outgoing(results, there), Lock()

    def send(self, ended: bool = False) -> bool:
        """Send what changed; say whether to stop.

        Args:
            ended: Whether the job is over: how it ended is not told before all is there.

        Raises:
            ResultsError: The storage cannot be written.
        """
        with self._lock:
            changes, marks = self._outgoing.look()
            for place in [p for p in changes if p.startswith(_BOARDS)]:
                if not self._may_tell(place, changes[place], ended):
                    del changes[place], marks[place]
            # The head first: what its record ends may be removed from the storage.
            stop = self.tell(dict(self._for_head(changes)))
            if self.storage is not None:
                kept = {p: c for p, c in changes.items() if _is_work(p)}
                self.storage.take_in(kept)
            self._outgoing.note(marks)
            return stop

    def _may_tell(self, place: str, change: Change, ended: bool) -> bool:
        if not isinstance(change, Content) or not place.endswith(f"/tasks/{self.task_id}.json"):
            return False
        return ended or TaskState.model_validate_json(change.content).state not in ENDED

    def _for_head(self, changes: Changes) -> Iterator[tuple[str, Change]]:
        """Yield what the head gets: with a storage, of work folders only how their runs are."""
        for place, change in changes.items():
            if place.startswith(_BOARDS) and isinstance(change, Content):
                here, there = str(self.results).encode(), str(self.head).encode()
                yield place, Content.of(change.content.replace(here, there))
            elif self.storage is None or not _is_work(place) or place.endswith("/run.json"):
                yield place, change


def _is_work(place: str) -> bool:
    return place.startswith("work/") and not place.startswith(_BOARDS)


@contextmanager
def _sending(sender: _Sender, board: Board) -> Iterator[None]:
    """Send every second what changed, and pass on requests to stop, until the block ends."""
    sent = time.monotonic()

    def look() -> None:
        nonlocal sent
        try:
            if sender.send():
                board.request_cancel((sender.task_id,))
            sent = time.monotonic()
        except Exception as error:  # of Ray, or of a storage
            if time.monotonic() > sent + PATIENCE:
                sender.trouble = f"nothing can be sent ({type(error).__name__}: {error})"

    with every(PAUSE, look):
        yield
