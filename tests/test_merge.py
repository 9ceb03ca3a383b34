"""Merging results folders: each run once, nothing overwritten, whole whenever it ends."""

import hashlib
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from factories import make_record
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_runs import store_run

from dgm_bench.cli import cli
from dgm_bench.errors import ResultsError, UsageError
from dgm_bench.merge import merge
from dgm_bench.records import read_record, record_fields, write_record
from dgm_bench.store import Store

DAMAGED = b'{"schema_version": 2, "run_id": "x"}\n'


def tree(results):
    """All files of a results folder and their content, but for folders of runs under way."""
    files = (f for f in Path(results).rglob("*") if f.is_file() and "work" not in f.parts)
    return {str(file.relative_to(results)): file.read_bytes() for file in sorted(files)}


class Contents(dict):
    """Of three runs, what may be in their files: a record, in other words, another, and none."""

    def __repr__(self):
        return "contents"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("contents"), Contents()
    for seed in range(3):
        run_id = f"20260101t00000{seed}-abcdef"
        one, other = (
            write_record(
                make_record(seed=seed, run_id=run_id, value=value), folder / str(value)
            ).read_bytes()
            for value in (-0.24, -0.25)
        )
        place = Path(*make_record(seed=seed, run_id=run_id).place)
        compact = json.dumps(json.loads(one)).encode()
        found[str(place)] = {"one": one, "compact": compact, "other": other, "none": DAMAGED}
    return found


def laid_out(folder, kinds, contents):
    """Write a results folder that has of each run the kind of content that is named, or none."""
    for (place, known), kind in zip(contents.items(), kinds, strict=True):
        if kind is not None:
            file = folder / "runs" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(known[kind])
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    return folder


KIND = st.sampled_from([None, "one", "one", "compact", "other", "none"])
FOLDER = st.tuples(KIND, KIND, KIND)


@settings(max_examples=15, deadline=None)
@given(st.tuples(FOLDER, FOLDER, FOLDER))
def test_merging_is_a_union_in_which_the_first_stays(contents, kinds):
    """Beside an oracle on plain tables: idempotent, associative, and commutative but for conflicts.

    Two contents are the same run where their fields are; a conflict is told on either way.
    """
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        a, b, c = (laid_out(top / n, k, contents) for n, k in zip("abc", kinds, strict=True))
        before = [tree(folder) for folder in (a, b, c)]
        told = merge([a, b, c], top / "all")
        expected, conflicts, damaged = oracle(kinds, contents)
        assert tree(top / "all") == {f"runs/{place}": text for place, text in expected.items()}
        assert (len(told.conflicts), len(told.damaged)) == (conflicts, damaged)
        assert (told.merged, told.whole) == (len(expected), not conflicts + damaged)

        again = merge([a, b, c], top / "all")
        assert (again.merged, len(again.conflicts)) == (0, conflicts)
        merge([a], top / "left"), merge([b], top / "left"), merge([c], top / "left")
        merge([b, c], top / "bc"), merge([a, top / "bc"], top / "right")
        assert tree(top / "left") == tree(top / "right") == tree(top / "all")

        other = merge([b, a], top / "ba")
        here = merge([a, b], top / "ab")
        in_conflict = {Path(fault.thing).name for fault in here.conflicts}
        assert in_conflict == {Path(fault.thing).name for fault in other.conflicts}
        assert fields(top / "ab", in_conflict) == fields(top / "ba", in_conflict)
        assert [tree(folder) for folder in (a, b, c)] == before


def oracle(kinds, contents):
    expected, conflicts, damaged = {}, 0, 0
    for folder in kinds:
        for (place, known), kind in zip(contents.items(), folder, strict=True):
            if kind == "none":
                damaged += 1
            elif kind is not None:
                there = expected.setdefault(place, known[kind])
                conflicts += record_fields(there) != record_fields(known[kind])
    return expected, conflicts, damaged


def fields(results, left_out):
    files = Path(results).rglob("*.json")
    return {f.name: record_fields(f.read_bytes()) for f in files if f.name not in left_out}


# --------------------------------------------------------------------------- curves, artifacts


def with_artifact(results, content=b"weights", **overrides):
    digest = hashlib.sha256(b"weights").hexdigest()
    names = ("samples.png", "weights.safetensors")
    record = store_run(results, artifacts=dict.fromkeys(names, digest), **overrides)
    folder = results / "artifacts" / record.run_id
    folder.mkdir(parents=True)
    (folder / "samples.png").write_bytes(b"weights")
    (folder / "weights.safetensors").write_bytes(content)
    return record


def test_curves_and_artifacts_come_along_and_complete_what_is_there(tmp_path):
    record = with_artifact(tmp_path / "a")
    place = Path("runs", *record.place)
    curve, artifacts = place.with_suffix(".csv"), Path("artifacts", record.run_id)
    for left_out in (curve, artifacts / "weights.safetensors"):
        bare = tmp_path / f"bare {left_out.name}"
        shutil.copytree(tmp_path / "a", bare)
        (bare / left_out).unlink()
        merge([bare], bare.with_suffix(".all"))
        told = merge([tmp_path / "a"], bare.with_suffix(".all"))
        assert tree(bare.with_suffix(".all")) == tree(tmp_path / "a")
        assert (told.merged, told.already, told.completed, told.whole) == (0, 1, 1, True)
        assert merge([tmp_path / "a"], bare.with_suffix(".all")).completed == 0


@pytest.mark.parametrize("damage", ["artifact", "curve", "no curve"])
def test_damaged_curves_and_artifacts_are_told_and_left_out(damage, tmp_path):
    content = b"weight5" if damage == "artifact" else b"weights"
    curve_sha256 = "0" * 64 if damage == "curve" else None
    record = with_artifact(tmp_path / "a", content, curve_sha256=curve_sha256)
    curve = record.path(tmp_path / "a").with_suffix(".csv")
    if damage == "no curve":
        curve.unlink()
    (fault,) = merge([tmp_path / "a"], tmp_path / "all").damaged
    wrong = "weights.safetensors" if damage == "artifact" else curve.name
    assert Path(fault.thing).name == wrong
    names = {Path(name).name for name in tree(tmp_path / "all")}
    assert names == {f"{record.run_id}.json", curve.name, *record.artifacts} - {wrong}


# --------------------------------------------------------------------------- what counts


def test_a_record_that_another_machine_continued_counts_no_more(tmp_path):
    cut_short = store_run(tmp_path / "a", seed=0, status="budget")
    ended = store_run(tmp_path / "b", seed=1, supersedes=cut_short.run_id)
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    store = Store(tmp_path / "all")
    assert (report.merged, report.cut_short, len(store.records())) == (2, 1, 2)
    counting = store._of_recipe(ended.recipe_hash)
    assert [record.run_id for record in counting] == [ended.run_id]


def test_a_record_in_a_wrong_place_or_under_a_wrong_name_gets_the_right_one(tmp_path):
    record = make_record()
    file = write_record(record, tmp_path / "a")
    file.rename(tmp_path / "a" / "runs" / "copy.json")
    merge([tmp_path / "a"], tmp_path / "all")
    assert read_record(record.path(tmp_path / "all")) == record
    assert merge([tmp_path / "a"], tmp_path / "all").already == 1


def test_the_index_of_records_is_right_after_a_merge(tmp_path, monkeypatch):
    """What was read before the merge comes of the index, what it brought of the files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("dgm_bench.record_files.INDEXED_FROM", 1)
    old = write_record(make_record(seed=0), tmp_path / "all")
    os.utime(old, (1, 1))
    monkeypatch.setattr("dgm_bench.record_index.RESOLUTION", -(10**9))
    assert len(Store(tmp_path / "all").records()) == 1
    new = make_record(seed=1, value=-0.3)
    write_record(new, tmp_path / "a")
    merge([tmp_path / "a"], tmp_path / "all")
    for _ in range(2):  # of the files, then of the index
        assert new in Store(tmp_path / "all").records()
    assert list((tmp_path / "cache").rglob("*.index"))


# --------------------------------------------------------------------------- ended half-way


@pytest.mark.parametrize("links", [0, 1, 2, 5])
def test_a_killed_merge_leaves_whole_records_and_goes_on(links, tmp_path, monkeypatch):
    """Killed between two names: what has one is whole, with its curve."""
    monkeypatch.setattr("dgm_bench.merge.BATCH", 2)
    for seed in range(4):
        store_run(tmp_path / "a", seed=seed)
    if (child := os.fork()) == 0:
        kill_after(links)
        merge([tmp_path / "a"], tmp_path / "all")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    store = Store(tmp_path / "all", strict=True)
    assert len(store.records()) == links // 2
    assert all(store.curve(record) for record in store.records())
    merge([tmp_path / "a"], tmp_path / "all")
    assert tree(tmp_path / "all") == tree(tmp_path / "a")


def kill_after(links):
    link, done = os.link, []

    def counting(*paths):
        if len(done) == links:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(link(*paths))

    os.link = counting


def test_a_file_system_without_links_has_whole_records_too(tmp_path, monkeypatch):
    def no_links(*paths):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    store_run(tmp_path / "a")
    merge([tmp_path / "a"], tmp_path / "all")
    assert tree(tmp_path / "all") == tree(tmp_path / "a")


def test_a_full_disk_ends_it_in_one_line_and_leaves_nothing_half(tmp_path, monkeypatch):
    def full(file, content):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    store_run(tmp_path / "a")
    monkeypatch.setattr("dgm_bench.sealed._fill", full)
    with pytest.raises(ResultsError, match=r"No space left.*free space"):
        merge([tmp_path / "a"], tmp_path / "all")
    assert not tree(tmp_path / "all")


# --------------------------------------------------------------------------- the verb


@pytest.fixture
def verb(tmp_path, monkeypatch, capsys):
    """The verb: its exit code, and what it printed."""

    def run(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(["merge", *words])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err.splitlines()

    monkeypatch.chdir(tmp_path)
    return run


def test_the_verb_says_what_became_of_all(verb, tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0), ("all", 1.0)):
        store_run(tmp_path / name, value=value)
    newer = write_record(make_record(seed=7), tmp_path / "b")
    fields = json.loads(newer.read_text()) | {"schema_version": 3}
    del fields["digest"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    fields["digest"] = hashlib.sha256(text.encode()).hexdigest()
    newer.write_text(json.dumps(fields))
    newer.with_name("broken.json").write_bytes(DAMAGED)
    before = tree(tmp_path / "all")
    code, said, told = verb("a", "b", "--results", "all")
    assert (code, tree(tmp_path / "all")) == (1, before)
    counted = "0 runs merged, 1 there already, 1 in conflict, 1 damaged, 1 of another version"
    assert said == f"all: {counted}\n"
    conflict, damaged, version = told
    assert "has the run_id of all/runs" in conflict
    assert "broken.json: not a run record" in damaged
    assert version.startswith("b: has 1 record of schema version 3")
    assert verb("a", "--results", "all")[0] == 0
    assert verb("nowhere", "--results", "all")[0] == verb("--results", "all")[0] == 2


def test_a_dry_run_says_the_same_and_writes_nothing(verb, tmp_path):
    store_run(tmp_path / "a")
    code, said, _ = verb("a", "--dry-run", "--results", "all")
    assert (code, said) == (0, "all: 1 run to merge, 0 there already\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


WRONG = {
    "itself": "all: is merged into itself",
    "its runs": "all/runs: is merged into itself",
    "a file": "file: is a file",
    "none": "nowhere: no such folder",
    "no results": "empty: is no results folder",
}


@pytest.mark.parametrize(("words", "told"), WRONG.items())
def test_a_wrong_folder_is_told_before_anything_is_merged(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store_run(Path("a")), store_run(Path("all"), seed=1)
    Path("file").touch(), Path("empty").mkdir()
    before = tree(Path("all"))
    with pytest.raises(UsageError) as error:
        merge([Path("a"), Path(told.partition(":")[0])], Path("all"))
    assert str(error.value).startswith(told)
    assert tree(Path("all")) == before
