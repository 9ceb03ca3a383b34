"""Digits, MNIST and CIFAR-10 as bytes with their classes; the real files where they are."""

import gzip
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dgm_bench import data
from dgm_bench.data import labelled_images
from dgm_bench.data.dataset import fingerprint
from dgm_bench.errors import DataError

RNG = np.random.default_rng(0)
NAMES = ("digits-labelled", "mnist-labelled", "cifar10-labelled")
SMALL = {"train": 5, "val": 3, "test": 4}


def small_card(name):
    return replace(data.card(name), sizes=SMALL)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def mnist_home(tmp_path):
    """Eight images train or validate, four test; files in the order of the card."""
    arrays = [RNG.integers(256, size=(n, 28, 28), dtype=np.uint8) for n in (8, 4)]
    arrays += [RNG.integers(10, size=n, dtype=np.uint8) for n in (8, 4)]
    for file, array in zip(data.card("mnist-labelled").files, arrays, strict=True):
        write_idx(tmp_path / file.path, array)
    return tmp_path, arrays


@pytest.fixture
def cifar_home(tmp_path):
    """Six batches of two images: five of train and validation, one of the test."""
    rows = RNG.integers(256, size=(6, 2, 3072), dtype=np.uint8)
    labels = RNG.integers(10, size=(6, 2))
    for file, x, y in zip(data.card("cifar10-labelled").files, rows, labels, strict=True):
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps({b"labels": y.tolist(), b"data": x}, protocol=2))
    return tmp_path, rows.reshape(12, 3, 32, 32), labels.reshape(12)


# ------------------------------------------------------------------------- the real sets


@pytest.mark.parametrize("name", NAMES)
def test_a_real_set_is_as_its_card_says(name, data_root):
    if not data.state(name, data_root).loadable:
        pytest.skip(f"set DGM_BENCH_DATA to a folder with {name}")
    card, loaded = data.card(name), data.load(name, data_root, offline=True)
    assert loaded.sizes == dict(card.sizes)
    assert loaded.event_shape == loaded.image_shape == card.event_shape
    assert (loaded.unit, len(loaded.classes)) == (card.unit, card.classes)
    published = all(check.outcome == "ok" for check in data.verify(name, data_root))
    assert loaded.verified == published
    assert loaded.resident
    for split, images in loaded.splits.items():
        labels = loaded.labels[split]
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.shape == (len(images),)
        assert torch.bincount(labels, minlength=10).min() > 0.05 * len(images)


def test_images_of_one_class_of_mnist_are_like_each_other(data_root):
    if not data.state("mnist-labelled", data_root).loadable:
        pytest.skip("set DGM_BENCH_DATA to a folder with mnist-labelled")
    loaded = data.load("mnist-labelled", data_root, offline=True)
    assert loaded.labels["train"][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert loaded.labels["test"][:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    x, y = loaded.splits["train"].flatten(1).float(), loaded.labels["train"]
    means = torch.stack([x[y == digit].mean(0) for digit in range(10)])
    for split in ("val", "test"):
        nearest = torch.cdist(loaded.splits[split].flatten(1).float(), means).argmin(1)
        right = (nearest == loaded.labels[split]).double().mean()
        assert float(right) > 0.8  # nearest class mean: about 0.82; wrong labels give 0.1


def test_the_labelled_sets_hold_the_images_of_the_unlabelled(data_root):
    for name in ("mnist", "cifar10"):
        if not data.state(f"{name}-labelled", data_root).loadable:
            pytest.skip(f"set DGM_BENCH_DATA to a folder with {name}-labelled")
        levels = data.load(name, data_root, args={"convention": "ffjord"}, offline=True).splits
        loaded = data.load(f"{name}-labelled", data_root, offline=True).splits
        margin = 2 if name == "mnist" else 0
        inner = slice(margin, 32 - margin)
        ours = torch.cat([loaded["train"], loaded["val"]])[..., inner, inner]
        assert torch.equal(ours, levels["train"])
        assert torch.equal(loaded["test"][..., inner, inner], levels["test"])


# -------------------------------------------------------------------------------- digits


def test_digits_are_those_of_the_unlabelled_set_in_the_same_places(tmp_path):
    plain, labelled = data.load("digits", tmp_path), data.load("digits-labelled", tmp_path)
    for split, logits in plain.splits.items():
        levels = (plain.to_pixels(logits) * 17).floor()
        bytes_ = torch.round(255 * levels / 16).to(torch.uint8).reshape(-1, 1, 8, 8)
        assert torch.equal(labelled.splits[split], bytes_)


def test_digits_keep_their_labels(tmp_path):
    loaded, published = data.load("digits-labelled", tmp_path), load_digits()
    known = {
        np.rint(255 * image / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(published.data, published.target, strict=True)
    }
    for split, images in loaded.splits.items():
        expected = [known[image.numpy().tobytes()] for image in images]
        assert loaded.labels[split].tolist() == expected
    assert loaded.classes == tuple("0123456789")


# ----------------------------------------------------------------------- pixels and layout


def test_pixels_are_bytes_by_255_without_noise_and_only_once():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = labelled_images.pixels(levels, torch.Generator())
    assert x.dtype == torch.float32
    assert torch.equal((x.double() * 255).round().to(torch.uint8), levels)
    assert (float(x.min()), float(x.max())) == (0, 1)
    assert labelled_images.pixels(x) is x


def test_small_mnist_is_padded_and_split_in_order(mnist_home):
    home, (train, test, train_labels, test_labels) = mnist_home
    loaded = labelled_images.load_mnist(small_card("mnist-labelled"), home)
    x = torch.cat([loaded.splits["train"], loaded.splits["val"]])
    assert np.array_equal(x[:, 0, 2:30, 2:30].numpy(), train)
    assert int(x.sum(dtype=torch.int64)) == int(train.sum(dtype=np.int64))  # zeros around them
    assert np.array_equal(loaded.splits["test"][:, 0, 2:30, 2:30].numpy(), test)
    assert loaded.labels["train"].tolist() == train_labels[:5].tolist()
    assert loaded.labels["val"].tolist() == train_labels[5:].tolist()
    assert loaded.labels["test"].tolist() == test_labels.tolist()
    assert not loaded.verified
    assert "data verify" in loaded.note
    assert loaded.augment is loaded.dequantise is labelled_images.pixels
    assert loaded.to_pixels(torch.tensor([-0.5, 0.5, 1.5])).tolist() == [0, 0.5, 1]


def test_small_cifar10_keeps_images_and_labels_together(cifar_home):
    home, images, labels = cifar_home
    card = replace(small_card("cifar10-labelled"), sizes={"train": 7, "val": 3, "test": 2})
    loaded = labelled_images.load_cifar10(card, home)
    assert loaded.sizes == card.sizes
    assert np.array_equal(torch.cat(list(loaded.splits.values())).numpy(), images)
    assert np.array_equal(torch.cat(list(loaded.labels.values())).numpy(), labels)
    assert loaded.classes[3] == "cat"
    assert loaded.fingerprints() == {n: fingerprint(x) for n, x in loaded.splits.items()}


def test_the_labelled_sets_share_files_and_downloads_with_the_unlabelled():
    mnist, labelled = data.card("mnist"), data.card("mnist-labelled")
    assert labelled.files[:2] == mnist.files
    assert labelled.downloads[:2] == mnist.downloads
    assert [item.size for item in labelled.downloads[2:]] == [28_881, 4_542]
    cifar10, labelled = data.card("cifar10"), data.card("cifar10-labelled")
    assert (labelled.files, labelled.downloads) == (cifar10.files, cifar10.downloads)
    assert labelled.homes == cifar10.homes


# ---------------------------------------------------------------------------- broken files


def test_labels_that_do_not_fit_are_refused(mnist_home):
    home, card = mnist_home[0], small_card("mnist-labelled")
    write_idx(home / card.files[3].path, np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="3 labels do not fit 4 images"):
        labelled_images.load_mnist(card, home)
    write_idx(home / card.files[3].path, np.full(4, 10, np.uint8))
    with pytest.raises(DataError, match="do not fit"):
        labelled_images.load_mnist(card, home)


def test_too_few_train_images_are_refused(mnist_home):
    with pytest.raises(DataError, match="8 train images, expected more than 50,000"):
        labelled_images.load_mnist(data.card("mnist-labelled"), mnist_home[0])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (gzip.compress(b"\x00\x00\x08\x01" + bytes(900))[:-20], "truncated or corrupt"),
        (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x05abc"), "not an idx file of labels"),
        (gzip.compress(b"\x00\x00\x08\x03" + bytes(12)), "not an idx file of labels"),
        (b"labels", "truncated or corrupt"),
    ],
    # Not the content: gzip writes the time into it, and processes would collect other tests.
    ids=["cut short", "too few", "not of labels", "no gzip"],
)
def test_a_broken_label_file_says_so(content, match, tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        labelled_images.read_idx_labels(path)


@pytest.mark.parametrize("labels", [None, "abc", [0, "x"]])
def test_a_cifar_batch_without_labels_is_refused(labels, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"labels": labels}, protocol=2))
    with pytest.raises(DataError, match="list of labels"):
        labelled_images.read_cifar_labels(path)
