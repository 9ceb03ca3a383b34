"""Captions of digits: what is measured is what it is said to be, and combinations are held out."""

import math

import pytest
import torch

from dgm_bench import data
from dgm_bench.data.captioned_images import (
    SAID,
    attributes,
    captioned,
    cuts_between,
    levels_of,
    quantile_cuts,
    slant,
    thickness,
)
from dgm_bench.data.captions import CAPTIONS, COMBINATIONS, KNOWN, NAMES, Combination

NAME = "digits-captioned"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return data.load(NAME, tmp_path_factory.mktemp("none"), offline=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return data.load("digits-labelled", tmp_path_factory.mktemp("none"), offline=True)


# ----------------------------------------------------------------------------- the grammar


def test_captions_say_class_and_attributes():
    assert Combination(7, 2, 0).text == "a bold seven, leaning left"
    assert Combination(0, 0, 1).text == "a thin zero, upright"
    assert len(set(CAPTIONS)) == len(COMBINATIONS) == 90


def test_one_combination_of_each_class_is_held_out_and_its_pairs_are_not():
    held, known = COMBINATIONS[KNOWN:], COMBINATIONS[:KNOWN]
    assert sorted(one.digit for one in held) == list(range(10))
    for left, right in (("digit", "thickness"), ("digit", "slant"), ("thickness", "slant")):
        pairs = {(getattr(one, left), getattr(one, right)) for one in known}
        assert {(getattr(one, left), getattr(one, right)) for one in held} <= pairs
    assert len({(one.thickness, one.slant) for one in held}) == 9


# ----------------------------------------------------------------------------- the measures


def bar(width, *, tangent=0.0, side=40, length=30, ink=1.0):
    """A grey bar whose middle moves to the right by ``tangent`` for each row upwards."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    middle = side / 2 + tangent * (side / 2 - rows)
    inside = (width / 2 + 0.5 - (columns - middle).abs()).clamp(0, 1)
    inside[: (side - length) // 2] = inside[(side + length) // 2 :] = 0
    return (ink * inside)[None].double()


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("ink", [1.0, 255.0])
def test_thickness_of_a_bar_is_its_width(width, ink):
    """Its outline has two ends too, of the width: w l / (l + w) is measured, nearly."""
    expected = width * 30 / (30 + width)
    assert thickness(bar(width, ink=ink)).item() == pytest.approx(expected, rel=0.05)


def test_thickness_does_not_change_with_direction():
    upright = bar(3)
    assert thickness(upright.mT).item() == pytest.approx(thickness(upright).item(), rel=1e-12)
    assert thickness(bar(3, tangent=0.3)).item() == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("degrees", [-30, -10, 0, 20])
def test_slant_of_a_bar_is_its_angle(degrees):
    image = bar(3, tangent=math.tan(math.radians(degrees)))
    assert slant(image).item() == pytest.approx(degrees, abs=0.5)
    assert slant(image.flip(-1)).item() == pytest.approx(-degrees, abs=0.5)
    moved = torch.roll(image, (2, 3), (1, 2))
    assert slant(moved).item() == pytest.approx(slant(image).item(), abs=1e-9)


def test_ink_at_the_border_has_an_outline_there():
    """A full image of side 8: 64 of ink, and 32 of outline, corners nearly."""
    full = torch.ones(1, 8, 8, dtype=torch.float64)
    assert thickness(full).item() == pytest.approx(4, rel=0.05)


def test_no_ink_is_upright_and_has_no_width():
    blank = torch.zeros(1, 8, 8, dtype=torch.float64)
    assert thickness(blank).item() == slant(blank).item() == 0


def test_bytes_and_pixels_are_measured_alike(digits):
    images = digits.splits["test"][:9]
    for ours, theirs in zip(attributes(images), attributes(images.double() / 255), strict=True):
        torch.testing.assert_close(ours, theirs)


# ----------------------------------------------------------------------------- the data set


def test_attributes_of_captions_are_as_measured(digits, plain):
    """The words follow from the values and the thirds of all training images of the class."""
    train, classes = plain.splits["train"], plain.labels["train"]
    for place, of in enumerate((thickness, slant)):
        values = of(train.double()[:, 0])
        for split in ("train", "val", "test"):
            own = of(digits.splits[split].double()[:, 0])
            said = SAID[digits.labels[split]]
            for digit in range(10):
                low, high = values[classes == digit].quantile(torch.tensor([1 / 3, 2 / 3]))
                mine = said[:, 0] == digit
                expected = (own[mine] > low).long() + (own[mine] > high).long()
                assert torch.equal(said[mine, 1 + place], expected)


def test_thirds_are_of_each_class(plain):
    values, classes = attributes(plain.splits["train"])[0], plain.labels["train"]
    levels = levels_of(values, classes, quantile_cuts(values, classes))
    for digit in range(10):
        counts = levels[classes == digit].bincount(minlength=3)
        assert counts.max() - counts.min() <= 1


def test_held_out_captions_are_in_the_test_alone(digits, plain):
    for split in ("train", "val"):
        assert (digits.labels[split] < KNOWN).all()
    assert set(digits.labels["test"].tolist()) >= set(range(KNOWN, 90))
    assert digits.labels["train"].unique().tolist() == list(range(KNOWN))
    assert sum(digits.sizes.values()) == sum(plain.sizes.values())
    n = plain.sizes["test"]
    assert torch.equal(digits.splits["test"][:n], plain.splits["test"])
    assert torch.equal(SAID[digits.labels["test"][:n], 0], plain.labels["test"])


@pytest.mark.parametrize("name", [NAME, "mnist-captioned"])
def test_a_set_is_as_its_card_says(name, data_root):
    if not data.state(name, data_root).loadable:
        pytest.skip(f"set DGM_BENCH_DATA to a folder with {name}")
    loaded = data.load(name, data_root, offline=True)
    assert loaded.sizes == data.card(name).sizes
    assert loaded.classes == CAPTIONS


def test_it_is_the_same_each_time(digits, plain):
    again = captioned(plain)
    assert again.fingerprints() == digits.fingerprints()


def test_cuts_between_captioned_images_give_their_levels(digits):
    said = SAID[digits.labels["train"]]
    for place, values in enumerate(attributes(digits.splits["train"])):
        cuts = cuts_between(values, said[:, 0], said[:, 1 + place])
        assert torch.equal(levels_of(values, said[:, 0], cuts), said[:, 1 + place])


def test_cuts_without_images_on_a_side():
    values = torch.tensor([1.0, 2.0])
    cuts = cuts_between(values, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert cuts[0].tolist() == [1.5, math.inf]
    assert cuts[1:].eq(0).all()
    assert len(cuts) == len(NAMES)
