"""Measuring what is stored: the time of each case by that of a plain network beside it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from dgm_bench.errors import UsageError
from dgm_bench.paths import PACKAGE
from dgm_bench.perf.cases import CASES, Case
from dgm_bench.perf.counters import step_counters
from dgm_bench.perf.judgement import PAIRS, judge
from dgm_bench.perf.paired import timed_cases
from dgm_bench.perf.pairs import PairResult, Side, measure_case, pair_of_workers, worker_command
from dgm_bench.perf.steps import make_work, usual_settings
from dgm_bench.performance import (
    Measurement,
    Timing,
    history_of,
    machine_name,
    read_measurements,
    unusual_change,
    write_measurement,
)
from dgm_bench.provenance import code, environment, processor_features
from dgm_bench.records import Code, utc_now


def store(results: Path, device: str, progress: Callable[[str], None]) -> Path:
    """Measure, and write what was measured; return the file.

    Raises:
        UsageError: The code is not committed.
        ResultsError: The folder cannot be written.
    """
    ran = committed_code()
    timings = measure(timed_cases(), device, progress)
    with usual_settings():
        where = environment(device, threads=1)
    features = processor_features()
    measurement = Measurement(
        created=utc_now(),
        machine=machine_name(where, features),
        features=features,
        code=ran,
        environment=where,
        timings=timings,
    )
    return write_measurement(measurement, results)


def committed_code() -> Code:
    """Return which code runs.

    Raises:
        UsageError: It is not that of a commit.
    """
    ran = code()
    if ran.git_commit is None or ran.git_dirty is not False:
        reason = "is not what a commit holds, and only that is stored"
        raise UsageError("the working tree", reason, "commit, then measure")
    return ran


def measure(
    cases: Sequence[str], device: str, progress: Callable[[str], None]
) -> dict[str, Timing]:
    """Time cases beside their kernels, in pairs of fresh processes."""
    side = Side("this code", PACKAGE.parent, worker_command(device))
    found: dict[str, list[PairResult]] = {case: [] for case in cases}
    chance = random.Random()
    for number in range(1, PAIRS + 1):
        progress(f"pair {number} of {PAIRS} processes")
        with pair_of_workers(side, side, chance) as workers:
            for case in cases:
                names = CASES[case].kernel, case
                found[case].append(measure_case(workers, names, chance))
    return {case: _timing(CASES[case], pairs) for case, pairs in found.items()}


def _timing(case: Case, pairs: Sequence[PairResult]) -> Timing:
    judged = judge([pair.log_ratio for pair in pairs])
    with usual_settings():
        counters = step_counters(make_work(case))
    return Timing(
        seconds=median(pair.seconds[1] for pair in pairs),
        ratio=1 + judged.change,
        lower=1 + judged.lower,
        upper=1 + judged.upper,
        pairs=len(pairs),
        kernel=case.kernel,
        work=work_hash(case),
        counters=counters,
    )


def work_hash(case: Case) -> str:
    """Return a hash of what a case declares: of another work, times are not compared."""
    fields = {name: getattr(case, name) for name in ("shape", "batch", "values", "loop")}
    fields |= {name: getattr(case, name).model_dump() for name in ("model", "objective")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def told(results: Path) -> Iterator[str]:
    """Yield a line for each class of machine, and for each case whose last change is unusual."""
    for machine, runs in read_measurements(results).items():
        yield f"{machine}: {len(runs)} measurements, the last of {runs[-1].created}"
        for case in runs[-1].timings:
            ratios = [ratio for _, ratio in history_of(runs, case)]
            if (found := unusual_change(ratios)) is not None:
                change, fence = found
                yield f"  {case}: changed by {change:+.1%}, beyond its usual {fence:.1%}"
