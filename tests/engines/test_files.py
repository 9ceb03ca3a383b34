"""Files of runs between results folders that share no disk, and at addresses of fsspec."""

import itertools
import os
from types import SimpleNamespace

import pytest

from dgm_bench.engines.files import Content, Former, Outgoing, Storage, needed_by, take_in
from dgm_bench.engines.tasks import Task
from dgm_bench.errors import DamagedError, ResultsError, UsageError
from dgm_bench.workdir import WorkFolder

TASK = Task(
    id="0123456789ab-s0",
    cells=("paper/table/row/column",),
    seeds=(0,),
    settings=(),
    recipe_hash="0123456789abcdef",
)
RUN = "work/0123456789ab-s0"


def write(results, **files):
    for name, text in files.items():
        path = results / RUN / name.replace("__", "/").replace("_pt", ".pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(results):
    paths = (path for path in results.rglob("*") if path.is_file())
    return {path.relative_to(results).as_posix(): path.read_text() for path in paths}


def sync(outgoing, there):
    changes, marks = outgoing.look()
    there.take_in(changes) if isinstance(there, Storage) else take_in(there, changes)
    outgoing.note(marks)
    return changes


@pytest.fixture(params=["folder", "file", "memory"])
def there(request, tmp_path):
    """What takes changes in, and a function that reads all that is there."""
    if request.param == "folder":
        return tmp_path / "there", lambda: content(tmp_path / "there")
    address = {"file": str(tmp_path / "kept"), "memory": f"memory://{tmp_path.name}"}
    storage = Storage(address[request.param])
    read = {"work": {}}

    def files():
        found = storage.needed_by(TASK)
        return read["work"] | {place: c.content.decode() for place, c in found.items()}

    return storage, files


def test_the_other_side_has_what_is_here_after_each_look(tmp_path, there):
    """New files, the newest checkpoint that becomes the one before, others that go."""
    here, (side, files) = tmp_path / "here", there
    outgoing = Outgoing(here)
    checkpoint = here / RUN / "train/checkpoint.pt"
    write(here, run="a", train__checkpoint_pt="first")
    sync(outgoing, side)
    assert files() == content(here)
    os.replace(checkpoint, checkpoint.with_name("checkpoint.previous.pt"))
    write(here, train__checkpoint_pt="second")
    changes = sync(outgoing, side)
    assert files() == content(here)
    moved = [change for change in changes.values() if isinstance(change, Former)]
    assert moved == [Former(f"{RUN}/train/checkpoint.pt")]  # its bytes are not sent again
    checkpoint.unlink()
    sync(outgoing, side)
    assert files() == content(here)
    assert not sync(outgoing, side)


def test_a_folder_that_took_in_only_the_first_changes_is_one_a_process_could_have_left(tmp_path):
    """No run ends before its record is there, no record before what it names."""
    here = tmp_path / "here"
    write(here, run="ended", train__checkpoint_pt="x")
    (here / RUN / "run").rename(here / RUN / "run.json")
    for place in ("runs/p/t/c/r/1.json", "runs/p/t/c/r/1.csv", "artifacts/1/weights.safetensors"):
        (here / place).parent.mkdir(parents=True, exist_ok=True)
        (here / place).write_text(place)
    state = here / "work/submissions/s/tasks/t.json"
    state.parent.mkdir(parents=True)
    state.write_text("done")
    assert list(Outgoing(here).look()[0]) == [
        "artifacts/1/weights.safetensors",
        "runs/p/t/c/r/1.csv",
        "runs/p/t/c/r/1.json",
        f"{RUN}/train/checkpoint.pt",
        f"{RUN}/run.json",
        "work/submissions/s/tasks/t.json",
    ]


def test_a_look_waits_for_a_folder_to_be_still(tmp_path, monkeypatch):
    """Else it could find a new file beside an old one, which never were there together."""
    write(tmp_path, a="old", b="old")
    writes, read = itertools.count(), "dgm_bench.engines.files._bytes"

    def beside(path):
        if next(writes) == 0:
            text = path.read_bytes()
            write(tmp_path, a="newer", b="newer")
            return text
        return path.read_bytes()

    monkeypatch.setattr(read, beside)
    changes, _ = Outgoing(tmp_path).look()
    assert {change.content for change in changes.values()} == {b"newer"}


def test_what_is_this_machines_own_stays(tmp_path):
    names = ("lock", "lock.held", ".x.tmp", "checkpoint.pt.damaged")
    for name in names:
        write(tmp_path, **{name: "x"})
    request = tmp_path / "work/submissions/s/cancel/t"
    request.parent.mkdir(parents=True)
    request.touch()
    assert Outgoing(tmp_path).look()[0] == {}


def test_a_worker_gets_the_records_of_its_runs_and_not_those_of_others(tmp_path):
    folder = WorkFolder(tmp_path, TASK.recipe_hash, 0)
    with folder.locked():
        own = folder.begin("sources").run_id
    for run in (own, "another"):
        path = tmp_path / f"runs/paper/table/column/row/{run}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    found = needed_by(tmp_path, TASK)
    assert set(found) == {f"{RUN}/run.json", f"runs/paper/table/column/row/{own}.json"}
    assert not Outgoing(tmp_path, [*found, "runs/paper/table/column/row/another.json"]).look()[0]


def test_checkpoints_on_scratch_go_to_a_worker_too(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_WORK", str(tmp_path / "scratch"))
    results = tmp_path / "results"
    folder = WorkFolder(results, TASK.recipe_hash, 0)
    with folder.locked():
        folder.begin("sources")
    stage = folder.stage("train")
    stage.mkdir(parents=True)
    (stage / "checkpoint.pt").write_text("x")
    assert not stage.is_relative_to(results)
    assert set(needed_by(results, TASK)) == {f"{RUN}/run.json", f"{RUN}/train/checkpoint.pt"}


def test_what_was_damaged_on_its_way_changes_nothing(tmp_path):
    changes = {"a": Content.of(b"whole"), "b": Content(b"torn", Content.of(b"whole").sha256)}
    with pytest.raises(DamagedError, match="b: was damaged on its way"):
        take_in(tmp_path, changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "reason"),
    [("nothing://x", "cannot be used"), ("file:///proc/no/such", "cannot be written")],
)
def test_an_address_that_cannot_be_used_is_told_before_there_is_anything_to_lose(address, reason):
    with pytest.raises(UsageError, match=reason):
        Storage(address).require_writable()


def test_what_comes_to_a_mirror_goes_on_to_its_address(tmp_path, monkeypatch):
    """Records after what they name, and how far runs are; checkpoints stay."""
    asked = []
    remote = SimpleNamespace(put=asked.extend, put_over=lambda place: asked.append([place]))
    monkeypatch.setattr("dgm_bench.engines.files.mirrored_at", lambda results: remote)
    places = ["artifacts/1/w", "runs/1.csv", "runs/1.json", f"{RUN}/train/c.pt", f"{RUN}/run.json"]
    take_in(tmp_path, dict.fromkeys(places, Content.of(b"x")) | {f"{RUN}/gone/run.json": None})
    assert asked == [*places[:3], [f"{RUN}/run.json"]]


def test_an_address_that_is_lost_is_told_in_one_line(monkeypatch):
    storage = Storage("memory://lost")

    def fail(*_, **__):
        raise PermissionError("denied")

    monkeypatch.setattr(storage.files, "pipe_file", fail)
    with pytest.raises(ResultsError, match=r"memory://lost: cannot be reached \(PermissionError"):
        storage.take_in({"work/a": Content.of(b"")})


def test_a_password_in_an_address_is_not_told(monkeypatch):
    storage = Storage("memory://me:hidden@lost")
    answers = PermissionError("hidden is wrong")
    monkeypatch.setattr(storage.files, "pipe_file", lambda *_: (_ for _ in ()).throw(answers))
    with pytest.raises(ResultsError) as caught:
        storage.take_in({"work/a": Content.of(b"")})
    assert "memory://lost" in str(caught.value)
    assert "hidden" not in str(caught.value)
