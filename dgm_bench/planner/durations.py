"""Durations and sizes: as options of the command line, and for people."""

from __future__ import annotations

import math
import re

from dgm_bench.errors import UsageError, shortened

#: What ``--budget auto`` allows on a machine without a GPU, in seconds.
AUTO_BUDGET = 600.0
UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, option: str, also: str = "") -> float:
    """Return the seconds of ``90s``, ``10m``, ``1h30m`` or ``1.5h``.

    Raises:
        UsageError: It is no duration, or not above zero.
    """
    compact = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact)
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or not 0 < seconds < math.inf:
        raise UsageError(
            f"{option} {shortened(text)}",
            "not a time above zero",
            f"write 90s, 10m, 2h or 1h30m{also}",
        )
    return seconds


def parse_budget(text: str, device: str = "cpu", option: str = "--budget") -> float | None:
    """Return a budget in seconds; None where it is unlimited.

    Args:
        text: A duration, ``none``, or ``auto``: ten minutes without a GPU, unlimited with one.
        device: ``cpu`` or ``cuda``; decides what ``auto`` is.
        option: Its name in the message when it means nothing.

    Raises:
        UsageError: It is none of these, or not above zero.
    """
    if text == "none":
        return None
    if text == "auto":
        return AUTO_BUDGET if device == "cpu" else None
    return parse_duration(text, option, also=", none or auto")


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``40 s``, ``12 min``, ``3.5 h``, ``4 days``."""
    if seconds is None:
        return "unknown"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / unit
            return f"{number:.1f} h" if name == "h" and number < 10 else f"{number:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


#: Seconds of a unit, its name, and from how many seconds on nobody would use it, longest first.
_LINE_UNITS = (
    (86400, "days", math.inf),
    (3600, "h", 1000 * 3600),
    (60, "min", 600 * 60),
    (1, "s", 600),
)


def durations(*seconds: float | None) -> list[str]:
    """Return durations that stand in one line, in one unit where all can be read in it."""
    known = [number for number in seconds if number]
    units = [unit for unit in _LINE_UNITS if known and min(known) >= unit[0]]
    if not units or max(known) >= units[0][2]:
        return [duration(number) for number in seconds]
    return [_in_unit(number, *units[0][:2]) for number in seconds]


def _in_unit(seconds: float | None, unit: int, name: str) -> str:
    if seconds is None:
        return duration(None)
    number = seconds / unit
    return f"{number:.1f} {name}" if number < 10 and unit > 1 else f"{number:.0f} {name}"


def option_value(seconds: float) -> str:
    """Return a duration that ``--budget`` takes, a quarter more than asked, in whole units."""
    ample = 1.25 * seconds
    if ample <= 90 * 60:
        return f"{math.ceil(ample / 60)}m"
    return f"{math.ceil(ample / 3600)}h"


def gigabytes(size: float | None) -> str:
    """Return a size for people: ``1.5 GB``."""
    if size is None:
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
