"""Readers of published data, given damaged files."""

import gzip

import numpy as np
import pytest
from fuzz.harness import Target

from dgm_bench.data.labelled_images import read_idx_labels

RNG = np.random.default_rng(0)
GZIP = gzip.decompress, gzip.compress


def write_idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return lambda path: path.write_bytes(gzip.compress(header + array.tobytes()))


def grey(*shape):
    return RNG.integers(256, size=shape, dtype=np.uint8)


TARGETS = (Target("idx labels", write_idx(grey(9)), read_idx_labels, inside=GZIP),)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_data_are_refused_or_read(target, try_damaged):
    try_damaged(target)
