"""What it costs that processes share a batch: steps of two against one, with the same batch.

python benchmarks/devices.py

On a machine with as many idle cores as processes the ratio is the gain. With fewer it is what
collectives, waiting and drawing all noise twice take.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

from dgm_bench.context import RunContext
from dgm_bench.data.dataset import Dataset
from dgm_bench.models.build import build
from dgm_bench.spec import DataSpec, ModelSpec, OptimizerSpec, Stage, StoppingSpec
from dgm_bench.train.loop import Trainer
from dgm_bench.train.split import Split
from dgm_bench.train.world import World

STEPS, ROUNDS, DIM = 10, 3, 64
MODELS = {
    "MAF (5 x 256), batch norm": ("maf:MAF", {"layers": 5, "hidden": [256]}, 256),
    "MAF (5 x 100), no statistics": (
        "maf:MAF",
        {"layers": 5, "hidden": [100], "batch_norm": False},
        512,
    ),
    "FFJORD, dopri5 by the adjoint": (
        "ffjord:FFJORD",
        {"hidden": [64], "rtol": 1e-2, "atol": 1e-2},
        128,
    ),
}


def main() -> None:
    """Print milliseconds of a step, and ratios."""
    print(f"{torch.get_num_threads()} threads of torch, {os.cpu_count()} cores")
    for name in MODELS:
        alone, both = (_measured(name, size) for size in (1, 2))
        print(f"{name}: {alone:.2f} ms alone, {both:.2f} ms by two: {alone / both:.2f} times")


def _measured(name: str, size: int) -> float:
    """Return the median milliseconds of a step by so many processes of one thread each."""
    spawn = multiprocessing.get_context("fork")
    reader, writer = spawn.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        work = [
            spawn.Process(target=_steps, args=(name, World(rank, size), meeting, writer))
            for rank in range(size)
        ]
        for process in work:
            process.start()
        found: float = reader.recv()
        for process in work:
            process.join()
    return found


def _steps(name: str, world: World, meeting: Path, writer: Connection) -> None:
    torch.set_num_threads(1)
    if world.size > 1:
        store = dist.FileStore(str(meeting), world.size)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=world.rank, world_size=world.size)
    trainer = _trainer(name, world)
    trainer.begin()
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        for _ in range(STEPS):
            trainer.step_on(trainer.next_batch())
            trainer.after_step()
        times.append((time.perf_counter() - started) / STEPS * 1000)
    if world.leads:
        writer.send(statistics.median(times[1:]))
    if world.size > 1:
        dist.barrier()


def _trainer(name: str, world: World) -> Trainer:
    model, args, batch = MODELS[name]
    torch.manual_seed(0)
    x = torch.randn(4 * batch, DIM)
    data = Dataset("noise", "1", {"train": x, "val": x[:10], "test": x[:10]})
    stage = Stage(
        data=DataSpec(name="noise"),
        model=ModelSpec(name=model, args=args),
        optimizer=OptimizerSpec(lr=1e-4),
        batch_size=batch,
        stopping=StoppingSpec(max_steps=10**6),
    )
    built = build(stage.model, (DIM,))
    context = RunContext(meeting := Path("none"), meeting, device="cpu")
    return Trainer(stage, built, data, context, seed=0, split=Split(world))


if __name__ == "__main__":
    main()
