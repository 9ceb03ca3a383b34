"""Levels as stored: the images of the other conventions in the same places, and their bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dgm_bench import data
from dgm_bench.data import levels
from dgm_bench.data.bits import from_logits
from dgm_bench.data.digits import LAMBDA
from dgm_bench.errors import DataError


def test_digits_are_the_levels_of_the_dequantised_set_in_the_same_places(tmp_path):
    dequantised, loaded = data.load("digits", tmp_path), data.load("digits-levels", tmp_path)
    for split, x in loaded.splits.items():
        same = (from_logits(dequantised.splits[split].double(), LAMBDA) * 17).floor()
        assert torch.equal(x.flatten(1).double(), same.flatten(1))
    every = torch.cat(list(loaded.splits.values())).flatten(1).numpy()
    assert sorted(map(bytes, every)) == sorted(map(bytes, load_digits().data.astype(np.uint8)))
    assert loaded.to_pixels(torch.tensor([[0, 8, 16]])).tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize("name", ["mnist-levels", "cifar10-levels"])
def test_the_last_train_images_validate(name, monkeypatch, tmp_path):
    card = replace(data.card(name), sizes={"train": 7, "val": 3, "test": 2})
    channels, height, width = card.event_shape
    drawn = np.random.default_rng(0).integers(
        256, size=(len(card.files), 10, channels, height, width), dtype=np.uint8
    )
    held = iter(drawn)
    monkeypatch.setattr(levels, "read_idx", lambda path: next(held)[:, 0])
    monkeypatch.setattr(levels, "read_cifar_batch", lambda path: next(held))
    monkeypatch.setattr(levels, "checksums", lambda *found: ({"file": "sum"}, True))
    loaded = getattr(levels, card.loader.split(":")[1])(card, tmp_path)
    train = drawn[:-1].reshape(-1, channels, height, width)
    assert np.array_equal(loaded.splits["train"].numpy(), train[:7])
    assert np.array_equal(loaded.splits["val"].numpy(), train[7:])
    assert np.array_equal(loaded.splits["test"].numpy(), drawn[-1])
    assert (loaded.files, loaded.verified, loaded.augment) == ({"file": "sum"}, True, None)
    assert loaded.to_pixels(torch.tensor([[0, 255]])).tolist() == [[0.0, 1.0]]


def test_too_few_train_images_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(levels, "read_idx", lambda path: np.zeros((10, 28, 28), dtype=np.uint8))
    with pytest.raises(DataError, match="10 train images"):
        levels.load_mnist(data.card("mnist-levels"), tmp_path)


def test_levels_share_files_and_downloads_with_the_dequantised_sets():
    for name in ("mnist", "cifar10"):
        theirs, ours = data.card(name), data.card(f"{name}-levels")
        assert (ours.files, ours.downloads, ours.homes) == (
            theirs.files,
            theirs.downloads,
            theirs.homes,
        )


def test_bits_are_those_of_uniform_levels():
    nats = -2 * 3 * torch.tensor([256.0, 16.0]).log()
    bits = levels.bits_of_levels(nats, torch.zeros(2, 1, 2, 3))
    torch.testing.assert_close(bits, torch.tensor([8.0, 4.0]))
