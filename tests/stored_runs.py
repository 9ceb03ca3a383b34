"""Records with curves, written as runs write them."""

import csv

from factories import make_cell, make_record

from dgm_bench.records import write_record

CELL = make_cell("maf", "power")
COLUMNS = ("step", "epoch", "seconds", "train_loss", "validation", "lr", "function_evaluations")


def store_run(results, *, seed=0, rows=3, **overrides):
    """Write a record with its curve, and return it."""
    run_id = f"20260101t{seed:06d}-abcdef"
    curve = f"{run_id}.csv" if rows else None
    record = make_record(CELL, seed=seed, run_id=run_id, curve=curve, **overrides)
    path = write_record(record, results)
    if rows:
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for i in range(rows):
                writer.writerow(
                    [100 * (i + 1), i + 1, 0.5 * i, "" if i == 0 else 2 / i, 3, 1e-4, ""]
                )
    return record
