"""The index of records: the same as reading them, whatever happened to them or to it."""

import os
import random
import shutil
import sys
import time
from types import SimpleNamespace

import pytest
from factories import make_cell, make_metric, make_quality, make_recipe, make_record, make_table

from dgm_bench import record_files, record_index
from dgm_bench.catalog import load_catalog
from dgm_bench.compare import compare
from dgm_bench.lean_records import Shared
from dgm_bench.records import read_as, read_record, write_record
from dgm_bench.spec import Recipe
from dgm_bench.store import Store
from dgm_bench.verdict import judge_table


@pytest.fixture(autouse=True)
def indexed(tmp_path, monkeypatch):
    """Every folder has an index, and files are old enough to be in it; returns the files read."""
    read = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record_files, "INDEXED_FROM", 1)
    monkeypatch.setattr(record_index, "time", SimpleNamespace(time_ns=lambda: 2**62))
    counted = lambda path, make: read.append(path) or read_as(path, make)  # noqa: E731
    monkeypatch.setattr(record_index, "read_as", counted)
    return read


def index_file(tmp_path):
    (file,) = (tmp_path / "cache" / "dgm-bench" / "records").glob("*.index")
    return file


def written(results, numbers):
    for number in numbers:
        record = make_record(
            make_cell(f"row-{number % 3}"),
            seed=number,
            run_id=f"run-{number}",
            metrics=(make_metric(number / 7), make_metric(None, name="gap", se=None, n=number)),
            supersedes="run-1" if number == 3 else None,
            modified=("lr",) if number == 4 else (),
            artifacts={"weights.safetensors": "a" * 64} if number == 5 else {},
            quality=(make_quality(forecast=number == 6),) if number in (5, 6) else (),
        )
        write_record(record, results)


def as_read(results):
    """The records as they are without an index, each from its file."""
    records = [read_record(path) for path in (results / "runs").rglob("*.json")]
    return sorted(records, key=lambda record: (record.created, record.run_id))


def test_records_of_the_index_are_those_of_the_files(tmp_path, indexed):
    written(tmp_path, range(9))
    first = Store(tmp_path).records()
    assert len(indexed) == 9
    indexed.clear()
    second = Store(tmp_path).records()
    assert indexed == [], "no file is read again"
    for records in (first, second):
        assert records == as_read(tmp_path)
        for ours, theirs in zip(records, as_read(tmp_path), strict=True):
            assert ours.model_dump_json() == theirs.model_dump_json()
            assert types_of(ours) == types_of(theirs)


def types_of(model):
    """The types of all that a record holds, in depth."""
    if hasattr(model, "model_fields_set"):
        return type(model), [types_of(getattr(model, name)) for name in type(model).model_fields]
    if isinstance(model, tuple | list):
        return type(model), [types_of(value) for value in model]
    return type(model)


def replaced(path, value):
    record = make_record(make_cell("row-0"), value=value, run_id=path.stem)
    write_record(record, path.parent / "new")
    os.replace(record.path(path.parent / "new"), path)
    shutil.rmtree(path.parent / "new")


def rewritten_with_its_old_time(path, value):
    """As long as before and with the same time of writing, as ``rsync --times`` leaves it."""
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


CHANGES = (
    replaced,
    rewritten_with_its_old_time,
    lambda path, value: path.unlink(),
    lambda path, value: os.utime(path, (value, value)),
    lambda path, value: path.write_text("{"),
    lambda path, value: path.rename(path.with_name(f"moved-{value}.json")),
    lambda path, value: shutil.copy(path, path.with_name(f"copy-{value}.json")),
    lambda path, value: written(path.parents[5], [1000 + value]),
)


def test_whatever_happens_to_the_files_the_index_changes_nothing(tmp_path, monkeypatch, caplog):
    chance = random.Random(0)
    written(tmp_path, range(12))
    for step in range(40):
        path = chance.choice(sorted((tmp_path / "runs").rglob("*.json")))
        chance.choice(CHANGES)(path, step)
        told = []
        for threshold in (1, 10**6, 1):
            monkeypatch.setattr(record_files, "INDEXED_FROM", threshold)
            caplog.clear()
            told.append((Store(tmp_path).records(), caplog.messages))
        assert told[0] == told[1] == told[2]


def test_a_file_that_may_change_without_a_sign_is_read_again(tmp_path, indexed, monkeypatch):
    monkeypatch.setattr(record_index, "time", time)
    written(tmp_path, range(3))
    Store(tmp_path).records()
    indexed.clear()
    Store(tmp_path).records()
    assert len(indexed) == 3


def test_strict_reads_every_file(tmp_path, indexed):
    written(tmp_path, range(3))
    Store(tmp_path).records()
    indexed.clear()
    Store(tmp_path, strict=True).records()
    assert len(indexed) == 3


def test_what_is_wrong_is_told_again_when_all_else_is_in_the_index(tmp_path, caplog):
    written(tmp_path, range(3))
    (tmp_path / "runs" / "x.json").write_text("{")
    for _ in range(3):
        caplog.clear()
        assert len(Store(tmp_path).records()) == 3
        assert "x.json: not a run record" in caplog.text


def damaged(content, chance):
    place = chance.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    )


def cut(content, chance):
    return content[: chance.randrange(len(content))]


@pytest.mark.parametrize(
    "damage", [damaged, cut, lambda content, chance: b"", lambda content, c: b"\n"]
)
def test_a_damaged_index_is_made_again(tmp_path, damage, indexed):
    written(tmp_path, range(3))
    records = Store(tmp_path).records()
    content = index_file(tmp_path).read_bytes()
    for seed in range(20):
        index_file(tmp_path).write_bytes(damage(content, random.Random(seed)))
        assert Store(tmp_path).records() == records
    indexed.clear()
    assert Store(tmp_path).records() == records
    assert indexed == []


def test_an_index_of_another_version_is_made_again(tmp_path, indexed, monkeypatch):
    written(tmp_path, range(3))
    Store(tmp_path).records()
    indexed.clear()
    monkeypatch.setattr(record_index, "_version", lambda: b"another")
    Store(tmp_path).records()
    assert len(indexed) == 3


def test_without_a_place_for_the_index_records_are_read(tmp_path, indexed):
    (tmp_path / "cache").write_text("a file in the way of a folder")
    written(tmp_path, range(3))
    assert Store(tmp_path).records() == Store(tmp_path).records() == as_read(tmp_path)


def test_indexes_do_not_pile_up(tmp_path):
    for number in range(record_index.KEPT + 3):
        written(tmp_path / str(number), range(1))
        Store(tmp_path / str(number)).records()
    folder = tmp_path / "cache" / "dgm-bench" / "records"
    assert len(list(folder.iterdir())) == record_index.KEPT


def test_what_a_broken_record_holds_is_not_kept():
    shared, whole = Shared(), make_record().model_dump(mode="json")
    row = shared.row(whole)
    texts = list(shared.texts)
    for key, value in (("seed", "x"), ("metrics", 3), ("data", {**whole["data"], "verified": 7})):
        with pytest.raises(ValueError, match=key):
            shared.row({**whole, "code": {**whole["code"], "version": key}, key: value})
    assert shared.texts == texts
    assert shared.record(shared.row(whole)) == shared.record(row) == make_record()


def test_recipes_of_all_papers_come_back_as_they_were_validated():
    shared = Shared()
    recipes = {
        cell.recipe.content_hash: cell.recipe for cell in load_catalog().cells if cell.recipe
    }
    for recipe in list(recipes.values())[::7]:
        validated = Recipe.model_validate_json(recipe.model_dump_json())
        record = make_record(make_cell(recipe=validated), recipe=validated)
        row = shared.row(record.model_dump(mode="json"))
        made = Shared(shared.texts).record(row).recipe
        assert made == validated
        assert types_of(made) == types_of(validated)
        assert made.content_hash == recipe.content_hash


# --------------------------------------------------------------------------- growth


def work(function):
    """How many instructions of this package Python takes: the same on every machine."""
    count = 0

    def step(frame, event, argument):
        nonlocal count
        count += event == "opcode"
        return step

    def enter(frame, event, argument):
        if f"{os.sep}dgm_bench{os.sep}" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def many(count):
    """Records of four seeds of each recipe, and the cells of the recipes."""
    cells = [make_cell(f"row-{n}", recipe=make_recipe(args={"n": n})) for n in range(count // 4)]
    records = [
        make_record(cells[n // 4], seed=n % 4, run_id=f"run-{n}", value=n / 7) for n in range(count)
    ]
    return cells, records


@pytest.mark.parametrize("warm", [False, True])
def test_twice_the_records_are_twice_the_work(tmp_path, warm, indexed):
    """No record is looked for among all others: neither by verdicts nor by comparisons."""
    taken = []
    for count in (16, 32, 64):
        results = tmp_path / f"{count}"
        cells, records = many(count)
        for record in records:
            write_record(record, results)
        if warm:
            Store(results).records()

        def listed(results=results, cells=cells):
            store = Store(results)
            verdicts = judge_table(make_table(cells), store)
            assert {verdict.seeds for verdict in verdicts.values()} == {4}
            assert len(compare(store.records(), store.records()).rows) == len(cells)

        indexed.clear()
        taken.append(work(listed))
        assert len(indexed) == (0 if warm else count)
    assert taken[2] - taken[1] < 2.1 * (taken[1] - taken[0])
