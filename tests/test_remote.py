"""Results at an address: fetched, put, held; and what is told where that cannot be done."""

import os
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from factories import make_record
from fsspec.implementations.memory import MemoryFileSystem
from stored_runs import store_run
from test_merge import tree, with_artifact

from dgm_bench import locks, remote
from dgm_bench.cli import cli
from dgm_bench.errors import HeldError, ResultsError
from dgm_bench.records import read_record
from dgm_bench.remote import Remote, mirrored_at
from dgm_bench.workdir import WorkFolder

ADDRESS = "memory://bucket/results"


@pytest.fixture(autouse=True)
def empty():
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Become a machine: the caches of two have nothing in common."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Remote(ADDRESS)

    return become


def at_the_address():
    found = fsspec.filesystem("memory").find("/bucket/results")
    return {path.removeprefix("/bucket/results/") for path in found}


def records_of(mirror):
    return {name: content for name, content in tree(mirror).items() if "/" in name}


def test_what_one_machine_put_another_has_and_only_what_is_new_is_fetched(machine, monkeypatch):
    here = machine("a")
    with_artifact(here.fetch())
    here.put()
    there = machine("b")
    assert set(records_of(there.fetch())) == {
        name for name in records_of(here.mirror) if not name.endswith(".safetensors")
    }
    assert records_of(there.fetch(weights=True)) == records_of(here.mirror)
    second = store_run(there.mirror, seed=1)
    there.put()
    fetched = []
    monkeypatch.setattr(MemoryFileSystem, "cat_file", counting(MemoryFileSystem.cat_file, fetched))
    again = machine("a").fetch()
    assert {Path(path).stem for path in fetched} == {second.run_id}
    assert records_of(again) == records_of(there.mirror)


def counting(function, calls):
    def counted(self, path, *words, **more):
        calls.append(path)
        return function(self, path, *words, **more)

    return counted


def test_a_record_is_put_last_and_what_is_left_the_next_time(machine, monkeypatch):
    here, put_file = machine("a"), MemoryFileSystem.put_file
    with_artifact(here.fetch())

    def ending(self, source, target, *words, **more):
        if target.endswith(".json"):
            raise ConnectionError("gone")
        return put_file(self, source, target, *words, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", ending)
    with pytest.raises(ResultsError, match=r"cannot be written .*gone"):
        here.put()
    assert {Path(name).suffix for name in at_the_address()} == {".csv", ".png", ".safetensors"}
    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    here.put()
    assert at_the_address() == set(records_of(here.mirror))


def test_nothing_at_the_address_is_written_over(machine):
    here, there = machine("a"), machine("b")
    for place, value in ((here, 1.0), (there, 2.123)):
        machine("a" if place is here else "b")
        place.fetch()
        store_run(place.mirror, value=value)
    here.put()
    with pytest.raises(ResultsError, match=r"\.json: is there with another content"):
        there.put()
    (name,) = (name for name in at_the_address() if name.endswith(".json"))
    content = fsspec.filesystem("memory").cat_file(f"/bucket/results/{name}")
    assert content == (here.mirror / name).read_bytes()


def test_what_was_deleted_at_the_address_is_gone_here_too(machine):
    here = machine("a")
    record = store_run(here.fetch())
    here.put()
    here.fetch()
    fsspec.filesystem("memory").rm(f"/bucket/results/runs/{'/'.join(record.place)}")
    here.fetch()
    assert not record.path(here.mirror).exists()
    new = make_record(seed=5)
    store_run(here.mirror, seed=5)
    here.fetch()
    assert len(list(here.mirror.rglob("*.json"))) == 1, new


# --------------------------------------------------------------------------- locks


def test_a_run_that_another_machine_does_or_has_done_is_known(machine):
    here, there = machine("a").fetch(), machine("b").fetch()
    machine("a")
    folder = WorkFolder(here, "0" * 64, 0)
    with folder.locked():
        state = folder.begin("code")
        machine("b")
        with pytest.raises(HeldError, match=f"under way in process {os.getpid()} "):
            WorkFolder(there, "0" * 64, 0)._held_elsewhere().__enter__()
        machine("a")
        record = store_run(here)
        state.status, state.record = "complete", "/".join(("runs", *record.place))
        Remote(ADDRESS).put()
        folder.save(state)
    machine("b")
    other = WorkFolder(there, "0" * 64, 0)
    with other.locked():
        assert other.state() == state
        assert read_record(there / state.record) == record
    assert not [name for name in at_the_address() if "lock" in name]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(locks, "LEASE", 0.4)
    monkeypatch.setattr(locks, "BEAT", 0.1)
    monkeypatch.setattr(locks, "_PAUSE", 0.02)


def elsewhere(here, beats):
    """A holder on another machine, which beats for some time."""
    here.write("lock", "process 1 on elsewhere since today\n1-1-00000000\nits-own\n")

    def beat():
        for number in range(beats):
            here.write("lock.its-own", str(number))
            time.sleep(0.1)

    thread = threading.Thread(target=beat)
    thread.start()
    return thread


def test_a_holder_elsewhere_is_respected_while_it_beats_and_then_taken_over(short, machine, caplog):
    here = machine("a")
    beating = elsewhere(here, 8)
    with pytest.raises(HeldError, match="it runs in process 1 on elsewhere"):
        here.holding("lock", "it runs", "wait").__enter__()
    assert beating.is_alive()
    beating.join()
    with here.holding("lock", "it runs", "wait"):
        assert "its holder is gone: process 1 on elsewhere" in caplog.text
        time.sleep(0.25)
        assert len(here.read("lock").split("\n")) == 4
        (beats,) = (name for name in at_the_address() if name.startswith("lock."))
        assert beats != "lock.its-own"
        locks.require_held()
    assert not at_the_address()


def test_a_lock_that_was_lost_ends_the_writing_and_stays_the_other_ones(short, machine):
    here = machine("a")
    with here.holding("lock", "it runs", "wait"):
        elsewhere(here, 1).join()
        with pytest.raises(locks.LostLockError, match="taken over by process 1 on elsewhere"):
            store_run(here.mirror)
        assert not list(here.mirror.rglob("*.json"))
    assert "elsewhere" in here.read("lock")


# --------------------------------------------------------------------------- the verbs


def test_verbs_take_addresses(machine, capsys):
    here = machine("a")
    with_artifact(here.fetch())
    here.put()
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            cli.main(["merge", ADDRESS, "--results", "memory://other"])
        assert end.value.code == 0
    assert "0 runs merged, 1 there already" in capsys.readouterr().out
    found = fsspec.filesystem("memory").find("/other")
    assert {path.removeprefix("/other/") for path in found} == at_the_address()
    assert mirrored_at(Remote("memory://other").mirror) is not None


def test_an_address_of_files_is_a_folder(tmp_path, capsys):
    store_run(tmp_path / "a b")
    with pytest.raises(SystemExit):
        cli.main(["merge", f"{(tmp_path / 'a b').as_uri()}", "--results", str(tmp_path / "all")])
    assert tree(tmp_path / "all") == tree(tmp_path / "a b")


class Refusing(MemoryFileSystem):
    """Storage that answers with an error, whatever it is asked."""

    protocol = "refusing"
    error = OSError()

    def find(self, *words, **more):
        raise self.error


ERRORS = {
    "does not answer": (ConnectionError("timed out"), "timed out.*see that it answers"),
    "credentials": (PermissionError("Forbidden"), "Forbidden.*check the credentials"),
    "secret": (ConnectionError("no host me:word@host"), r"no host me:\*\*\*@host"),
}


@pytest.mark.parametrize(("error", "told"), ERRORS.values(), ids=ERRORS)
def test_storage_that_refuses_is_told_in_one_line(error, told, machine, monkeypatch):
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "error", error)
    machine("a")
    with pytest.raises(ResultsError, match=f"refusing://host/x: cannot be read .*{told}"):
        Remote("refusing://me:word@host/x").fetch()


def test_storage_that_may_only_be_read_is_told(machine, monkeypatch):
    def refuse(*words, **more):
        raise PermissionError("AccessDenied")

    here = machine("a")
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    here.fetch()
    with pytest.raises(ResultsError, match=r"cannot be written .*AccessDenied"):
        here.holding("lock", "it runs", "wait").__enter__()


def test_what_is_not_installed_or_no_address_is_told(machine, monkeypatch):
    machine("a")
    with pytest.raises(ResultsError, match=r"nosuch://x: .*nosuch.*write it as s3://"):
        Remote("nosuch://x").fetch()
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ResultsError, match=r"needs fsspec: pip install 'dgm-bench.remote.'"):
        Remote(ADDRESS).fetch()
    assert remote.Remote(ADDRESS).shown == ADDRESS
