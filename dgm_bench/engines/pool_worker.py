"""A process of the local pool: it does the jobs that come on standard input, one after the other.

Standard input ends with the command, however that ends. Imports no torch until it serves.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

from dgm_bench.engines.board import Board
from dgm_bench.engines.tasks import Job

#: What is answered when a job is over; what became of it is on its board.
OVER = b"."
_Given = tuple[Job, Board]


def serve() -> None:
    """Do jobs until standard input ends; one that is under way then saves and stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the command, which tells us
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is kept where warnings are
    jobs: SimpleQueue[_Given] = SimpleQueue()
    busy, lost = Event(), Event()
    Thread(target=_listen, args=(jobs, busy, lost), daemon=True).start()
    from dgm_bench.engines.worker import do  # while the first job may be on its way

    while True:
        busy.clear()
        if lost.is_set():
            return
        given = jobs.get()
        busy.set()
        do(*given, gone=lambda: "its command is gone" if lost.is_set() else None)
        if not lost.is_set():
            os.write(answers, OVER)


def _listen(jobs: SimpleQueue[_Given], busy: Event, lost: Event) -> None:
    """Take in jobs; at the end of standard input leave at once where there is nothing to save."""
    for line in _lines():
        fields = json.loads(line)
        jobs.put((Job.model_validate(fields["job"]), Board(Path(fields["board"]))))
    lost.set()
    if not busy.is_set():
        os._exit(0)


def _lines() -> Iterator[bytes]:
    """Yield the lines of standard input; not by its file, whose lock would hold up our end."""
    unread = b""
    while some := os.read(0, 65536):
        *lines, unread = (unread + some).split(b"\n")
        yield from lines
