"""Sealed files: what was written comes back, or nothing does, and that is told."""

import os
import subprocess
import sys
import time

import pytest

from dgm_bench.errors import ResultsError
from dgm_bench.processes import is_gone, own_mark
from dgm_bench.sealed import (
    read_sealed,
    sealed_size,
    write_atomically,
    write_sealed,
    written_together,
)

CONTENT = bytes(range(40)) + b"\nsha256:\n"


@pytest.fixture
def file(tmp_path):
    write_sealed(tmp_path / "file", CONTENT)
    return tmp_path / "file"


def flips(whole):
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_what_was_written_whole_or_in_parts_is_read(file):
    assert read_sealed(file, "") == CONTENT
    assert sealed_size(file, "") == len(CONTENT)
    assert file.read_bytes().startswith(CONTENT)
    whole = file.read_bytes()
    write_sealed(file, [CONTENT[:7], CONTENT[7:]])
    assert file.read_bytes() == whole


@pytest.mark.parametrize("read", [read_sealed, sealed_size])
def test_no_flipped_bit_no_truncation_and_no_addition_is_read(read, file, caplog):
    whole = file.read_bytes()
    others = [*flips(whole), *(whole[:size] for size in range(len(whole))), whole + b"\n", b""]
    for other in others:
        file.write_bytes(other)
        assert read(file, "it is made again") is None
        assert (file.with_name("file.damaged").read_bytes(), file.exists()) == (other, False)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(others)
    assert all(line.startswith(f"{file}: is damaged (") for line in told)
    assert all(line.endswith("; it is made again") and "\n" not in line for line in told)


@pytest.mark.parametrize("read", [read_sealed, sealed_size])
def test_a_missing_file_is_no_damage(read, file, caplog):
    assert read(file.with_name("other"), "") is None
    assert not caplog.records


@pytest.mark.parametrize("read", [read_sealed, sealed_size])
def test_what_the_system_does_not_let_us_read_is_not_damaged(read, file, tmp_path):
    with pytest.raises(ResultsError, match="cannot be read") as told:
        read(tmp_path, "it is made again")
    assert "delete" not in str(told.value)
    assert file.exists()


def test_writing_again_removes_what_was_set_aside(file):
    file.write_bytes(b"other")
    read_sealed(file, "")
    write_sealed(file, CONTENT)
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def dead_mark():
    """The mark of a process that is over."""
    words = "from dgm_bench.processes import own_mark; print(own_mark())"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True, text=True)
    return done.stdout.strip()


def test_temporary_files_of_dead_processes_alone_are_removed(tmp_path):
    other = own_mark()[:-8] + "0" * 8
    marks = {"dead": dead_mark(), "live": own_mark(), "elsewhere": other, "old": other, "odd": "x"}
    files = {name: tmp_path / f".a.b.{mark}.{name}.tmp" for name, mark in marks.items()}
    for path in files.values():
        path.write_bytes(b"half")
    os.utime(files["old"], (0, time.time() - 25 * 3600))
    write_atomically(tmp_path / "a.b", b"whole")
    left = {name for name, path in files.items() if path.exists()}
    assert left == {"live", "elsewhere", "odd"}


def test_a_process_whose_number_another_has_now_is_gone():
    number, started, machine = own_mark().split("-")
    assert not is_gone(own_mark())
    assert is_gone(f"{number}-{int(started) - 1}-{machine}")


def test_a_temporary_file_has_its_writer_s_mark(tmp_path):
    def parts():
        (name,) = (path.name for path in tmp_path.iterdir())
        assert name.startswith(f".a.b.{own_mark()}.")
        assert name.endswith(".tmp")
        yield b"whole"

    write_atomically(tmp_path / "a.b", parts())
    assert [path.name for path in tmp_path.iterdir()] == ["a.b"]


def test_files_that_are_written_together_are_on_the_disk_before_they_have_names(
    tmp_path, monkeypatch
):
    """Also where no call flushes all of them, as on Windows."""
    flushed, flush = [], os.fsync

    def note(descriptor):
        assert not list(tmp_path.glob("[ab]"))
        flushed.append(os.fstat(descriptor).st_size)
        flush(descriptor)

    monkeypatch.delattr(os, "sync")
    monkeypatch.setattr(os, "fsync", note)
    with written_together() as write:
        write(tmp_path / "a", b"1")
        write(tmp_path / "b", b"22")
    assert (flushed, (tmp_path / "b").read_bytes()) == ([1, 2], b"22")
