"""Images and their classes in one row: what is stored, what a model is given, how it is shifted."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm_bench import data
from dgm_bench.data import class_rows
from dgm_bench.data.class_rows import PADDING, as_inputs, shifted, with_classes, without_classes
from dgm_bench.errors import DataError

SHAPE = (2, 5, 7)


@pytest.fixture
def rows(generator):
    images = torch.randint(256, (6, *SHAPE), generator=generator, dtype=torch.uint8)
    return images, torch.arange(6), with_classes(images, torch.arange(6))


def test_a_row_gives_back_its_image_and_its_class(rows):
    images, classes, packed = rows
    assert packed.dtype == torch.uint8
    for stored in (packed, as_inputs(packed)):
        found, own = without_classes(stored, SHAPE)
        assert own.equal(classes)
        assert torch.allclose(found.double() * (255 if stored.is_floating_point() else 1),
                              images.double())  # fmt: skip


def test_inputs_are_left_as_they_are(rows):
    inputs = as_inputs(rows[2])
    assert as_inputs(inputs) is inputs
    assert inputs[:, :-1].max() <= 1


def test_classes_that_a_byte_does_not_hold_are_kept(generator):
    images = torch.randint(256, (3, *SHAPE), generator=generator, dtype=torch.uint8)
    classes = torch.tensor([0, 255, 999])
    found, own = without_classes(as_inputs(with_classes(images, classes)), SHAPE)
    assert own.equal(classes)
    assert (found * 255).round().to(torch.uint8).equal(images)


def test_an_image_is_shifted_as_a_whole_and_zeros_come_in(rows, generator):
    images, classes, packed = rows
    found, own = without_classes(shifted(packed, generator, SHAPE), SHAPE)
    assert own.equal(classes)
    padded = np.pad(images.numpy() / 255, ((0, 0), (0, 0), *[(PADDING, PADDING)] * 2))
    for one, frame in zip(found.numpy(), padded, strict=True):
        windows = (frame[:, r : r + 5, c : c + 7] for r in range(9) for c in range(9))
        assert any(np.allclose(one, window) for window in windows)


def test_every_window_is_as_likely_as_any_other():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 255
    many = with_classes(image.expand(8_100, 1, 9, 9), torch.zeros(8_100, dtype=torch.int64))
    moved, _ = without_classes(
        shifted(many, torch.Generator().manual_seed(0), (1, 9, 9)), (1, 9, 9)
    )
    counts = moved.sum(0)[0]
    # 100 are expected at each of the 81 places: chi-squared with 80 degrees has deviation 12.6.
    assert ((counts - 100) ** 2 / 100).sum() < 80 + 5 * 12.6


def test_digits_are_those_of_the_labelled_set():
    labelled, packed = (data.load(f"digits-{kind}", Path()) for kind in ("labelled", "classes"))
    for name, images in labelled.splits.items():
        found, classes = without_classes(packed.splits[name], (1, 8, 8))
        assert found.equal(images)
        assert classes.equal(labelled.labels[name])


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def home(tmp_path):
    draw = np.random.default_rng(0)
    arrays = [draw.integers(256, size=(n, 28, 28), dtype=np.uint8) for n in (8, 4)]
    arrays += [draw.integers(10, size=n, dtype=np.uint8) for n in (8, 4)]
    for file, array in zip(data.card("mnist-classes").files, arrays, strict=True):
        write_idx(tmp_path / file.path, array)
    return tmp_path, arrays


def test_all_of_mnist_trains_and_no_image_validates(home):
    folder, arrays = home
    loaded = class_rows.load_mnist(data.card("mnist-classes"), folder)
    assert loaded.sizes == {"train": 8, "test": 4}
    images, classes = without_classes(loaded.splits["test"], (1, 28, 28))
    assert np.array_equal(images[:, 0].numpy(), arrays[1])
    assert np.array_equal(classes.numpy(), arrays[3])


@pytest.mark.parametrize("shifts", ["random", "none"])
def test_training_images_are_shifted_where_it_is_said(home, generator, shifts):
    loaded = class_rows.load_mnist(data.card("mnist-classes"), home[0], shifts)
    rows = loaded.splits["train"]
    seen = loaded.augmented(rows, generator)
    assert seen.equal(as_inputs(rows)) is (shifts == "none")
    assert loaded.dequantised(rows, generator).equal(as_inputs(rows))


def test_a_class_that_there_is_not_is_refused(home):
    folder, arrays = home
    card = data.card("mnist-classes")
    write_idx(folder / card.files[3].path, np.full_like(arrays[3], 10))
    with pytest.raises(DataError, match="labels do not fit"):
        class_rows.load_mnist(card, folder)


def test_the_real_set_is_as_its_card_says(data_root):
    card = data.card("mnist-classes")
    if not data.state(card.name, data_root).loadable:
        pytest.skip("set DGM_BENCH_DATA to a folder with MNIST")
    assert data.load(card.name, data_root, offline=True).sizes == card.sizes
