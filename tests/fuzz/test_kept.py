"""Readers of what runs keep, given damaged files: each has a digest, so that all damage shows."""

import hashlib
import logging

import pytest
import torch
from factories import make_record
from fuzz.harness import Target

from dgm_bench.errors import DgmBenchError, ResultsError
from dgm_bench.keyed_tensors import read_keyed, write_keyed
from dgm_bench.records import read_record, write_record
from dgm_bench.store import Store
from dgm_bench.train.checkpoint import CheckpointFile
from dgm_bench.workdir import WorkFolder

CURVE = b"step,epoch,seconds,validation\n10,1,0.5,0.123456789\n20,2,1.0,\n30,3,1.5,-0.75\n"
STATE = {
    "identity": "0" * 64,
    "model": {"weight": torch.arange(6.0).view(2, 3)},
    "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    "generator": torch.arange(16, dtype=torch.uint8),
}
TENSORS = {"a": torch.arange(6).view(2, 3).byte(), "b": torch.tensor([0.5, -1.0])}


def kept(read):
    """A reader that says None of what it set aside, in one line on the screen."""

    def reading(path):
        lines = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        logging.getLogger("dgm_bench").addHandler(handler)
        try:
            value = read(path)
        finally:
            logging.getLogger("dgm_bench").removeHandler(handler)
        if value is not None:
            return value
        (line,) = lines
        assert not path.exists()
        raise ResultsError("a damaged file", line, "it is made again")

    return reading


def write_run(path):
    known = {"curve": "run-1.csv", "curve_sha256": hashlib.sha256(CURVE).hexdigest()}
    found = write_record(make_record(run_id="run-1", **known), path.parent)
    found.with_suffix(".csv").write_bytes(CURVE)
    return found


def write_whole_record(path):
    path.write_bytes(write_run(path).read_bytes())


def write_curve(path):
    write_run(path)
    path.write_bytes(CURVE)


def read_curve(path):
    """The curve of the record, with the file in the place of its own."""
    store = Store(path.parent)
    (record,) = store.records()
    record.path(path.parent).with_suffix(".csv").write_bytes(path.read_bytes())
    return store.curve(record)


def folder_of(path):
    """A work folder whose state is the file."""
    folder = WorkFolder(path.parent, "0" * 64, 0)
    folder.path = path.parent
    return folder


TARGETS = (
    Target(
        "checkpoint",
        lambda path: CheckpointFile(path.parent).save(STATE),
        kept(lambda path: CheckpointFile(path.parent).load()),
        exact=True,
        filename="checkpoint.pt",
    ),
    Target(
        "kept tensors",
        lambda path: write_keyed(path, "key", TENSORS, {"note": "n"}),
        kept(lambda path: read_keyed(path, "key")),
        exact=True,
    ),
    Target(
        "run.json",
        lambda path: folder_of(path).begin("code"),
        kept(lambda path: folder_of(path).state()),
        exact=True,
        filename="run.json",
    ),
    Target("record", write_whole_record, read_record, exact=True, filename="sample.json"),
    Target("curve", write_curve, read_curve, exact=True),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_of_a_run_are_told_or_read_as_they_were(target, try_damaged):
    try_damaged(target)


def test_a_reader_that_gives_nothing_is_refused(tmp_path):
    """What the targets above rest on."""
    target = TARGETS[0]
    target.write(tmp_path / target.filename)
    (tmp_path / target.filename).write_bytes(b"")
    with pytest.raises(DgmBenchError, match="is damaged"):
        target.read(tmp_path / target.filename)
