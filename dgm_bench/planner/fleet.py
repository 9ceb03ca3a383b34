"""Machines that are not here: so many devices of a kind, by their data sheets.

Nothing of these was measured. A device does a third of its peak, as :class:`Speed` has it for all;
an operation is started by the host and takes as long on each.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dgm_bench.errors import UsageError, choose_from, shortened
from dgm_bench.planner.machine import Machine, Speed
from dgm_bench.planner.schedule import Room
from dgm_bench.spec import Recipe, Stage

#: What part of its peak a device does.
SHARE_OF_PEAK = 1 / 3
#: Devices of one machine, between which the fast links are.
PER_MACHINE = 8
#: More devices than any plan is asked for.
MOST = 4_096
#: Of a GPU and of a core for an hour: round figures, which are no offer of anybody.
GPU_PRICE, CORE_PRICE = 2.0, 0.05
#: What a plan's machine has where gradients are accumulated: what does not fit is done in parts.
UNLIMITED = 2**62


@dataclass(frozen=True)
class Device:
    """What a data sheet says of a device, each figure without sparsity.

    Attributes:
        name: As ``--on`` takes it.
        title: For people.
        float32: Peak operations per second in float32, without tensor cores.
        bfloat16: In bfloat16 on tensor cores; None where there are none that compute in it.
        memory_bytes: Its memory.
        link: Bytes per second that it sends to others of its machine.
        network: Bytes per second that it sends to other machines.
    """

    name: str
    title: str
    float32: float
    bfloat16: float | None
    memory_bytes: int
    link: float
    network: float

    @property
    def is_gpu(self) -> bool:
        """Whether it is no core of a processor."""
        return self.name != "cpu"

    def speed(self, recipe: Recipe) -> Speed:
        """Return how fast it does a recipe's work: stages in bfloat16 on tensor cores."""
        if not self.is_gpu:
            return Speed.cpu(1)
        parts = zip(recipe.stages, recipe.stage_shares, strict=True)
        seconds = sum(share / self._peak(stage) for stage, share in parts)
        return Speed(SHARE_OF_PEAK / seconds)

    def _peak(self, stage: Stage) -> float:
        return (self.bfloat16 if stage.precision == "bfloat16" else None) or self.float32


_GB = 10**9
#: From NVIDIA's data sheets of each; half of NVLink's bandwidth goes either way. Between machines:
#: 400 Gbit/s a GPU in DGX H100 and H200, 200 in DGX A100, 100 in DGX-2. Cards have PCI Express, and
#: 100 Gbit/s for four of them, which is an assumption; so are the 4 GB of a core, which is as fast
#: as :meth:`Speed.cpu` has it.
_CARD = {"network": 3e9}
DEVICES = {
    device.name: device
    for device in (
        Device("h200", "H200 SXM", 67e12, 989e12, 141 * _GB, 450e9, 50e9),
        Device("h100", "H100 SXM", 67e12, 989e12, 80 * _GB, 450e9, 50e9),
        Device("a100", "A100 SXM 80 GB", 19.5e12, 312e12, 80 * _GB, 300e9, 25e9),
        Device("v100", "V100 SXM2 32 GB", 15.7e12, None, 32 * _GB, 150e9, 12.5e9),
        Device("l40s", "L40S", 91.6e12, 362e12, 48 * _GB, 32e9, **_CARD),
        Device("l4", "L4", 30.3e12, 121e12, 24 * _GB, 32e9, **_CARD),
        Device("a10", "A10", 31.2e12, 125e12, 24 * _GB, 32e9, **_CARD),
        Device("t4", "T4", 8.1e12, None, 16 * _GB, 16e9, **_CARD),
        Device("cpu", "core", 90e9, None, 4 * _GB, 0.0, 0.0),
    )
}


@dataclass(frozen=True)
class Fleet:
    """So many devices of a kind.

    Attributes:
        device: What each is.
        count: How many.
        jobs: How many runs go at once, spread evenly over the devices.
    """

    device: Device
    count: int
    jobs: int

    @property
    def sharing(self) -> int:
        """How many runs share a device, or take turns on a core."""
        return max(math.ceil(self.jobs / self.count), 1)

    @property
    def used(self) -> int:
        """How many devices have a run at all."""
        return min(self.count, self.jobs)

    def speed(self, recipe: Recipe, *, alone: bool) -> Speed:
        """Return how fast a run goes that has its devices to itself, or shares one."""
        speed = self.device.speed(recipe)
        if not self.device.is_gpu:
            return speed.in_turns(self.sharing)
        return speed if alone else speed.shared_by(self.sharing)

    @property
    def name(self) -> str:
        """As ``--on`` takes it."""
        return f"{self.count}x{self.device.name}"

    def machine(self) -> Machine:
        """Return what plans are made for: cores share their memory, each GPU has its own."""
        memory = self.device.memory_bytes
        if not self.device.is_gpu:
            return Machine("cpu", self.name, Speed.cpu(1), memory * self.count, self.jobs)
        speed = Speed(SHARE_OF_PEAK * self.device.float32)
        return Machine("cuda", self.name, speed, UNLIMITED, self.jobs, self.used)

    def room(self) -> Room:
        """Return the places on its devices and their memory, all free."""
        machine = self.machine()
        memory = self.device.memory_bytes if self.device.is_gpu else machine.memory_bytes
        return Room(machine.workers, machine.devices, memory)


def parse_fleet(text: str, jobs: int | None = None) -> Fleet:
    """Return the fleet of ``8xh200``, ``4xa100`` or ``2xcpu``.

    Args:
        text: Number and kind of devices.
        jobs: Runs at once; None for one on each.

    Raises:
        UsageError: It is none, or there is no such kind.
    """
    match = re.fullmatch(r"(?:(\d{1,9})\s*x\s*)?([a-z][a-z0-9]*)", text.strip().lower())
    count = int(match[1] or 1) if match else 0
    if match is None or not 1 <= count <= MOST:
        reason = f"no number up to {MOST} of devices and their kind"
        raise UsageError(f"--on {shortened(text)}", reason, "write 8xh200, 4xa100 or 2xcpu")
    if match[2] not in DEVICES:
        raise UsageError(f"--on {text}", "no such kind of device", choose_from(match[2], DEVICES))
    return Fleet(DEVICES[match[2]], count, jobs or count)
