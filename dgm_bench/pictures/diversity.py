"""Figures of models of images in two stages: what codes keep, how samples differ and from what.

matplotlib is imported when a figure is made, and only its object interface is used. Images are
floats with pixels in [0, 1], in one channel (grey) or three (red, green and blue).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dgm_bench.errors import DeclarationError
from dgm_bench.escaping import drawn
from dgm_bench.report.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from dgm_bench.report.plots import described, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches that an image takes: as many as show each pixel, within these bounds.
DPI, LEAST_INCHES, MOST_INCHES = 110, 0.75, 2.4
#: Characters of a row's name in one line.
NAME_WIDTH = 18
#: Largest deviation from [0, 1] that is rounding.
ROUNDING = 1e-4

Titled = tuple[str, Float[Tensor, "n c h w"]]


def tile_images(
    images: Float[Tensor, "n c h w"], across: int, gaps: tuple[int, int] = (1, 1)
) -> Float[Tensor, "rows columns c"]:
    """Lay images out in rows on white, on the CPU, as matplotlib takes them.

    Args:
        images: Pixels in [0, 1], of one or three channels.
        across: Images in a row; the last row may be shorter.
        gaps: Pixels between rows and between columns.

    Raises:
        DeclarationError: No images, other numbers of channels, or other values.
    """
    _check_images(images)
    n, c, h, w = images.shape
    down, right = h + gaps[0], w + gaps[1]
    pixels = images.float().cpu().clamp(0, 1)
    canvas = pixels.new_ones(c, math.ceil(n / across) * down - gaps[0], across * right - gaps[1])
    for index, image in enumerate(pixels):
        top, left = down * (index // across), right * (index % across)
        canvas[:, top : top + h, left : left + w] = image
    return canvas.movedim(0, -1)


def reconstructions_figure(
    originals: Float[Tensor, "n c h w"], by_level: Sequence[Titled], title: str
) -> Figure:
    """Draw images and, below, what the decoder makes of the codes of more and more levels.

    Args:
        originals: The images, which become the columns.
        by_level: Name of a row and its reconstructions, say the top level alone first, all last.
        title: Heading.

    Raises:
        DeclarationError: Rows of different shapes, or what :func:`tile_images` does not take.
    """
    return _rows_figure([("original", originals), *by_level], title)


def samples_figure(
    images: Float[Tensor, "classes per_class c h w"], names: Sequence[str], title: str
) -> Figure:
    """Draw samples of each class in a row of its own.

    Args:
        images: By class.
        names: Of the classes.
        title: Heading.

    Raises:
        DeclarationError: Not one name for each class, or what :func:`tile_images` does not take.
    """
    if len(names) != len(images):
        reason = f"do not fit {len(images)} classes"
        raise DeclarationError(f"{len(names)} names", reason, "give one for each")
    return _rows_figure(list(zip(names, images, strict=True)), title)


def neighbours_figure(
    generated: Float[Tensor, "n c h w"],
    neighbours: Float[Tensor, "n k c h w"],
    distances: Float[Tensor, "n k"],
    title: str,
) -> Figure:
    """Draw generated images, each with the training images nearest to it: what is a copy shows.

    Args:
        generated: First column.
        neighbours: Nearest first.
        distances: Of the features, in their own unit; written below the images.
        title: Heading.

    Raises:
        DeclarationError: Shapes that do not agree, or what :func:`tile_images` does not take.
    """
    wanted = (len(generated), *distances.shape[1:], *generated.shape[1:])
    agree = neighbours.shape == wanted and distances.shape == neighbours.shape[:2]
    if not agree or not distances.numel():
        shapes = [tuple(x.shape) for x in (generated, neighbours, distances)]
        thing = "generated, neighbours and distances of shapes {}, {}, {}".format(*shapes)
        remedy = "give (n, c, h, w), (n, k, c, h, w) and (n, k)"
        raise DeclarationError(thing, "do not fit each other", remedy)
    n, k = distances.shape
    together = torch.cat([generated[:, None], neighbours.to(generated)], 1).flatten(0, 1)
    h, w = generated.shape[2:]
    down, right = math.ceil(0.3 * h), max(2, w // 8)  # room for numbers, and for the line
    figure, axes = _image_axes(together, k + 1, (down, right), title)
    heads = ["generated", "nearest", *(f"{place}." for place in range(2, k + 1))]
    _name_columns(axes, heads, w, right)
    axes.axvline(w - 0.5 + right / 2, color=INK, linewidth=0.8)
    for row, column in product(range(n), range(k)):
        x, y = (column + 1) * (w + right) + w / 2 - 0.5, row * (h + down) + h - 0.5
        text = f"{float(distances[row, column]):.3g}"
        axes.annotate(
            text, (x, y), (0, -2), textcoords="offset points", ha="center", va="top", fontsize=7
        )
    return described(figure, "below an image: how far its features are from the generated one's")


def codebook_figure(counts: Sequence[tuple[str, Int[Tensor, " _codes"]]], title: str) -> Figure:
    """Plot how often codes are used, the most frequent first, on a logarithmic axis.

    The legend gives the perplexity, which is the exponential of the entropy in nats, and how many
    codes are never used, which a logarithmic axis cannot show.

    Args:
        counts: Name of a level, and how often each of its codes occurs.
        title: Heading.

    Raises:
        DeclarationError: No levels, or counts that are negative or all zero.
    """
    if not counts:
        raise DeclarationError("counts", "no level to plot", "give a name and counts for each")
    figure, axes = new_figure(6.4, 3.8)
    looks = zip(cycle((BLUE, VERMILION, GREEN, PURPLE, ORANGE)), cycle(("-", "--", "-.")))
    for (name, of_codes), (color, style) in zip(counts, looks, strict=False):
        shares = _shares(name, of_codes)
        used, size = shares[shares > 0], len(shares)
        perplexity = float((-(used * used.log()).sum()).exp())
        label = f"{name}: perplexity {perplexity:,.1f} of {size:,}, {size - len(used):,} unused"
        marker = "." if size <= 32 else ""
        ranks = range(1, len(used) + 1)
        axes.plot(ranks, used, style, marker=marker, color=color, linewidth=1.6, label=label)
    for index, size in enumerate(sorted({len(of_codes) for _, of_codes in counts})):
        name = "_" if index else "uniform use"  # a label that begins with _ is in no legend
        axes.plot([1, size], [1 / size] * 2, ":", color=INK, linewidth=1.0, label=name)
    axes.set(yscale="log", xlabel="rank of the code", ylabel="share of the level's codes")
    axes.set_title(drawn(title), loc="left", fontsize=10)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    return figure


# --------------------------------------------------------------------------- images


def _check_images(images: Float[Tensor, "n c h w"]) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        remedy = "give at least one, as (n, channels, height, width) with 1 or 3 channels"
        raise DeclarationError("images", f"have shape {tuple(images.shape)}", remedy)
    if not images.is_floating_point():
        remedy = "divide by 255 to have floats in [0, 1]"
        raise DeclarationError("pixels", f"are {images.dtype}", remedy)
    if not bool(((images >= -ROUNDING) & (images <= 1 + ROUNDING)).all()):
        reason = "are outside [0, 1] or not finite"
        raise DeclarationError("pixels", reason, "clamp them first")


def _rows_figure(rows: Sequence[Titled], title: str) -> Figure:
    """Draw each row of images with its name on the left."""
    shapes = {tuple(images.shape) for _, images in rows}
    if len(shapes) != 1:
        raise DeclarationError("rows", f"have shapes {sorted(shapes)}", "give them one shape")
    (shape,) = shapes
    if len(shape) != 4:
        remedy = "give (n, channels, height, width)"
        raise DeclarationError(f"a row of shape {shape}", "is no row of images", remedy)
    gap = max(1, shape[2] // 16)
    together = torch.cat([images.cpu() for _, images in rows])
    figure, axes = _image_axes(together, shape[0], (gap, gap), title)
    centres = [place * (shape[2] + gap) + (shape[2] - 1) / 2 for place in range(len(rows))]
    axes.set_yticks(centres, [drawn(textwrap.fill(name, NAME_WIDTH)) for name, _ in rows])
    return figure


def _image_axes(
    images: Float[Tensor, "n c h w"], across: int, gaps: tuple[int, int], title: str
) -> tuple[Figure, Axes]:
    """Return a figure that holds one picture of all images, and nothing else yet."""
    from matplotlib.figure import Figure

    picture = tile_images(images, across, gaps)
    side = max(images.shape[2:])
    inches = min(max(side / DPI, LEAST_INCHES), MOST_INCHES) / side
    size = (picture.shape[1] * inches + 1.5, picture.shape[0] * inches + 0.6)
    width = max(size[0], 4.2)
    figure = Figure(figsize=(width, size[1]), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.06)
    axes = figure.add_subplot()
    smooth = "nearest" if side <= DPI * LEAST_INCHES else "antialiased"
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation=smooth)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.set(xticks=[], yticks=[])
    figure.suptitle(textwrap.fill(drawn(title), int(12 * width)), fontsize=10, color=INK)
    return figure, axes


def _name_columns(axes: Axes, names: Sequence[str], width: int, gap: int) -> None:
    centres = [place * (width + gap) + (width - 1) / 2 for place in range(len(names))]
    axes.set_xticks(centres, names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)


# --------------------------------------------------------------------------- numbers


def _shares(name: str, counts: Int[Tensor, " codes"]) -> Float[Tensor, " codes"]:
    """Return relative frequencies, the largest first."""
    of_codes = counts.double().cpu()
    if of_codes.ndim != 1 or bool((of_codes < 0).any()) or not bool(of_codes.sum() > 0):
        remedy = "give one for each code, not all zero"
        raise DeclarationError(f"counts of {name}", "have no shares", remedy)
    return (of_codes / of_codes.sum()).sort(descending=True).values
