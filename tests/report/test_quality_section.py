"""Time to quality beside the numbers of a table: in text, for machines, and on the page."""

import csv
import io
import json
import re
from types import SimpleNamespace

import pytest
from factories import (
    make_budget,
    make_cell,
    make_environment,
    make_published,
    make_quality,
    make_record,
    make_table,
)

from dgm_bench.records import write_record
from dgm_bench.report.page import write_report
from dgm_bench.report.tables import render_table
from dgm_bench.report.time_to_quality import time_to_quality, times_of
from dgm_bench.spec import Citation, Paper
from dgm_bench.store import Store
from dgm_bench.verdict import judge_table

PUBLISHED = make_cell("maf", published=make_published("2.00"))
OURS = make_cell("maf", "oracle-6")
TABLE = make_table([PUBLISHED, OURS])
CITATION = Citation(
    id="ffjord", title="FFJORD", authors="W. Grathwohl", year=2019, url="https://x.org", bibtex="@"
)
SPENT = make_budget(train_seconds=300.0, validation_seconds=100.0)


def curve(record):
    """From 11 to 1; seed 1 takes twice the steps. Three quarters of the seconds are training."""
    slower = 1 + record.seed
    return [
        {
            "step": 100.0 * i * slower,
            "epoch": float(i * slower),
            "seconds": 40.0 * i * slower,
            "validation": loss,
            "lr": 1e-3,
            "function_evaluations": 10.0 * i,
        }
        for i, loss in enumerate([11, 6, 1.95, 1.5, 1.0], 1)
    ]


def runs(cell, **overrides):
    return [make_record(cell, seed=seed, budget=SPENT, **overrides) for seed in (0, 1)]


def test_times_are_medians_over_seeds():
    found = time_to_quality(PUBLISHED, runs(PUBLISHED), curve)
    (taken,) = found.stages.values()
    assert list(taken) == ["50", "90", "99", "published"]
    assert [(t.steps, t.epochs, t.train_seconds) for t in taken.values()] == [
        (300, 3, 90), (450, 4.5, 135), (750, 7.5, 225), (450, 4.5, 135),
    ]  # fmt: skip
    assert (taken["50"].evaluations, taken["published"].target) == (20, 2.0)
    assert found.machine == "cpu-2, 1 thread"


def test_seconds_of_several_machines_are_not_put_together():
    records = [runs(OURS)[0], runs(OURS, environment=make_environment(threads=2))[1]]
    found = time_to_quality(OURS, records, curve)
    assert {t.train_seconds for t in found.stages["train"].values()} == {None}
    assert found.stages["train"]["50"].steps == 300
    assert (found.machine, len(found.machines)) == ("", 2)


def test_seconds_of_seeds_trained_at_once_are_not_put_with_those_of_one_alone():
    alone, other = runs(OURS)
    budget = other.budget.model_copy(update={"seeds_together": 3})
    found = time_to_quality(OURS, [alone, other.model_copy(update={"budget": budget})], curve)
    assert {t.train_seconds for t in found.stages["train"].values()} == {None}
    assert set(found.machines) == {"cpu-2, 1 thread", "cpu-2, 1 thread, 3 seeds at once"}


def test_a_number_that_one_seed_did_not_pass_has_no_time():
    late = [{**row, "validation": max(row["validation"], 2.1)} for row in curve(make_record())]
    found = time_to_quality(PUBLISHED, runs(PUBLISHED), lambda r: late if r.seed else curve(r))
    assert "published" not in found.stages["train"]
    assert found.not_passed == "no validation passed it"


def test_what_broke_was_cut_short_or_has_no_curve_has_no_time():
    assert time_to_quality(OURS, runs(OURS, status="budget"), curve) is None
    assert time_to_quality(OURS, runs(OURS), lambda _: ()) is None
    assert time_to_quality(OURS, [], curve) is None


@pytest.fixture
def store(tmp_path):
    """Two cells with one run each, and its curve."""
    for number, cell in enumerate((PUBLISHED, OURS)):
        record = make_record(cell, value=1.1, budget=SPENT, curve=f"c{number}.csv")
        path = write_record(record.model_copy(update={"run_id": f"run-{number}"}), tmp_path)
        with path.with_name(f"c{number}.csv").open("w", newline="") as file:
            rows = curve(record)
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return Store(tmp_path)


def rendered(store, format, width=160):
    verdicts = judge_table(TABLE, store)
    times = times_of(TABLE.cells, verdicts, store)
    return render_table(TABLE, verdicts, format, width=width, times=times)


def test_a_table_says_what_runs_took_and_on_which_machine(store):
    text = rendered(store, "text")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "MAF, POWER published 2 300 3.0 2 min 30" in lines
    assert "MAF, ORACLE-6 99 % 1.1 500 5.0 2 min 50" in lines
    assert "cpu-2, 1 thread: a processor, 2 cores" in lines
    assert "Time to quality" not in render_table(TABLE, judge_table(TABLE, store), "text")


@pytest.mark.parametrize("format", ["markdown", "latex"])
def test_every_format_for_people_has_it(store, format):
    assert "Time to quality" in rendered(store, format)


def test_machines_get_all_times(store):
    first, second = json.loads(rendered(store, "json"))["cells"]
    assert (first["to_published_steps"], first["to_99_epochs"]) == (300, 5)
    assert (first["to_50_train_seconds"], first["to_90_evaluations"]) == (60, 30)
    assert (first["train_seconds_on"], first["to_published_why_not"]) == ("cpu-2, 1 thread", "")
    assert (second["to_published_steps"], second["to_99_steps"]) == (None, 500)
    assert second["to_published_why_not"] == "nothing is published"
    rows = list(csv.DictReader(io.StringIO(rendered(store, "csv"))))
    assert [row["to_published_steps"] for row in rows] == ["300", ""]


def test_the_page_has_all_times_of_a_cell(tmp_path):
    """Of a record that says itself what it took; there is no curve."""
    write_record(make_record(OURS, quality=(make_quality(),)), tmp_path)
    paper = Paper(**CITATION.model_dump(), sources=(), tables=(TABLE,))
    target, catalog = tmp_path / "page.html", SimpleNamespace(papers=(paper,))
    write_report(target, catalog=catalog, store=Store(tmp_path))
    data = json.loads(re.search(r'id="data">(.*?)</script>', target.read_text())[1])
    line = ["train", "90 % of the way", "2.1", "700", "7.0", "42 s", "-", "cpu-2, 1 thread"]
    assert line in data["times"][data["cells"][OURS.id]["times"]]
