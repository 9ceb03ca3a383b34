"""The lock file of versions is that of the newest stored record, and names no address."""

from environment_lock import LOCK, text_of
from factories import make_record

from dgm_bench.provenance import PACKAGES
from dgm_bench.records import write_record


def test_the_lock_file_has_the_versions_of_the_newest_record():
    """``python tests/environment_lock.py --write`` brings it up to date."""
    assert LOCK.read_text() == text_of()
    names = [line.partition("==")[0] for line in LOCK.read_text().splitlines() if line[0] != "#"]
    assert "torch" in names
    assert set(names) <= set(PACKAGES)
    assert "/" not in "".join(names)


def test_of_two_records_the_newer_one_counts(tmp_path):
    for day, version in (("02", "2.14.1+cpu"), ("03", "2.15.0+cu130"), ("01", "2.9.0")):
        record = make_record()
        machine = record.environment.model_copy(update={"packages": {"torch": version}})
        made = {"created": f"2026-01-{day}T00:00:00Z", "run_id": f"run-{day}"}
        write_record(record.model_copy(update={"environment": machine, **made}), tmp_path)
    assert text_of(tmp_path).endswith("\ntorch==2.15.0\n")
