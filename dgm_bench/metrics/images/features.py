"""Features of images, extracted by torch-fidelity: by its networks and by our own classifier.

torch-fidelity takes images as bytes, (3, height, width). Pixels in [0, 1] are rounded to 255
steps, and grey images are repeated to three channels, of which our classifier is given the first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from dgm_bench.data.weights import find_weights, weights_card
from dgm_bench.errors import DataError
from dgm_bench.kept import each
from dgm_bench.metrics.images.requirements import LAYERS, Layers

CLASSIFIER = "classifier"
_BATCH = 64


class ClassifierExtractor(FeatureExtractorBase):  # type: ignore[misc]  # untyped
    """Our own classifier as a feature extractor of torch-fidelity, registered as ``classifier``.

    It works on a copy, because torch-fidelity freezes and moves what it is given. Both layers are
    in the classifier's own precision.

    Args:
        name: The name it is registered under.
        features_list: Which of ``features`` and ``logits`` to give, in this order.
        classifier: Maps images with pixels in [0, 1] to logits, and by ``features`` to the layer
            before those.
        channels: Channels of the images that it was trained on.
        settings: The other arguments of torch-fidelity, unused.
    """

    def __init__(
        self,
        name: str,
        features_list: Sequence[str],
        classifier: nn.Module,
        channels: int,
        **settings: Any,  # noqa: ANN401  whatever torch-fidelity is called with
    ) -> None:
        super().__init__(name, features_list)
        self.classifier = copy.deepcopy(classifier).eval()
        self.channels = channels

    def forward(
        self, x: UInt8[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch _width"], ...]:
        """Return the layers asked for."""
        dtype = next(self.classifier.parameters()).dtype
        images = x[:, : self.channels].to(dtype) / 255
        features = cast(Callable[[Tensor], Tensor], self.classifier.features)
        layers: dict[str, Callable[[Tensor], Tensor]]
        layers = {"features": features, "logits": self.classifier}
        return tuple(layers[name](images) for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Return the names of all layers."""
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Return the layer that a metric of torch-fidelity is taken from."""
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        """Return whether torch-fidelity may compile it."""
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> UInt8[Tensor, "1 3 4 4"]:
        """Return an example of what it takes."""
        return torch.zeros(1, 3, 4, 4, dtype=torch.uint8)


@dataclass(frozen=True)
class Extractor:
    """A network that features are taken from.

    Attributes:
        name: As in ``ImageEvaluationSpec.features``.
        network: The network, as torch-fidelity made it.
        weights: SHA-256 of its weights.
    """

    name: str
    network: FeatureExtractorBase
    weights: str

    @property
    def layers(self) -> Layers:
        """The layers it gives."""
        return LAYERS[self.name]


def classifier_extractor(classifier: nn.Module, weights: str, channels: int) -> Extractor:
    """Return our own classifier as an extractor.

    Args:
        classifier: See :class:`ClassifierExtractor`.
        weights: SHA-256 of its weights.
        channels: Channels of its images, 1 or 3.
    """
    register_classifier()
    return _extractor(CLASSIFIER, weights, classifier=classifier, channels=channels)


def published_extractor(name: str, root: Path) -> Extractor:
    """Return a published network with its weights from below the data root.

    Raises:
        DataUnavailable: The weights are not there.
        DataError: They are not the published ones.
    """
    path = find_weights(name, root)
    sha256 = weights_card(name).file.sha256 or ""
    return _extractor(name, sha256, feature_extractor_weights_path=str(path))


def register_classifier() -> None:
    """Make ``classifier`` known to torch-fidelity, which refuses a second registration.

    ``calculate_metrics(feature_extractor="classifier", ...)`` then takes the arguments
    ``classifier`` and ``channels``.
    """
    if CLASSIFIER not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(CLASSIFIER, ClassifierExtractor)


def extract(
    images: UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"],
    extractor: Extractor,
    batch_size: int = _BATCH,
    device: torch.device | str = "cpu",
) -> dict[str, Float[Tensor, "n _width"]]:
    """Return an extractor's layers of images, by torch-fidelity's names.

    Args:
        images: Bytes, or pixels in [0, 1]; in 1 channel or 3.
        extractor: The network.
        batch_size: Images at a time, without influence on the features but for rounding.
        device: Where to compute; the features are on the CPU.

    Raises:
        DataError: The images have other numbers of channels.
    """
    cuda = torch.device(device).type == "cuda"
    network = extractor.network.to(device)
    names = network.features_list

    def layers_of(part: Tensor) -> list[Tensor]:
        found = get_featuresdict_from_dataset(
            ImageBytes(part), network, batch_size, cuda, save_cpu_ram=True, verbose=False
        )
        return [found[name] for name in names]

    layers = zip(*each(torch.split(images, batch_size), layers_of), strict=True)
    return {name: torch.cat(parts) for name, parts in zip(names, layers, strict=True)}


class ImageBytes(Dataset[Tensor]):
    """Images one by one as torch-fidelity takes them: bytes in three channels, on the CPU.

    Args:
        images: Bytes, or pixels in [0, 1]; in 1 channel or 3.

    Raises:
        DataError: The images have other numbers of channels.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "n channels height width"] | Float[Tensor, "n channels height width"],
    ) -> None:
        if images.shape[1] not in (1, 3):
            reason = f"{images.shape[1]} channels, and features are taken of grey or colour images"
            raise DataError("images to be scored", reason, "score images of 1 channel or 3")
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 height width"]:
        image = self.images[index]
        if image.is_floating_point():
            image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
        return image.cpu().expand(3, -1, -1)


def _extractor(name: str, weights: str, **settings: object) -> Extractor:
    """Let torch-fidelity make a network that gives the layers in use."""
    layers = [layer for layer in LAYERS[name] if layer is not None]
    network = create_feature_extractor(name, layers, cuda=False, verbose=False, **settings)
    return Extractor(name, network, weights)
