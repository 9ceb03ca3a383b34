"""The user's own results beside those that came with the suite."""

import pytest
from factories import make_cell, make_record

from dgm_bench.records import write_record
from dgm_bench.store import Store


def at(second, **overrides):
    return make_record(
        created=f"2026-01-01T00:00:{second:02d}Z", run_id=f"run-{second}", **overrides
    )


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "own", tmp_path / "stored"


def filled(folders, own=(), stored=()):
    for folder, records in zip(folders, (own, stored), strict=True):
        for record in records:
            write_record(record, folder)
    return Store(*folders)


def test_both_are_read_and_told_apart(folders):
    mine, theirs = at(2), at(1)
    store = filled(folders, [mine], [theirs])
    assert store.records() == [theirs, mine]
    assert [store.is_own(record) for record in store.records()] == [False, True]
    assert [store.folder_of(record) for record in (mine, theirs)] == list(folders)


@pytest.mark.parametrize(("mine", "theirs"), [(1, 2), (2, 1)])
def test_ones_own_run_of_a_seed_counts_before_the_stored_one(folders, mine, theirs):
    cell = make_cell()
    store = filled(folders, [at(mine)], [at(theirs), at(9, seed=1)])
    assert {record.run_id for record in store.for_cell(cell)} == {f"run-{mine}", "run-9"}


@pytest.mark.parametrize("status", ["budget", "diverged"])
def test_a_stored_run_counts_before_ones_own_that_did_not_get_as_far(folders, status):
    cell = make_cell()
    cut = at(2, status=status)
    (counting,) = filled(folders, [cut], [at(1)]).for_cell(cell)
    assert counting.run_id == "run-1"


def test_in_one_folder_nothing_is_told_apart(folders):
    folder, _ = folders
    record = at(1)
    write_record(record, folder)
    (folder.parent / "link").symlink_to(folder)
    for store in (Store(folder), Store(folder, folder), Store(folder, folder.parent / "link")):
        assert store.records() == [record]
        assert not store.is_own(record)
        assert store.folder_of(record) == folder


def test_a_run_that_is_in_both_is_the_stored_one(folders):
    store = filled(folders, [at(1)], [at(1)])
    (record,) = store.records()
    assert not store.is_own(record)
