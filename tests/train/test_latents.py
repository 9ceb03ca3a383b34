"""The codes of a first stage as data."""

import torch
from torch import nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.train.latents import latents


class Coder(nn.Module):
    """Codes of one place: how bright the image is, as long as it is evaluated."""

    grids, codebook_sizes = ((1, 1),), (256,)

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def encode(self, x):
        level = (255 * x.mean((1, 2, 3)) + self.shift).round().long()
        return [(level * (not self.training))[:, None, None]]

    def decode(self, codes):
        raise AssertionError("not asked for")


def test_codes_are_those_of_the_evaluated_model_and_its_weights(tmp_path):
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    splits, labels = {"train": images, "test": images[2:4]}, {"train": torch.arange(6)}
    data = Dataset("steps", "1", splits, labels=labels)
    coder, path = Coder().train(), tmp_path / "codes.safetensors"
    found = latents(coder, data, path, 4, {"train": "a"})
    assert coder.training
    assert found.splits["train"].tolist() == [[k, k] for k in range(6)]
    assert found.splits["test"].tolist() == [[2, 0], [3, 0]]  # no labels: class 0
    coder.shift.data += 10
    again = latents(coder, data, path, 4, {"train": "a"})
    assert again.splits["train"][:, 0].tolist() == [10, 11, 12, 13, 14, 15]
    other = latents(coder, Dataset("steps", "1", {"train": images[:1]}), path, 4, {"train": "b"})
    assert other.splits["train"].tolist() == [[10, 0]]
