"""What is only kept to save time, given damage: what it is made of gives the same again."""

import shutil
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from factories import make_record
from fuzz.harness import Target
from fuzz.test_declarations import write as write_paper
from PIL import Image

from dgm_bench import kept_catalog, record_files, record_index
from dgm_bench.data.decoded import ARRAY, INDEX, LIST, Source, decoded
from dgm_bench.data.files import listed
from dgm_bench.declarations import load_paper
from dgm_bench.kept import Journal, each
from dgm_bench.records import write_record
from dgm_bench.store import Store

# ------------------------------------------------------------------------ decoded images


def source_of(home):
    """The images of a folder; their times, which are part of the key, change between inputs."""
    files = [file._replace(mtime_ns=0) for file in listed(home, ".", (".png",))]
    splits = {"train": files[:4], "val": files[4:]}
    return Source("grey", home, splits, (1, 4, 5), lambda image, _: (levels_of(image), ()))


def levels_of(image):
    return np.asarray(image)[:, :, None]


def decode(path, name):
    """Decode images beside the sample, with the sample in place of one of the array's files."""
    source, cache = source_of(path.parent / "home"), path.parent / "cache"
    if path.exists():
        shutil.copy(path, cache / source.key / name)
        if name == LIST:  # which is read where a process was killed before the index
            (cache / source.key / INDEX).unlink()
    found = decoded(source, cache)
    return [{**found.splits}, found.fingerprints, found.files, found.treated]


def write_decoded(path, name):
    home, cache = path.parent / "home", path.parent / "cache"
    home.mkdir()
    cache.mkdir()
    for number in range(6):
        levels = np.arange(20, dtype=np.uint8).reshape(4, 5) + number
        Image.fromarray(levels).save(home / f"{number}.png")
    decode(path, name)
    shutil.copy(cache / source_of(home).key / name, path)


def of_decoded(name):
    write, read = lambda path: write_decoded(path, name), lambda path: decode(path, name)
    return Target(f"decoded {name}", write, read, exact=True)


# ------------------------------------------------------------- parts of work, index of records


def work(path):
    """Go on with work of which the sample holds three of five parts."""
    folder = path.parent / "kept"
    shutil.rmtree(folder, ignore_errors=True)
    journal = Journal(folder, "identity")
    if path.exists():
        journal.folder.mkdir(parents=True)
        shutil.copy(path, journal.folder / "work.0.0")
    noise = torch.Generator().manual_seed(0)
    draw = lambda number: torch.rand(3, generator=noise) + number  # noqa: E731
    with journal.active():
        return list(each(range(5 if path.exists() else 3), draw, noise)), journal.save()


def write_work(path):
    work(path)
    shutil.copy(path.parent / "kept" / "identity" / "work.0.0", path)


def read_indexed(path):
    """Read records by an index, which is the sample."""
    cache = path.parent / "indexes"
    with (
        patch.object(record_files, "INDEXED_FROM", 1),
        patch.object(record_index, "time", SimpleNamespace(time_ns=lambda: 2**62)),
        patch.object(record_index, "cache_folder", lambda name: cache),
        patch.object(record_index, "_signature", lambda state: b"as it was"),
    ):
        index = record_index._file_of(path.parent / "runs")
        if path.exists():
            shutil.copy(path, index)
        return index, [record.model_dump() for record in Store(path.parent).records()]


def write_index(path):
    for number in range(3):
        write_record(make_record(run_id=f"run-{number}", seed=number), path.parent)
    shutil.copy(read_indexed(path)[0], path)


@cache
def toy_paper(folder):
    write_paper(folder / "toy" / "paper.toml")
    return load_paper(folder / "toy")


def read_catalogue(path):
    """Take a paper from what is kept of it, which is the sample."""
    kept = path.parent / "catalogues" / "sources.pickle"
    if path.exists():
        shutil.copy(path, kept)
    with (
        patch.object(kept_catalog, "_digest", lambda folder: "sources"),
        patch.object(kept_catalog, "cache_folder", lambda name: kept.parent),
    ):
        read = lambda: (toy_paper(path.parent),)  # noqa: E731
        found = kept_catalog.read_once(path.parent, read, lambda papers: ())
    return kept, [paper.model_dump() for paper in found.papers]


def write_catalogue(path):
    shutil.copy(read_catalogue(path)[0], path)


TARGETS = (
    *(of_decoded(name) for name in (ARRAY, LIST, INDEX)),
    Target("parts of work", write_work, work, exact=True),
    Target("index of records", write_index, read_indexed, exact=True),
    Target("catalogue", write_catalogue, read_catalogue, exact=True),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damage_to_what_is_kept_changes_nothing(target, try_damaged):
    try_damaged(target)
