"""Readers of published data, given damaged files."""

import gzip
import pickle

import numpy as np
import pytest
from fuzz.harness import Target
from old_frames import save_frame

from dgm_bench.data.frames import read_frame
from dgm_bench.data.images import read_cifar_batch
from dgm_bench.data.labelled_images import read_idx_labels

RNG = np.random.default_rng(0)
GZIP = gzip.decompress, gzip.compress


def write_idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return lambda path: path.write_bytes(gzip.compress(header + array.tobytes()))


def grey(*shape):
    return RNG.integers(256, size=shape, dtype=np.uint8)


def write_batch(protocol):
    batch = {b"labels": [1, 2], b"data": grey(2, 3072), b"filenames": [b"a.png", b"b.png"]}
    return lambda path: path.write_bytes(pickle.dumps(batch, protocol))


def write_frame(path):
    save_frame(path, {name: RNG.normal(size=5) for name in ("Time", "Meth", "Eth", "R1")})


TARGETS = (
    Target("idx labels", write_idx(grey(9)), read_idx_labels, inside=GZIP),
    *(Target(f"pickle {n}", write_batch(n), read_cifar_batch) for n in (0, 2, 4)),
    Target("pickled frame", write_frame, lambda path: read_frame(path).to_numpy()),
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_data_are_refused_or_read(target, try_damaged):
    try_damaged(target)
