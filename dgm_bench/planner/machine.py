"""The machine as the planner sees it: how fast, how much memory, how many runs at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dgm_bench import provenance
from dgm_bench.planner.schedule import Room


@dataclass(frozen=True)
class Speed:
    """How fast a machine works on small models.

    Attributes:
        flops_per_second: Sustained, on matrices of a few hundred rows and columns.
        seconds_per_launch: Overhead of one tensor operation, which dominates small models.
        start_seconds: Loading data, building the model, writing the record.
    """

    flops_per_second: float
    seconds_per_launch: float = 10e-6
    start_seconds: float = 2.0

    @classmethod
    def cpu(cls, cores: int) -> Speed:
        """Return 30 GFLOP/s a core: about a third of the peak of a current server core."""
        return cls(30e9 * cores)

    @classmethod
    def gpu(cls) -> Speed:
        """Return 20 TFLOP/s: about a third of float32's peak on a current server GPU."""
        return cls(20e12)

    def shared_by(self, workers: int) -> Speed:
        """Return the speed of each of several workers on one GPU.

        They share its arithmetic; each has a core of its own to start operations from.
        """
        return replace(self, flops_per_second=self.flops_per_second / workers)

    def in_turns(self, threads_per_core: float) -> Speed:
        """Return the speed where several threads take turns on a core; the same where none do."""
        turns = max(threads_per_core, 1.0)
        launch = self.seconds_per_launch * turns
        return replace(
            self, flops_per_second=self.flops_per_second / turns, seconds_per_launch=launch
        )

    @classmethod
    def h200(cls) -> Speed:
        """Return one NVIDIA H200: a third of the 67 TFLOP/s that its data sheet gives float32.

        Not measured. A launch costs what it costs a CPU: both are bound by the host's Python.
        """
        return cls(67e12 / 3)


@dataclass(frozen=True)
class Machine:
    """The machine as the planner sees it.

    Attributes:
        device: ``cpu`` or ``cuda``.
        kind: The machine class of the records.
        speed: Of each worker.
        memory_bytes: Of the machine, or of each of its GPUs.
        workers: How many runs go at once.
        devices: How many GPUs there are, which workers share alike; 1 without a GPU.
    """

    device: str
    kind: str
    speed: Speed
    memory_bytes: int
    workers: int = 1
    devices: int = 1

    @classmethod
    def here(cls, device: str = "auto", threads: int | None = None, workers: int = 1) -> Machine:
        """Return this machine, with the device that torch would take; imports no torch.

        Args:
            device: ``auto``, ``cpu`` or ``cuda``.
            threads: Of each worker; None for its share of the cores.
            workers: How many runs go at once.
        """
        device = provenance.likely_device() if device == "auto" else device
        kind, memory = provenance.machine_class(device), provenance.memory_bytes()
        cores = provenance.cores()
        if device == "cuda":
            gpus = max(len(provenance.driver_gpus()[1]), 1)
            memory = provenance.gpu_memory_bytes() or memory
            speed = Speed.gpu().shared_by(math.ceil(workers / gpus)).in_turns(workers / cores)
            return cls(device, kind, speed, memory, workers, min(gpus, workers))
        threads = threads or min(max(cores // workers, 1), provenance.likely_threads())
        speed = Speed.cpu(threads).in_turns(workers * threads / cores)
        return cls(device, kind, speed, memory, workers)

    def room(self) -> Room:
        """Return the places of its workers, all free."""
        return Room(self.workers, self.devices, self.memory_bytes)
