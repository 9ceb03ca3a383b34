"""Stores of records that are in no folder."""

from pathlib import Path

from dgm_bench.record_files import Reading
from dgm_bench.store import Store


def store_of(own=(), stored=()):
    """Return a store of the user's records and of stored ones, in the order of their age."""
    folders, both = (Path("own"), Path("stored")), (own, stored)
    store = Store(*folders)
    places = {
        str(record.path(folder)): record
        for folder, records in zip(folders, both, strict=True)
        for record in records
    }
    by_age = sorted(places.items(), key=lambda item: (item[1].created, item[1].run_id))
    store._reading = Reading(dict(by_age))
    return store
