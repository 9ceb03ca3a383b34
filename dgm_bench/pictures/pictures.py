"""Pictures of what a trained model has learnt: densities in two dimensions, grids of images."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.control import ask_within
from dgm_bench.data.dataset import Dataset, LogDensity
from dgm_bench.errors import DeclarationError
from dgm_bench.escaping import drawn
from dgm_bench.kept import each
from dgm_bench.models.capabilities import HasLogProb, HasSample
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.pictures.diversity import tile_images
from dgm_bench.pictures.two_stage import two_stage_figures
from dgm_bench.records import Metric
from dgm_bench.sealed import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of a picture and its panels beside each other: as wide as a README shows it.
WIDTH, ACROSS = 7.5, 2
#: Points drawn of data and of the model, in two dimensions.
POINTS = 2_000
#: The density is drawn on a grid of this many points a side, so many of them at a time.
GRID, CHUNK = 200, 10_000
#: Images drawn, in a square; the first row decides whether there is time for the others, as
#: an autoregressive model takes one pass for each pixel.
IMAGES_ACROSS, SECONDS_FOR_FIRST_ROW = 8, 10.0
#: Dots that the longer side of a grid of small images has at most.
GRID_DOTS = 720

Box = tuple[float, float, float, float]


@torch.no_grad()
def make_pictures(
    model: nn.Module,
    dataset: Dataset,
    title: str,
    folder: Path,
    generator: torch.Generator,
    metrics: Sequence[Metric],
    data_root: Path,
) -> dict[str, str]:
    """Draw what can be seen of a trained model, as PNG files.

    Two-dimensional sets get ``density``: data, samples, the model's density and the true one
    where it is known. Image sets get ``samples``: real images beside the model's; models of two
    stages what :func:`~dgm_bench.pictures.two_stage.two_stage_figures` yields. What the model does
    not offer is left out; for other sets there is nothing to draw.

    Args:
        model: Trained, in evaluation mode, on the device of ``dataset``.
        dataset: What it was trained on.
        title: Name of model and data, for the heading.
        folder: Where the files go; created if need be.
        generator: Source of the samples, on the model's device.
        metrics: Of the run, for what is drawn from them.
        data_root: Where the classifier of the data set is kept.

    Returns:
        File names in ``folder`` by the name of the picture.
    """
    made = {}
    for name, figure in _figures(model, dataset, title, generator, metrics, data_root):
        _save(figure, folder / f"{name}.png")
        ask_within()
        made[name] = f"{name}.png"
    return made


def _figures(
    model: nn.Module,
    dataset: Dataset,
    title: str,
    generator: torch.Generator,
    metrics: Sequence[Metric],
    data_root: Path,
) -> Iterator[tuple[str, Figure]]:
    if isinstance(model, TwoStage):
        yield from two_stage_figures(model, dataset, title, generator, metrics, data_root)
    elif dataset.image_shape is not None and dataset.to_pixels is not None:
        yield "samples", _image_figure(model, dataset, title, generator)
    elif dataset.event_shape == (2,):
        yield "density", _plane_figure(model, dataset, title, generator)


@torch.no_grad()
def sample_picture(
    samples: Float[Tensor, "n *event"],
    title: str,
    kind: str = "png",
    log_density: LogDensity | None = None,
) -> bytes:
    """Return a picture of samples: images in a square, or points of the plane.

    Args:
        samples: Images with pixels in [0, 1] of shape ``(n, channels, height, width)``, or points
            of two dimensions.
        title: The heading of points.
        kind: Of the file, which matplotlib knows.
        log_density: Of points, which is drawn beside them; None for points alone.
    """
    if samples.dim() == 4:
        return _grid_of_images(samples, kind)
    box = _box(samples)
    figure, panels = _panels(1 if log_density is None else 2, title)
    _scatter(panels[0], f"samples ({len(samples):,})", samples)
    if log_density is not None:
        _draw_densities(figure, panels[1:], {"density of the model": log_density}, box, samples)
    _frame(panels, box)
    return _picture(figure, kind)


def _grid_of_images(images: Float[Tensor, "n channels height width"], kind: str) -> bytes:
    """Return images in a square, each pixel as a square of whole dots."""
    from matplotlib.image import imsave

    tiled = tile_images(torch.nan_to_num(images).clamp(0, 1), math.isqrt(len(images) - 1) + 1)
    zoom = max(1, GRID_DOTS // max(tiled.shape[:2]))
    dots = tiled.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    file = io.BytesIO()
    imsave(file, dots.expand(-1, -1, 3).numpy(), format=kind, vmin=0, vmax=1)
    return file.getvalue()


# --------------------------------------------------------------------------- two dimensions


def _plane_figure(
    model: nn.Module, dataset: Dataset, title: str, generator: torch.Generator
) -> Figure:
    data = _inputs(dataset, POINTS, generator)
    box = _box(data)
    points = {f"data ({len(data):,} test points)": data}
    if isinstance(model, HasSample):
        points[f"samples ({POINTS:,})"] = model.sample(POINTS, generator)
    densities: dict[str, LogDensity] = {}
    if isinstance(model, HasLogProb):
        densities["density of the model"] = model.log_prob
    if dataset.log_density is not None:
        densities["true density"] = dataset.log_density
    figure, panels = _panels(len(points) + len(densities), title)
    for axes, (name, where) in zip(panels, points.items(), strict=False):
        _scatter(axes, name, where)
    _draw_densities(figure, panels[len(points) :], densities, box, data)
    _frame(panels, box)
    return figure


def _frame(panels: Sequence[Axes], box: Box) -> None:
    for axes in panels:
        axes.set(xlim=box[:2], ylim=box[2:], xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def _box(points: Float[Tensor, "n 2"]) -> Box:
    """Return a square around nearly all points: left, right, bottom, top."""
    tail = torch.tensor([0.002, 0.998], dtype=torch.float64)
    low, high = points.double().cpu().quantile(tail, dim=0)
    half = 0.6 * float((high - low).max())
    x, y = ((low + high) / 2).tolist()
    return x - half, x + half, y - half, y + half


def _scatter(axes: Axes, name: str, points: Float[Tensor, "n 2"]) -> None:
    x, y = points.cpu().T
    axes.scatter(x, y, s=3, alpha=0.5, linewidths=0, color="#0072B2")
    axes.set_title(name, fontsize=9)


def _draw_densities(
    figure: Figure,
    panels: list[Axes],
    densities: dict[str, LogDensity],
    box: Box,
    like: Tensor,
) -> None:
    """Draw densities with one colour scale, so that they can be compared."""
    grids = [_on_grid(log_density, box, like) for log_density in densities.values()]
    finite = [grid[grid.isfinite()] for grid in grids]
    top = max((float(values.max()) for values in finite if len(values)), default=1.0)
    image = None
    for axes, name, grid in zip(panels, densities, grids, strict=True):
        image = axes.imshow(
            grid.numpy(), origin="lower", extent=box, cmap="magma", vmin=0, vmax=top
        )
        axes.set_title(name, fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=panels, label="density (per unit area)", shrink=0.8)


def _on_grid(log_density: LogDensity, box: Box, like: Tensor) -> Float[Tensor, "grid grid"]:
    """Return the density on the grid, rows from bottom to top; a chunk at a time."""
    x = torch.linspace(box[0], box[1], GRID, device=like.device, dtype=like.dtype)
    y = torch.linspace(box[2], box[3], GRID, device=like.device, dtype=like.dtype)
    points = torch.cartesian_prod(y, x).flip(1)
    parts = each(points.split(CHUNK), lambda chunk: log_density(chunk).double().cpu())
    values = torch.cat(list(parts))
    return values.exp().reshape(GRID, GRID)


# --------------------------------------------------------------------------- images


def _image_figure(
    model: nn.Module, dataset: Dataset, title: str, generator: torch.Generator
) -> Figure:
    wanted = IMAGES_ACROSS**2
    grids = {"real": _pixels(dataset, _inputs(dataset, wanted, generator))}
    if isinstance(model, HasSample):
        grids["sampled from the model"] = _pixels(dataset, _some_samples(model, wanted, generator))
    figure, panels = _panels(len(grids), title)
    for axes, (name, images) in zip(panels, grids.items(), strict=True):
        tiled = tile_images(images, IMAGES_ACROSS)
        axes.imshow(tiled.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name} ({len(images)} images)", fontsize=9)
        axes.set_axis_off()
    return figure


def _some_samples(model: HasSample, wanted: int, generator: torch.Generator) -> Tensor:
    started = time.perf_counter()
    first: Tensor = model.sample(IMAGES_ACROSS, generator)
    if time.perf_counter() - started > SECONDS_FOR_FIRST_ROW:
        return first
    return torch.cat([first, model.sample(wanted - IMAGES_ACROSS, generator)])


def _pixels(dataset: Dataset, inputs: Tensor) -> Float[Tensor, "n channels height width"]:
    if dataset.image_shape is None or dataset.to_pixels is None:
        raise DeclarationError(dataset.name, "does not hold images", "use a data set of images")
    pixels = dataset.to_pixels(inputs).reshape(-1, *dataset.image_shape).float().cpu()
    return torch.clamp(torch.nan_to_num(pixels), 0, 1)


# --------------------------------------------------------------------------- small things


def _inputs(dataset: Dataset, n: int, generator: torch.Generator) -> Tensor:
    """Return the first test examples as the model sees them."""
    return dataset.dequantised(dataset.splits["test"][:n], generator)


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = min(count, ACROSS)
    down = math.ceil(count / across)
    figure = Figure(figsize=(WIDTH, WIDTH / ACROSS * down), dpi=110, layout="constrained")
    panels = [figure.add_subplot(down, across, index + 1) for index in range(count)]
    for axes in panels:
        axes.tick_params(labelsize=8)
    figure.suptitle(drawn(title), fontsize=10)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, _picture(figure, "png"))


def _picture(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()
