"""How often the prefixes of cheap cells leave their bands without any change of the code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TIMES, SEEDS, SHARE = 20, 3, 0.02
#: Of the first new run: none of the stored seeds.
FIRST = 100
ROOT = Path(__file__).resolve().parents[2]


def count() -> int:
    """Train the first part of each cheap cell as often, with new seeds; return the alarms."""
    sys.path.insert(0, str(ROOT / "tests"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from cheap_cells import CHEAP

    from dgm_bench.catalog import load_catalog
    from dgm_bench.compare.prefix import stored_prefix
    from dgm_bench.context import RunContext
    from dgm_bench.prefix import run_prefix
    from dgm_bench.session import DataSource
    from dgm_bench.store import Store

    folder, store = Path("no folder"), Store(Path("no folder"), ROOT / "results")
    context, alarms = RunContext(folder, folder, device="cpu", threads=1), 0
    for name in CHEAP:
        cell, furthest = load_catalog().select(name)[0], 0.0
        prefix, source = stored_prefix(cell, store, SHARE), DataSource(context)
        for time in range(TIMES):
            first = FIRST + SEEDS * time
            found = run_prefix(cell, prefix, range(first, first + SEEDS), context, source)
            alarms += bool(found.left)
            furthest = max(furthest, *(each.relative for each in found.deviations))
        print(f"{name}: furthest {furthest:.2f} of half a band, in {TIMES} times", flush=True)
    print(f"{alarms} alarms in {TIMES * len(CHEAP)}")
    return alarms
