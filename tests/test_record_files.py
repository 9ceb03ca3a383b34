"""Files among the records that are none: each is told in one line, and nothing else is lost."""

import os
import shutil

import pytest
from factories import make_record

from dgm_bench.errors import ResultsError
from dgm_bench.records import write_record
from dgm_bench.store import Store, load_records

FAULTS = {}


def fault(said):
    """Register a function that puts a fault below ``runs``, where the whole record is ``path``."""

    def register(function):
        FAULTS[function.__name__] = function, said
        return function

    return register


@fault("not a run record: run_id: Field required")
def no_record(runs, path):
    (runs / "x.json").write_text('{"schema_version": 1}')


@fault("not a run record")
def empty(runs, path):
    (runs / "x.json").write_bytes(b"")


@fault("not a run record")
def cut(runs, path):
    (runs / "x.json").write_bytes(path.read_bytes()[:-40])


@fault("it is damaged")
def changed(runs, path):
    (runs / "x.json").write_bytes(path.read_bytes().replace(b"-0.24", b"-0.25"))


@fault("not a run record")
def not_text(runs, path):
    (runs / "x.json").write_bytes(bytes(range(256)))


@fault("is a folder, not a record")
def folder(runs, path):
    (runs / "x.json").mkdir()


@fault("No such file")
def dangling_link(runs, path):
    (runs / "x.json").symlink_to(runs / "nowhere")


@fault("symbolic links")
def endless_link(runs, path):
    (runs / "x.json").symlink_to(runs / "x.json")


@fault("it is no regular file")
def pipe(runs, path):
    os.mkfifo(runs / "x.json")


@fault("it has 1,073,741,824 bytes")
def gigabyte(runs, path):
    with (runs / "x.json").open("wb") as file:
        file.truncate(2**30)


@fault("has the run_id of")
def second_of_one_run(runs, path):
    shutil.copy(path, runs / "x.json")


@pytest.fixture
def stored(tmp_path):
    """A results folder with one whole record, and the record."""
    record = make_record()
    write_record(record, tmp_path)
    return tmp_path, record


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_one_line_and_the_rest_is_read(stored, name, caplog):
    results, record = stored
    put, said = FAULTS[name]
    put(results / "runs", record.path(results))
    assert Store(results).records() == [record]
    assert load_records(results) == [record]
    lines = [message.getMessage() for message in caplog.records]
    assert len(lines) == 2
    for line in lines:
        assert "x.json" in line
        assert said in line
        assert "\n" not in line
        assert line.count(";") == 1, "the remedy"


@pytest.mark.parametrize("name", FAULTS)
def test_strict_makes_it_an_error(stored, name):
    results, record = stored
    put, said = FAULTS[name]
    put(results / "runs", record.path(results))
    with pytest.raises(ResultsError, match=said):
        Store(results, strict=True).records()
    with pytest.raises(ResultsError, match=said):
        load_records(results, strict=True)


def test_a_file_that_may_not_be_read_is_told(stored, monkeypatch, caplog):
    results, record = stored
    locked = results / "runs" / "locked.json"
    shutil.copy(record.path(results), locked)
    opened = os.open

    def refuse(path, *rest):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert Store(results).records() == [record]
    assert "locked.json: cannot be read (Permission denied)" in caplog.text


def test_a_folder_that_may_not_be_read_is_told(stored, monkeypatch, caplog):
    results, record = stored
    (results / "runs" / "locked").mkdir()
    scanned = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scanned(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert Store(results).records() == [record]
    assert "locked: cannot be read (Permission denied)" in caplog.text


def test_a_record_elsewhere_counts_and_is_told(stored, caplog):
    results, record = stored
    path = record.path(results)
    other = results / "runs" / "other" / path.name
    other.parent.mkdir()
    path.rename(other)
    assert Store(results).records() == [record]
    assert f"move it to {path}" in caplog.text
    with pytest.raises(ResultsError, match="lies elsewhere"):
        Store(results, strict=True).records()


def test_of_two_records_of_one_run_that_in_its_place_counts(stored):
    results, record = stored
    copy = record.model_copy(update={"seed": 7})
    write_record(copy, results / "elsewhere")
    early = results / "runs" / "a" / "copy.json"
    early.parent.mkdir()
    shutil.copy(copy.path(results / "elsewhere"), early)
    assert Store(results).records() == [record]


def test_of_many_faults_the_first_are_described_and_the_rest_counted(stored, caplog):
    results, record = stored
    for number in range(40):
        (results / "runs" / f"{number:02d}.json").write_text("{")
    assert Store(results).records() == [record]
    (line,) = [message.getMessage() for message in caplog.records]
    assert line.startswith("warning: 40 records left out: ")
    assert "02.json" in line
    assert "03.json" not in line
    assert "and 37 more; " in line


def test_whole_records_are_told_nothing_of(stored, caplog):
    assert len(Store(stored[0], strict=True).records()) == 1
    assert not caplog.records


def test_one_file_that_is_named_is_an_error_of_its_own(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ResultsError, match=r"x\.json: not a run record"):
        load_records(tmp_path / "x.json")
