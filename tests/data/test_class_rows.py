"""Images and their classes in one row: what is stored, and what a model is given."""

import pytest
import torch

from dgm_bench.data.class_rows import as_inputs, with_classes, without_classes

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
