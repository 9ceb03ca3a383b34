"""Records and what lies beside them: read as they were written, or refused in one line."""

import hashlib
import json
import math

import pytest
from factories import make_record
from pydantic import ValidationError

from dgm_bench.errors import DamagedError
from dgm_bench.records import RunRecord, _digest, kept_pictures, read_record, write_record
from dgm_bench.store import Store

CURVE = b"step,validation\n1,0.5\n2,\n3,0.25\n"


@pytest.fixture
def path(tmp_path):
    """The file of a record with a curve, in its place."""
    known = {"curve": "run-1.csv", "curve_sha256": hashlib.sha256(CURVE).hexdigest()}
    path = write_record(make_record(run_id="run-1", **known), tmp_path)
    path.with_suffix(".csv").write_bytes(CURVE)
    return path


def refused(path):
    with pytest.raises(DamagedError) as told:
        read_record(path)
    line = str(told.value)
    assert line.startswith(f"{path}: not a run record: ")
    assert "\n" not in line
    return line


def changes(value):
    """Forms of a JSON value with one part other, one missing or one more."""
    match value:
        case dict():
            for key in value:
                yield from ({**value, key: other} for other in changes(value[key]))
                yield {name: part for name, part in value.items() if name != key}
            yield {**value, "other": 1}
        case list():
            for i, part in enumerate(value):
                yield from ([*value[:i], other, *value[i + 1 :]] for other in changes(part))
            yield [*value, *value[:1], 1]
        case bool() | None:
            yield not value
        case str():
            yield f"{value}1"
        case _:
            yield value + 1


def sealed(fields):
    """The text of a record that somebody changed and gave a fitting digest."""
    body = {name: value for name, value in fields.items() if name != "digest"}
    return json.dumps({**body, "digest": _digest(body)})


def test_no_record_with_anything_changed_is_read(path):
    fields = json.loads(path.read_text())
    others = list(changes(fields))
    assert len(others) > 200
    for other in others:
        path.write_text(json.dumps(other))
        refused(path)


def test_a_record_of_no_cell_is_refused(path):
    path.write_text(sealed(json.loads(path.read_text()) | {"cells": []}))
    assert "cells" in refused(path)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_record_has_numbers_that_are_none(path, number):
    fields = json.loads(path.read_text())
    fields["budget"]["train_seconds"] = number
    with pytest.raises(ValidationError, match="finite number"):
        RunRecord.model_validate_json(json.dumps(fields))


def test_a_record_may_be_laid_out_anew(path):
    record = read_record(path)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=3))
    assert read_record(path) == record


def test_version_1_is_read_and_no_later_record_passes_for_it(path):
    fields = {**json.loads(path.read_text()), "schema_version": 1}
    path.write_text(json.dumps(fields))
    assert "damaged" in refused(path)
    del fields["digest"]
    path.write_text(json.dumps(fields))
    assert "version 1 has no curve_sha256" in refused(path)
    del fields["curve_sha256"]
    path.write_text(json.dumps(fields))
    assert read_record(path).curve_sha256 is None


@pytest.mark.parametrize(
    "name", ["..", "../x", "/x", "a/b", "a\\b", ".x", "", "a..b", "x\n", "a" * 300, "a\x00b"]
)
@pytest.mark.parametrize(
    "field", ["run_id", "paper", "table", "row", "column", "curve", "supersedes", "artifacts"]
)
def test_no_name_leads_out_of_the_results(field, name, path):
    """Whoever writes a record can seal it too, so that names are checked besides."""
    fields = json.loads(path.read_text())
    value = {name: "0" * 64} if field == "artifacts" else name
    path.write_text(sealed({**fields, field: value}))
    assert field in refused(path)


def test_no_changed_curve_is_read(path, tmp_path):
    record, store, curve = read_record(path), Store(tmp_path), path.with_suffix(".csv")
    assert store.curve(record)
    others = [CURVE[:size] for size in range(len(CURVE))]
    others += [CURVE.replace(b"0.5", b"0.7"), CURVE + b"4,0.1\n"]
    for other in others:
        curve.write_bytes(other)
        with pytest.raises(DamagedError, match=r"run-1\.csv: is damaged"):
            store.curve(record)


def test_a_damaged_curve_is_told_once_and_is_an_error_where_none_is_allowed(path, tmp_path, caplog):
    record, store = read_record(path), Store(tmp_path)
    path.with_suffix(".csv").write_bytes(CURVE[:-1])
    assert store.known_curve(record) == store.known_curve(record) == []
    (told,) = caplog.messages
    assert "run-1.csv: is damaged" in told
    with pytest.raises(DamagedError):
        Store(tmp_path, strict=True).known_curve(record)


@pytest.mark.parametrize(
    "curve", [b"a,b\n1,2\n3", b"a,b\n1\n", b"a,b\n1,2,3\n", b"a,b\n1,x\n", b"a,b\n1,\xff\n", b""]
)
def test_a_curve_of_version_1_has_numbers_in_whole_lines(curve, path, tmp_path):
    old = read_record(path).model_copy(update={"schema_version": 1, "curve_sha256": None})
    path.with_suffix(".csv").write_bytes(curve)
    with pytest.raises(DamagedError, match="is not a readable curve"):
        Store(tmp_path).curve(old)


def test_only_whole_pictures_are_shown(tmp_path, caplog):
    files = {"a.png": b"a", "b.png": b"b", "gone.png": b"c", "weights.safetensors": b"w"}
    known = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = make_record(artifacts=known)
    folder = tmp_path / "artifacts" / record.run_id
    folder.mkdir(parents=True)
    for name in ("a.png", "weights.safetensors", "unknown.png"):
        (folder / name).write_bytes(files.get(name, b"?"))
    (folder / "b.png").write_bytes(b"changed")
    assert kept_pictures(record, tmp_path) == [folder / "a.png"]
    (told,) = caplog.records
    assert "b.png: is damaged" in told.getMessage()
