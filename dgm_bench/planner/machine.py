"""The machine as the planner sees it: how fast, how much memory, how many runs at once."""

from __future__ import annotations

from dataclasses import dataclass

from dgm_bench import provenance


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

    @classmethod
    def h200(cls) -> Speed:
        """Return one NVIDIA H200: a third of the 67 TFLOP/s that its data sheet gives float32.

        Not measured. A launch costs what it costs a CPU: both are bound by the host's Python.
        """
        return cls(67e12 / 3)


@dataclass(frozen=True)
class Machine:
    """The machine as the planner sees it; ``kind`` is the machine class of the records."""

    device: str
    kind: str
    speed: Speed
    memory_bytes: int

    @classmethod
    def here(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Return this machine, with the device that torch would take; imports no torch."""
        device = provenance.likely_device() if device == "auto" else device
        cores = threads or provenance.cores()
        speed = Speed.gpu() if device == "cuda" else Speed.cpu(cores)
        kind = provenance.machine_class(device)
        return cls(device, kind, speed, provenance.memory_bytes())
