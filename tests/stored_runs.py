"""Records with curves, written as runs write them, and what MLflow's database has of them."""

import contextlib
import csv
import sqlite3

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


def rows(database, query):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


#: Of the runs that are not deleted: how often each metric is there at each step.
METRICS = """select tags.value, key_, step, n from (
    select metrics.run_uuid as run, metrics.key as key_, step, count(*) as n
    from metrics join runs on runs.run_uuid = metrics.run_uuid
    where lifecycle_stage = 'active' group by 1, 2, 3)
    join tags on tags.run_uuid = run and tags.key = 'dgm_bench.run_id'"""
#: How many runs of records there are, and below how many others, that are there too.
SHOWN = """select count(*) from tags join runs on runs.run_uuid = tags.run_uuid
    where key = 'dgm_bench.run_id' and lifecycle_stage = 'active'"""
BELOW = """select count(*), count(distinct value) from tags
    join runs on runs.run_uuid = tags.run_uuid join runs as above on above.run_uuid = value
    where key = 'mlflow.parentRunId' and runs.lifecycle_stage = above.lifecycle_stage
    and runs.lifecycle_stage = 'active'"""


def assert_each_once(database, records, steps=3):
    """Check that MLflow shows each record in one run, with each metric once at each step."""
    cells = {(record.row, record.column) for record in records}
    assert rows(database, SHOWN) == [(len(records),)]
    assert rows(database, BELOW) == [(len(records), len(cells))]
    found = rows(database, METRICS)
    assert {number for *_, number in found} == {1}
    expected = {(r.run_id, "lr", 100 * (i + 1)) for r in records for i in range(steps)}
    assert {(run, key, step) for run, key, step, _ in found if key == "lr"} == expected
    assert {(run, key) for run, key, *_ in found} >= {(r.run_id, "nll") for r in records}
