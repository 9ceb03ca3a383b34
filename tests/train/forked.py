"""Several processes without several starts of torch: copies of this one, which meet by gloo."""

from __future__ import annotations

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dgm_bench.train.world import World

#: Seconds after which a process that does not answer has hung.
PATIENCE = 120


def in_processes(size: int, folder: Path, work: Callable[[World], Any]) -> list[Any]:
    """Return what ``work`` returns in each of ``size`` processes, or raise what the first raises.

    A process that ends without a word counts as None.
    """
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(size)]
    processes = [
        fork.Process(target=_work, args=(World(rank, size), folder, work, writer))
        for rank, (_, writer) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, writer in pipes:
        writer.close()
    answers = [_answer(reader) for reader, _ in pipes]
    for process in processes:
        process.kill() if "hung" in answers else None
        process.join()
    failed = [answer for answer in answers if isinstance(answer, str)]
    assert not failed, failed[0]
    return [answer[0] if answer else None for answer in answers]


def _answer(reader: Any) -> Any:
    try:
        return pickle.loads(reader.recv_bytes()) if reader.poll(PATIENCE) else "hung"
    except EOFError:
        return ()


def _work(world: World, folder: Path, work: Callable[[World], Any], writer: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"meeting-of-{world.size}"), world.size)
    dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)
    try:
        answer = (work(world),)
    except BaseException:
        answer = traceback.format_exc()
    writer.send_bytes(pickle.dumps(answer))
    writer.close()
    if isinstance(answer, tuple):  # the others may still want to hear of this one
        dist.barrier()
