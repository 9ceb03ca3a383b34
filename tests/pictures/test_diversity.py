"""Figures of images, codes and rejection: what is drawn is what was given."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from dgm_bench.errors import DeclarationError
from dgm_bench.pictures.diversity import (
    codebook_figure,
    neighbours_figure,
    reconstructions_figure,
    samples_figure,
    tile_images,
)
from dgm_bench.report.rejection import rejection_figure

CHANNELS = pytest.mark.parametrize("channels", [1, 3])
UNCHECKED = pytest.mark.usefixtures("unchecked")


def rendered(figure):
    """The PNG as an array; a figure that is only white is no figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture = np.asarray(Image.open(file).convert("RGB"))
    assert picture.std() > 1
    return picture


def texts(figure):
    """What is written on a figure: its titles and each axes' texts and ticks."""
    figure.canvas.draw()
    found = [figure.get_suptitle(), figure.get_supxlabel()]
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [t.get_text() for t in (*axes.texts, *axes.get_xticklabels())]
        found += [t.get_text() for t in axes.get_yticklabels()]
    return found


def inside(figure):
    """Whether all that is drawn is on the paper."""
    box, paper = figure.get_tightbbox(), figure.bbox_inches
    return box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < paper.x1 and box.y1 < paper.y1


def drawn(figure):
    """The one picture on a figure of images."""
    (axes,) = figure.axes
    (image,) = axes.images
    return torch.as_tensor(np.ma.getdata(image.get_array()))


# ----------------------------------------------------------------------------------- tiling


@CHANNELS
def test_tiles_are_where_they_belong(channels):
    images = torch.rand(5, channels, 4, 3)
    canvas = tile_images(images, across=3, gaps=(2, 1))
    assert canvas.shape == (10, 11, channels)
    torch.testing.assert_close(canvas[6:, 4:7].movedim(-1, 0), images[4].float())
    torch.testing.assert_close(canvas[:4, 8:].movedim(-1, 0), images[2].float())
    assert (canvas[4:6] == 1).all()
    assert (canvas[6:, 8:] == 1).all()  # there is no sixth image
    assert (canvas[:, 3] == 1).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 2, 4, 4), "1 or 3 channels"),
        (torch.rand(3, 4, 4), "1 or 3 channels"),
        (torch.rand(0, 3, 4, 4), "at least one"),
        (torch.full((2, 3, 4, 4), 7, dtype=torch.uint8), "divide by 255"),
        (torch.full((2, 3, 4, 4), 1.1), "clamp them first"),
        (torch.full((2, 3, 4, 4), -0.1), "clamp them first"),
        (torch.full((2, 3, 4, 4), math.nan), "not finite"),
    ],
)
@UNCHECKED
def test_what_is_no_image_is_refused(images, words):
    with pytest.raises(DeclarationError, match=words):
        tile_images(images, across=2)


# ---------------------------------------------------------------------------------- figures


@CHANNELS
def test_reconstructions(channels):
    x = torch.rand(4, channels, 8, 8)
    rows = [("top only", x / 2), ("top and middle", x / 3), ("all of the three levels", x / 4)]
    figure = reconstructions_figure(x, rows, "digits")
    picture = drawn(figure)
    assert picture.shape[:2] == (4 * 9 - 1, 4 * 9 - 1)
    for row, images in enumerate([x, *(images for _, images in rows)]):
        tile = picture[9 * row : 9 * row + 8, 27:35]
        torch.testing.assert_close(tile.reshape(8, 8, channels).movedim(-1, 0), images[3].float())
    assert {"digits", "original", "top only", "all of the three\nlevels"} <= set(texts(figure))
    assert inside(figure)
    grey = (np.ptp(rendered(figure), axis=2) == 0).mean()
    assert grey > 0.99 if channels == 1 else grey < 0.7


def test_grey_is_black_at_zero_and_white_at_one_whatever_else_there_is():
    figure = reconstructions_figure(torch.full((2, 1, 8, 8), 0.5), [], "grey")
    values = np.unique(rendered(figure)[60:70, 100:300])
    assert 126 <= values[0] <= 129
    assert (figure.axes[0].images[0].norm.vmin, figure.axes[0].images[0].norm.vmax) == (0, 1)


def test_large_images_are_drawn_large_and_within_bounds():
    small = reconstructions_figure(torch.rand(3, 3, 16, 16), [], "x").get_figwidth()
    large = reconstructions_figure(torch.rand(3, 3, 256, 256), [], "x").get_figwidth()
    huge = reconstructions_figure(torch.rand(3, 3, 1024, 1024), [], "x").get_figwidth()
    assert small < large < 10
    assert abs(huge - large) < 1


@CHANNELS
def test_samples_by_class(channels):
    images = torch.rand(3, 5, channels, 8, 8)
    figure = samples_figure(images, ["cat", "deer", "dog"], "samples by class")
    picture = drawn(figure)
    assert picture.shape[:2] == (26, 44)
    tile = picture[18:, 9:17].reshape(8, 8, channels).movedim(-1, 0)
    torch.testing.assert_close(tile, images[2, 1].float())
    centres = dict(zip(["cat", "deer", "dog"], figure.axes[0].get_yticks(), strict=True))
    assert centres == {"cat": 3.5, "deer": 12.5, "dog": 21.5}
    assert {"cat", "deer", "dog"} <= set(texts(figure))
    rendered(figure)


@CHANNELS
def test_neighbours(channels):
    generated, neighbours = torch.rand(2, channels, 8, 8), torch.rand(2, 3, channels, 8, 8)
    distances = torch.tensor([[0.5, 1.25, 20], [0, 3, 4]])
    figure = neighbours_figure(generated, neighbours, distances, "nearest")
    picture = drawn(figure)
    down, right = 8 + 3, 8 + 2
    tile = picture[down : down + 8, 2 * right : 2 * right + 8]
    tile = tile.reshape(8, 8, channels).movedim(-1, 0)
    torch.testing.assert_close(tile, neighbours[1, 1].float())
    written = texts(figure)
    assert {"generated", "nearest", "2.", "3."} <= set(written)
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.5", "1.25", "20", "0", "3", "4"]
    assert any("features" in text for text in written)
    assert inside(figure)
    rendered(figure)


def test_codebook_use():
    counts = [("top", torch.tensor([0, 1, 1, 2])), ("bottom", torch.arange(1, 101))]
    figure = codebook_figure(counts, "use")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    top, bottom, *uniform = axes.lines
    np.testing.assert_allclose(top.get_ydata(), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(bottom.get_ydata(), np.arange(100, 0, -1) / 5050)
    assert top.get_color() != bottom.get_color()
    perplexity = math.exp(1.5 * math.log(2))
    assert top.get_label() == f"top: perplexity {perplexity:.1f} of 4, 1 unused"
    assert [line.get_ydata()[0] for line in uniform] == [0.25, 0.01]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [top.get_label(), bottom.get_label(), "uniform use"]
    rendered(figure)


def test_rejection_curve_goes_from_all_kept_to_few():
    points = [(0.1, 0.9, 0.2), (1.0, 0.5, 0.6), (0.5, 0.7, 0.5)]
    figure = rejection_figure(points, "rejection")
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata().tolist() == [0.6, 0.5, 0.2]
    assert axes.lines[0].get_ydata().tolist() == [0.5, 0.7, 0.9]
    assert [text.get_text() for text in axes.texts] == ["100 %", "50 %", "10 %"]
    assert [text.xy for text in axes.texts] == [(0.6, 0.5), (0.5, 0.7), (0.2, 0.9)]
    rendered(figure)


def test_labels_of_crowded_points_do_not_overlap():
    points = [(1 - 0.1 * i, 0.5 + 0.002 * i, 0.6 - 0.001 * i) for i in range(6)]
    figure = rejection_figure([*points, (0.1, 0.9, 0.1)], "crowded")
    rendered(figure)
    # Of an annotation Text's own method gives the words, without the line to the point.
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 7
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# ----------------------------------------------------------------------------------- refusals


@UNCHECKED
def test_refusals():
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(DeclarationError, match="one shape"):
        reconstructions_figure(x, [("top", torch.rand(3, 1, 4, 4))], "t")
    with pytest.raises(DeclarationError, match="one shape"):
        reconstructions_figure(x, [("top", torch.rand(2, 3, 4, 4))], "t")
    with pytest.raises(DeclarationError, match="2 names: do not fit 3 classes"):
        samples_figure(torch.rand(3, 2, 1, 4, 4), ["a", "b"], "t")
    with pytest.raises(DeclarationError, match="height, width"):
        samples_figure(torch.rand(2, 1, 4, 4), ["a", "b"], "t")
    with pytest.raises(DeclarationError, match="no level"):
        codebook_figure([], "t")
    with pytest.raises(DeclarationError, match="counts of top"):
        codebook_figure([("top", torch.zeros(3))], "t")
    with pytest.raises(DeclarationError, match="counts of top"):
        codebook_figure([("top", torch.tensor([3, -1]))], "t")
    with pytest.raises(DeclarationError, match="kept fraction"):
        rejection_figure([], "t")
    with pytest.raises(DeclarationError, match="kept fraction"):
        rejection_figure([(1.0, 0.5, math.nan)], "t")


@pytest.mark.parametrize(
    ("neighbours", "distances"),
    [
        ((2, 3, 3, 4, 4), (2, 3)),
        ((2, 3, 1, 4, 4), (2, 2)),
        ((1, 3, 1, 4, 4), (1, 3)),
        ((2, 0, 1, 4, 4), (2, 0)),
    ],
)
@UNCHECKED
def test_neighbours_that_do_not_agree(neighbours, distances):
    with pytest.raises(DeclarationError, match="do not fit each other"):
        neighbours_figure(
            torch.rand(2, 1, 4, 4), torch.rand(neighbours), torch.rand(distances), "t"
        )
