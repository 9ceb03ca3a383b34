"""Pictures of small models: points, densities and images."""

import math

import pytest
import torch
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.pictures.pictures import make_pictures


class Plane(nn.Module):
    """A standard normal density in two dimensions."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def log_prob(self, x):
        self.largest = max(self.largest, len(x))
        return -0.5 * x.square().sum(-1) - math.log(2 * math.pi)


class SamplingPlane(Plane):
    def sample(self, n, generator):
        return torch.randn(n, 2, generator=generator)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.asked = []

    def sample(self, n, generator):
        self.asked.append(n)
        return torch.rand(n, 12, generator=generator) * math.inf


def plane_data(**known):
    points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    return Dataset("plane", "1", {"train": points, "test": points}, **known)


def titles(path, monkeypatch, *args):
    """Make pictures, and return what they are titled and how the axes are labelled."""
    from dgm_bench.pictures import pictures

    seen = []
    real = pictures._save
    monkeypatch.setattr(
        pictures, "_save", lambda figure, path: (seen.append(figure), real(figure, path))
    )
    made = make_pictures(*args, "title", path, torch.Generator().manual_seed(0), (), path)
    panels = [axes for axes in seen[0].axes if axes.get_title()]
    return made, [axes.get_title() for axes in panels], panels


def test_a_plane_has_data_samples_and_both_densities(tmp_path, monkeypatch):
    model = SamplingPlane()
    data = plane_data(log_density=Plane().log_prob)
    made, names, panels = titles(tmp_path / "new", monkeypatch, model, data)
    assert made == {"density": "density.png"}
    assert (tmp_path / "new" / "density.png").read_bytes().startswith(b"\x89PNG")
    assert names == [
        "data (300 test points)", "samples (2,000)", "density of the model", "true density"
    ]  # fmt: skip
    assert {(axes.get_xlabel(), axes.get_ylabel()) for axes in panels} == {("$x_1$", "$x_2$")}
    assert model.largest <= 10_000


def test_the_density_lies_where_the_points_do(tmp_path, monkeypatch):
    class Right(Plane):
        def log_prob(self, x):
            return torch.where(x[:, 0] > 0, 0.0, -50.0)

    _, _, panels = titles(tmp_path, monkeypatch, Right(), plane_data())
    image = panels[-1].images[0]
    left, right, _, _ = image.get_extent()
    columns = torch.linspace(left, right, 200)
    assert torch.equal(torch.as_tensor(image.get_array().data)[7] > 0.5, columns > 0)


def test_a_model_that_cannot_sample_is_drawn_without_samples(tmp_path, monkeypatch):
    _, names, _ = titles(tmp_path, monkeypatch, Plane(), plane_data())
    assert names == ["data (300 test points)", "density of the model"]


@pytest.mark.parametrize(("patience", "asked"), [(10.0, [8, 56]), (0.0, [8])])
def test_images_are_drawn_while_there_is_time(tmp_path, monkeypatch, patience, asked):
    monkeypatch.setattr("dgm_bench.pictures.pictures.SECONDS_FOR_FIRST_ROW", patience)
    x = torch.rand(100, 12)
    splits = {"train": x, "test": x}
    data = Dataset("colour", "1", splits, image_shape=(3, 2, 2), to_pixels=lambda x: x)
    model = Images()
    made, names, _ = titles(tmp_path, monkeypatch, model, data)
    assert made == {"samples": "samples.png"}
    assert model.asked == asked
    assert names == ["real (64 images)", f"sampled from the model ({sum(asked)} images)"]


def test_stored_examples_are_dequantised_first(tmp_path, monkeypatch):
    stored = torch.zeros(9, 4, dtype=torch.uint8)
    data = Dataset(
        "grey",
        "1",
        {"train": stored, "test": stored},
        dequantise=lambda x, generator: x.float() + 0.5,
        image_shape=(1, 2, 2),
        to_pixels=lambda x: x,
    )
    _, _, (panel,) = titles(tmp_path, monkeypatch, nn.Identity(), data)
    assert panel.images[0].get_array()[0, 0] == 0.5


def test_there_is_nothing_to_draw_of_other_data(tmp_path):
    six = torch.zeros(5, 6)
    data = Dataset("oracle-6", "1", {"train": six, "test": six})
    assert (
        make_pictures(SamplingPlane(), data, "", tmp_path / "x", torch.Generator(), (), tmp_path)
        == {}
    )
    assert not (tmp_path / "x").exists()
