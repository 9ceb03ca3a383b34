"""Several processes for one run: how they are started, and how the others follow the first.

The first process runs the command. The others wait for its orders: a recipe to be trained in step
with it, then parts of its evaluation. They are started here, one for each device of this machine,
or by torchrun, Slurm's srun or Ray Train, which say so in the environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Num
from torch import Tensor, nn

from dgm_bench import data as datasets
from dgm_bench.context import RunContext
from dgm_bench.control import Interrupted
from dgm_bench.errors import LostProcessError, RunFailure, UsageError
from dgm_bench.metrics.evaluate import prepare
from dgm_bench.models.codes.two_stage import compose
from dgm_bench.models.whole_batch import Slice, divided, rows_of
from dgm_bench.spec import Recipe
from dgm_bench.staged_training import StagedTraining
from dgm_bench.train.memory import failures
from dgm_bench.train.split import WHOLE, Split
from dgm_bench.train.world import World

#: Longer than any wait for the first process: whether it is gone, a broken connection says.
PATIENCE = timedelta(days=20)
#: Seconds in which processes end after the last order, or come back after a run that failed.
LEAVE = 20.0
_FOLLOWER = "import sys; from dgm_bench.team import main; main(*sys.argv[1:])"


@dataclass(frozen=True)
class Order:
    """What the others are to train: a recipe as JSON, and the seed."""

    recipe: str
    seed: int


@dataclass(frozen=True)
class Call:
    """What they are to compute in an evaluation: slices of what a method gives examples."""

    method: str
    x: Num[Tensor, "n *event"]
    noise: Tensor | None


@dataclass
class Team:
    """The processes of a run, as the first one sees them.

    Attributes:
        split: How batches are divided among them.
        processes: Those that this one has started.
        runs: How many runs they were ordered to train.
        lost: Whether they may be where nobody knows.
        patience: Seconds to notice that one has gone; see :func:`watch`.
    """

    split: Split = WHOLE
    processes: Sequence[subprocess.Popen[bytes]] = ()
    runs: int = 0
    lost: bool = False
    patience: float = 10.0

    @contextmanager
    def training(self, recipe: Recipe, seed: int) -> Iterator[None]:
        """Let the others train with this process, within the block.

        Raises:
            LostProcessError: A process has gone.
        """
        if self.split.world.size == 1:
            yield
            return
        self.split.world.share(Order(recipe.model_dump_json(), seed))
        self.runs, self.lost = self.runs + 1, True
        try:
            yield
        except (Interrupted, RunFailure):
            self._wait_for_the_others()
            raise
        self.lost = False

    def _wait_for_the_others(self) -> None:
        """See whether they stopped for the same reason: then they wait for orders again."""
        store = _store()
        keys = [f"back/{self.runs}/{rank}" for rank in range(1, self.split.world.size)]
        with suppress(RuntimeError):  # they are elsewhere: see :meth:`end`
            store.wait(keys, timedelta(seconds=LEAVE))
            self.lost = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let the others compute slices of what is evaluated, within the block."""
        if self.split.world.size == 1 or self.lost:
            yield
            return
        self.lost = True
        try:
            with divided(_Leading(self.split.world)):
                yield
        except RunFailure:
            self._dismiss()
            raise
        self._dismiss()

    def _dismiss(self) -> None:
        self.split.world.share(None)
        self.lost = False

    def end(self) -> None:
        """Let the others end; those that do not are ended."""
        if self.split.world.size == 1:
            return
        if not self.lost:
            with suppress(LostProcessError):
                self.split.world.share(None)
        deadline = time.monotonic() + (0.0 if self.lost else LEAVE)
        for process in self.processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        dist.destroy_process_group()


#: No other processes.
ALONE = Team()


@dataclass(frozen=True)
class _Leading:
    """Divides what is evaluated, and says what it is."""

    world: World

    def slice_of(self, total: int) -> Slice | None:
        return self.world.slice_of(total)

    def gathered(self, rows: Num[Tensor, "n *rest"]) -> list[Num[Tensor, "_n *rest"]]:
        return self.world.gathered(rows)

    def call(self, method: str, x: Num[Tensor, "n *event"], noise: torch.Generator | None) -> None:
        state = None if noise is None else noise.get_state()
        self.world.share(Call(method, x.cpu(), state))


# ----------------------------------------------------------------------------- the others


def follow(world: World, context: RunContext, device: torch.device) -> None:
    """Do what the first process orders, until it has no more orders.

    Raises:
        LostProcessError: A process has gone.
        DgmBenchError: Data are not here, or the like.
    """
    split, runs = Split(world, context.accumulate), 0
    while isinstance(order := world.share(None), Order):
        runs += 1
        try:
            _follow_run(order, split, context, device)
        except (Interrupted, RunFailure):
            _store().set(f"back/{runs}/{world.rank}", "here")


def _follow_run(order: Order, split: Split, context: RunContext, device: torch.device) -> None:
    recipe = Recipe.model_validate_json(order.recipe)
    spec = recipe.stages[0].data
    data = datasets.load(
        spec.name, context.data_root, args=spec.args, seed=order.seed, offline=context.offline
    )
    training = StagedTraining(recipe, order.seed, data, device, context, None, split=split)
    with failures():
        training.train_stages()
    model = compose(recipe.stages, [trainer.model for trainer in training.trainers])
    prepare(model, training.trainers[0].data, recipe.evaluation)
    _answer_calls(model, split.world, device)


def _answer_calls(model: nn.Module, world: World, device: torch.device) -> None:
    noise = torch.Generator(device)
    with divided(world), torch.no_grad():
        while (call := world.share(cast(Call | None, None))) is not None:
            if call.noise is not None:
                noise.set_state(call.noise)
            with suppress(RunFailure):  # the first process has it too
                own = None if call.noise is None else noise
                rows_of(model, call.method, call.x.to(device), own)


# ----------------------------------------------------------------------------- starting them


@dataclass(frozen=True)
class Place:
    """Where a process is among those of a run.

    Attributes:
        rank: Its number.
        size: How many there are.
        local: Its number on its machine.
    """

    rank: int
    size: int
    local: int


def place() -> Place | None:
    """Return where a launcher has put this process, or None where there is none.

    torchrun and Ray Train set ``RANK`` and ``WORLD_SIZE``; for Slurm's srun, ``MASTER_ADDR`` and
    ``MASTER_PORT`` are to be set.
    """
    found = os.environ
    if not found.get("MASTER_ADDR"):
        return None
    numbers = [
        found.get(name, found.get(slurm, ""))
        for name, slurm in (
            ("RANK", "SLURM_PROCID"),
            ("WORLD_SIZE", "SLURM_NTASKS"),
            ("LOCAL_RANK", "SLURM_LOCALID"),
        )
    ]
    if not all(number.isdecimal() for number in numbers) or int(numbers[1]) < 2:
        return None
    return Place(*map(int, numbers))


def require_devices(count: int, device: torch.device) -> None:
    """Refuse more processes than there are GPUs; processors are divided among any number.

    Raises:
        UsageError: There are not so many.
    """
    if device.type == "mps" and count > 1:
        raise UsageError(f"--devices {count}", "an Apple GPU is a single one", "leave it out")
    there = torch.cuda.device_count()
    if device.type == "cuda" and count > there:
        reason = f"torch finds {there} GPU{'s' * (there != 1)}"
        raise UsageError(f"--devices {count}", reason, f"use --devices {there}")


@contextmanager
def gathered(context: RunContext, device: torch.device) -> Iterator[Team]:
    """Start the other processes of this command, if it is to have some, or meet them.

    Raises:
        UsageError: There are not as many devices.
        LostProcessError: A process has gone.
    """
    here = place()
    if here is None and context.devices == 1:
        yield Team(Split(parts=context.accumulate))
        return
    with tempfile.TemporaryDirectory() as folder:
        team = _met(context, device, here) if here else _started(context, device, Path(folder))
        over = Event()
        Thread(target=watch, args=(team, over), daemon=True).start()
        try:
            yield team
        finally:
            over.set()
            team.end()


def watch(team: Team, over: Event, leave: Callable[[LostProcessError], None] | None = None) -> None:
    """End this process some time after another has gone, where it waits for it for ever.

    A GPU that computes with others does: the processors alone notice.

    Args:
        team: With the processes.
        over: Set when they are to end.
        leave: Told what happened; ends the process by default.
    """
    while not over.wait(1.0):
        if any(process.poll() is not None for process in team.processes):
            if not over.wait(team.patience):
                (leave or _leave)(LostProcessError(*team.split.world.lost()))
            return


def _leave(error: LostProcessError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)


def _met(context: RunContext, device: torch.device, here: Place) -> Team:
    _take_device(device, here, context.threads)
    _join(device, here, None)
    return Team(Split(World(here.rank, here.size), context.accumulate))


def _started(context: RunContext, device: torch.device, folder: Path) -> Team:
    require_devices(context.devices, device)
    size, meeting = context.devices, folder / "meeting"
    threads = context.threads or torch.get_num_threads()
    words = {
        "data_root": str(context.data_root.absolute()),
        "device": device.type,
        "offline": context.offline,
        "accumulate": context.accumulate,
        "threads": threads,
        "meeting": str(meeting),
        "size": size,
    }
    command = [sys.executable, "-c", _FOLLOWER, json.dumps(words)]
    processes = [
        subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE, start_new_session=True)
        for rank in range(1, size)
    ]
    here = Place(0, size, 0)
    _take_device(device, here, threads)
    _join(device, here, meeting)
    world = World(0, size, lambda: _what_became_of(processes, size))
    return Team(Split(world, context.accumulate), processes)


def _what_became_of(processes: Sequence[subprocess.Popen[bytes]], size: int) -> tuple[str, str]:
    """Say which process has gone, and how."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for rank, process in enumerate(processes, 1):
            if (code := process.poll()) is not None:
                how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
                return f"rank {rank} of {size} processes", how
        time.sleep(0.05)
    return f"one of {size} processes", "does not answer"


def _take_device(device: torch.device, here: Place, threads: int | None) -> None:
    """Use the GPU that is this process's, or its part of the processors."""
    if device.type == "cuda":
        torch.cuda.set_device(here.local)
    else:
        torch.set_num_threads(max(1, (threads or torch.get_num_threads()) // here.size))


def _join(device: torch.device, here: Place, meeting: Path | None) -> None:
    """Meet the other processes: at a file of this machine, or where the environment says."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = None if meeting is None else dist.FileStore(str(meeting), here.size)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend, store=store, rank=here.rank, world_size=here.size, timeout=PATIENCE
    )


def _store() -> Any:  # noqa: ANN401  its type is not exported
    return dist.distributed_c10d._get_default_store()


def follows_another(context: RunContext) -> bool:
    """Say whether a launcher lets this process follow another; then it has done so, to its end."""
    here = place()
    if here is None or here.rank == 0:
        return False
    device = torch.device(context.device)
    _leave_signals_to_the_first()
    _met(context, device, here)
    _followed(World(here.rank, here.size), context, device)
    return True


def _followed(world: World, context: RunContext, device: torch.device) -> None:
    try:
        follow(world, context, device)
    except LostProcessError:  # the first one says which
        os._exit(1)


def _leave_signals_to_the_first() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End at once when the process that started this one has ended, however it did."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main(words: str, rank: str) -> None:
    """Follow the process that started this one.

    Args:
        words: What it says of the command, as JSON.
        rank: The number of this one.
    """
    Thread(target=_end_with_parent, daemon=True).start()
    _leave_signals_to_the_first()
    said = json.loads(words)
    device, here = torch.device(said["device"]), Place(int(rank), said["size"], int(rank))
    context = RunContext(
        Path(said["data_root"]), Path(), offline=said["offline"], accumulate=said["accumulate"]
    )
    _take_device(device, here, said["threads"])
    _join(device, here, Path(said["meeting"]))
    _followed(World(here.rank, here.size), context, device)
