"""``plan --on``: what cells would take on a machine that is not here, as text and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from dgm_bench.catalog import runnable
from dgm_bench.cli.queries import plan_json
from dgm_bench.errors import UsageError
from dgm_bench.planner import Plan, duration, gigabytes, parse_duration
from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import CORE_PRICE, GPU_PRICE, Fleet, parse_fleet
from dgm_bench.planner.outlook import Outlook, Work, outlook, plan_on
from dgm_bench.report.grid import wrapped
from dgm_bench.spec import Cell


@dataclass(frozen=True)
class Elsewhere:
    """What the command line says of the machine and of what goes wrong on it.

    Attributes:
        on: Number and kind of devices.
        mtbf: Mean time between failures of a device, or ``none``.
        preempt_every: Mean time between preemptions of a machine, or ``none``.
        restart: From an interruption until a run goes on.
        price: Of a device for an hour; None for the default.
    """

    on: str
    mtbf: str
    preempt_every: str
    restart: str
    price: float | None

    def look(
        self,
        cells: Sequence[Cell],
        jobs: int | None,
        seeds: int,
        complete: Collection[tuple[str, int]],
    ) -> tuple[Plan, Outlook]:
        """Return the plan of these cells, and what it would take.

        Args:
            cells: The cells.
            jobs: Runs at once on a device.
            seeds: Runs of each recipe.
            complete: Runs that need not be done, by recipe hash and seed.

        Raises:
            UsageError: An option means nothing, or no run would end.
        """
        fleet = parse_fleet(self.on, jobs)
        faults = Faults(
            _mean_time(self.mtbf, "--mtbf"),
            _mean_time(self.preempt_every, "--preempt-every"),
            parse_duration(self.restart, "--restart"),
        )
        usual = GPU_PRICE if fleet.device.is_gpu else CORE_PRICE
        planned = plan_on(cells, fleet, runnable, seeds, complete)
        price = usual if self.price is None else self.price
        return planned, outlook(planned, fleet, faults, price=price)


def _mean_time(text: str, option: str) -> float | None:
    return None if text.strip() == "none" else parse_duration(text, option, also=" or none")


def outlook_json(planned: Plan, found: Outlook) -> dict[str, Any]:
    """Return what ``plan --on --json`` prints: a plan's keys, and ``outlook``."""
    low, high = found.interval
    devices = {work.unit.runs[0].cells[0]: work.devices for work in found.work if work.devices > 1}
    told = {
        "on": found.fleet.name,
        "jobs": found.fleet.jobs,
        "runs": sum(len(work.unit.runs) for work in found.work),
        "left_out": found.without,
        "hours": found.hours,
        "hours_5_percent": low,
        "hours_95_percent": high,
        "draws": len(found.ends),
        "device_hours": found.device_hours,
        "price": found.price,
        "cost": found.cost,
        "efficiency": found.efficiency,
        "bound": found.bound,
        "devices": devices,
    }
    return {**plan_json(planned), "outlook": told}


def outlook_text(found: Outlook, asked: Elsewhere, width: int) -> str:
    """Return what a plan would take elsewhere, for people, in so many columns at most."""
    lines = [wrapped(f"{_title(found.fleet)}; nothing of this was measured", width), ""]
    rows = [*_answers(found), ("assumed", _assumed(found, asked))]
    lines += [wrapped(text, width, f"{name:<14}") for name, text in rows]
    return "\n".join(lines)


def _title(fleet: Fleet) -> str:
    device, source = fleet.device, "by data sheet" if fleet.device.is_gpu else "as assumed"
    memory = gigabytes(device.memory_bytes)
    return f"{fleet.count} x {device.title}, {memory} each, {source}, {fleet.jobs} runs at once"


def _answers(found: Outlook) -> list[tuple[str, str]]:
    name = "GPU" if found.fleet.device.is_gpu else "core"
    low, high = found.interval
    runs = sum(len(work.unit.runs) for work in found.work)
    rows = [
        ("runs", f"{runs:,}, {hours(found.work_hours)} of one {name}"),
        ("end", f"after {hours(found.hours)} (9 of 10 draws: {hours(low)} to {hours(high)})"),
        (f"{name} hours", f"{found.device_hours:,.0f}"),
        ("cost", f"{found.cost:,.0f} at {found.price:g} for a {name} hour"),
        ("efficiency", f"{found.efficiency:.0%} of what all could do until the end is useful work"),
        ("bounded by", _bound(found)),
    ]
    if found.without:
        counts = [f"{count} runs: {reason}" for reason, count in found.without.items()]
        rows.append(("left out", "; ".join(counts)))
    return rows


def _bound(found: Outlook) -> str:
    longest = found.longest
    if longest is None:
        return found.bound
    word = ": " if found.bound == "the longest run" else "; the longest run is "
    return f"{found.bound}{word}{_run(longest)}"


def _run(work: Work) -> str:
    where = f" on {work.devices} GPUs" if work.devices > 1 else ""
    return f"{work.unit.runs[0].cells[0]}, {hours(work.seconds / 3600)}{where}"


def _assumed(found: Outlook, asked: Elsewhere) -> str:
    """Say what the answer rests on that options change."""
    name = "GPU" if found.fleet.device.is_gpu else "core"
    restart = duration(parse_duration(asked.restart, "--restart"))
    parts = [f"a {name} fails every {asked.mtbf}"] if asked.mtbf != "none" else []
    if asked.preempt_every != "none":
        parts.append(f"a machine of 8 is taken away every {asked.preempt_every}")
    parts.append(f"a run goes on {restart} after that" if parts else "no failures")
    return ", ".join(parts)


def hours(number: float) -> str:
    """Return hours for people, with three digits below a hundred."""
    return f"{number:,.0f} h" if number >= 100 else f"{number:.3g} h"


def require_here(budget: str) -> None:
    """Refuse what a plan elsewhere does not take.

    Raises:
        UsageError: There is a budget.
    """
    if budget not in ("auto", "none"):
        raise UsageError(f"--budget {budget}", "is of runs on this machine", "leave out it or --on")
