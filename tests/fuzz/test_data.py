"""Readers of published data, given damaged files."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import tarfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
import scipy.io
from fuzz.harness import Target
from old_frames import save_frame
from PIL import Image

from dgm_bench.data import arrays, tabular
from dgm_bench.data.archives import unpack
from dgm_bench.data.binary_images import read_amat
from dgm_bench.data.cards import Download
from dgm_bench.data.download import download
from dgm_bench.data.frames import read_frame
from dgm_bench.data.image_files import opened
from dgm_bench.data.image_folder import square
from dgm_bench.data.images import read_cifar_batch
from dgm_bench.data.matlab import read_mat

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


def write_npz(path):
    with path.open("wb") as stream:
        np.savez_compressed(stream, images=grey(3, 8), drawer=np.arange(3))


def write_npy(path):
    with path.open("wb") as stream:
        np.save(stream, RNG.normal(size=(4, 3)))


def write_mat(packed):
    parts = {"data": RNG.random((4, 3)), "testdata": grey(2, 3)}
    return lambda path: scipy.io.savemat(path, parts, appendmat=False, do_compression=packed)


def write_hdf5(**packing):
    def write(path):
        with h5py.File(path, "w") as stored:
            for key in ("train", "test"):
                stored.create_dataset(key, data=RNG.normal(size=(9, 5)), **packing)

    return write


def write_csv(path):
    lines = [
        ",".join(map(repr, row)) for row in RNG.integers(2, size=(6, 4)).astype(float).tolist()
    ]
    path.write_text("# label,f0,f1,f2,mass\n" + ",\n".join(lines))


def write_amat(path):
    rows = RNG.integers(2, size=(2, 784))
    path.write_text("".join(" ".join(map(str, row)) + " \n" for row in rows).replace(" \n", "\n"))


def write_tar(path):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {"data/" + "long" * 40: b"rows" * 200, "b": b"", "é": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read_tar(path):
    with TemporaryDirectory(dir=path.parent) as folder:
        try:
            unpack(path, Path(folder), 10_000)
        finally:
            inside = path.parent.rglob("*")
            assert all(found.is_relative_to(folder) or found == path for found in inside)
        files = (found for found in sorted(Path(folder).rglob("*")) if found.is_file())
        return {str(found.relative_to(folder)): found.read_bytes() for found in files}


def write_image(**settings):
    image = Image.fromarray(grey(12, 10, 3))
    return lambda path: image.save(path, **settings)


def read_image(path):
    with opened(path) as image:
        found, done = square(image, path, side=8)
        return np.asarray(found), done


FILE = bytes(range(200))
SHA256 = hashlib.sha256(FILE).hexdigest()


def write_answer(path):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\nContent-Type: application/gzip\r\n\r\n"
    path.write_bytes(head + FILE)


ANSWERS = [b""]


def answer_all(listening):
    """Give every request the last of the answers."""
    while True:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(ANSWERS[-1])
            connection.shutdown(socket.SHUT_WR)


@cache
def server_of(process):
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=answer_all, args=(listening,), daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/file"


def read_answer(path):
    ANSWERS[:] = [path.read_bytes()]
    known = Download((server_of(os.getpid()),), "root/file", size=200, sha256=SHA256)
    download(known, path.parent, progress=False)
    return (path.parent / "root/file").read_bytes()


TARGETS = (
    Target("png", write_image(format="PNG"), read_image),
    Target("jpeg", write_image(format="JPEG"), read_image),
    Target("tar", write_tar, read_tar, inside=GZIP),
    Target("idx images", write_idx(grey(3, 4, 5)), arrays.read_idx, inside=GZIP),
    Target("idx labels", write_idx(grey(9)), lambda path: arrays.read_idx(path, 1), inside=GZIP),
    Target("npy", write_npy, arrays.read_npy),
    Target("npz", write_npz, lambda path: arrays.read_npz(path, "images", "drawer")),
    Target("mat", write_mat(False), lambda path: read_mat(path, "data", "testdata")),
    Target("mat, deflated", write_mat(True), lambda path: read_mat(path, "data", "testdata")),
    Target("hdf5", write_hdf5(), lambda path: arrays.read_hdf5(path, "train", "test")),
    Target(
        "hdf5, deflated",
        write_hdf5(compression="gzip", chunks=(3, 5)),
        lambda path: arrays.read_hdf5(path, "train", "test"),
    ),
    Target("csv", write_csv, tabular._signal_rows),
    Target("amat", write_amat, read_amat),
    *(Target(f"pickle {n}", write_batch(n), read_cifar_batch) for n in (0, 2, 4)),
    Target("pickled frame", write_frame, lambda path: read_frame(path).to_numpy()),
)


#: What a server answers, which is no file.
ANSWER = Target("http", write_answer, read_answer, exact=True)


@pytest.mark.parametrize("target", [*TARGETS, ANSWER], ids=lambda target: target.name)
def test_damaged_data_are_refused_or_read(target, try_damaged):
    try_damaged(target)
