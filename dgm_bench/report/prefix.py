"""How ``run --prefix`` looks: of each recipe, whether its runs stayed in the band of the stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from dgm_bench.compare.prefix import VALUES, Deviation
from dgm_bench.wording import counted, share

if TYPE_CHECKING:
    from dgm_bench.prefix import PrefixRun

#: Of values that left the band, as many steps are shown.
MOST_STEPS = 3


def render_prefix(run: PrefixRun) -> str:
    """Return in a few lines how the first part of new runs is beside that of the stored ones."""
    left, last = run.left, [d for d in run.deviations if d.step == run.prefix.steps]
    lines = [f"{run.cell.id}: {'LEFT THE BAND' if left else 'inside'}; {_what(run)}"]
    lines += [f"  seed {seed} broke: {why}" for seed, why in run.broken.items()]
    shown = [list(same) for _, same in groupby(left or last, lambda d: d.step)]
    lines += [f"  after step {same[0].step:,}: {_values(same)}" for same in shown[:MOST_STEPS]]
    return "\n".join(lines)


def _what(run: PrefixRun) -> str:
    prefix, seeds = run.prefix, list(run.curves)
    part = share(prefix.steps / prefix.of_steps)
    steps = f"{prefix.steps:,} of {prefix.of_steps:,} steps ({part})"
    names = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return f"{steps}, {names} beside {len(prefix.curves)} stored{_apart(run)}"


def _apart(run: PrefixRun) -> str:
    """Return how far the new runs are from the stored ones with their own seeds, if there are."""
    apart = run.apart
    if apart is None:
        return ""
    return (
        ", the same bits as stored"
        if apart == 0
        else f", relative difference {apart:.1g} from the same seeds"
    )


def _values(deviations: Sequence[Deviation]) -> str:
    return ", ".join(f"{VALUES[d.column]} {_value(d)}" for d in deviations)


def _value(deviation: Deviation) -> str:
    if math.isnan(deviation.new):
        return "not reached"
    low, high = (deviation.stored + side * deviation.half for side in (-1, 1))
    outside = "" if deviation.inside else "outside "
    return f"{deviation.new:.5g} ({outside}{low:.5g} to {high:.5g})"


def closing_line(inside: int, left: int, skipped: int) -> str:
    """Return in a line how many recipes did what."""
    parts = [f"{inside} inside", f"{left} left the band"]
    parts += [f"{skipped} not compared"] if skipped else []
    return f"{counted(inside + left + skipped, 'recipe')}: {', '.join(parts)}"
