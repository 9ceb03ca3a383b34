"""The comparison that all engines are held to sees what it has to, and no more."""

import hashlib

import pytest
from engines.same_records import differences
from factories import make_budget, make_environment, make_metric, make_quality, make_record
from stored_runs import store_run

from dgm_bench.records import write_record

WEIGHTS = b"weights"
KNOWN = {"weights.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}


@pytest.fixture
def stored(tmp_path):
    """Write a run to a folder, its weights beside."""

    def store(name, weights=WEIGHTS, **overrides):
        record = store_run(tmp_path / name, **{"artifacts": KNOWN} | overrides)
        path = tmp_path / name / "artifacts" / record.run_id / "weights.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights)
        return tmp_path / name

    return store


def test_times_hosts_and_identities_may_differ(stored):
    slow = make_budget(train_seconds=99.0, peak_memory_bytes=1, segments=())
    elsewhere = make_environment(platform="another kernel", memory_bytes=1)
    one = stored("one", quality=(make_quality(),))
    other = stored("other", budget=slow, environment=elsewhere, quality=(make_quality(),))
    assert differences(one, other) == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"value": -0.24000000000000002},
        {"budget": make_budget(steps=999)},
        {"environment": make_environment(threads=2)},
        {"rows": 4},
        {"weights": b"other"},
        {"artifacts": {}},
        {"seed": 1},
        {"metrics": (make_metric(), make_metric(name="second"))},
        {"quality": (make_quality(best=1.0),)},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_anything_else_is_told(stored, overrides):
    one, other = stored("one"), stored("other", **overrides)
    assert differences(one, other)
    assert differences(other, one)


def test_a_run_that_was_done_twice_is_told(stored, tmp_path):
    one, other = stored("one"), stored("other")
    again = make_record(run_id="20260102t000000-abcdef")
    write_record(again, other)
    assert any("2 times" in line for line in differences(one, other))


def test_nothing_is_not_the_same_as_nothing(tmp_path):
    assert differences(tmp_path, tmp_path)
