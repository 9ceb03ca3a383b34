"""A loaded data set: its splits as tensors, and what is known about them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from dgm_bench.control import ask_within

LogDensity = Callable[[Float[Tensor, "n *event"]], Float[Tensor, " n"]]
#: Maps stored examples to model inputs, with fresh noise: ``(examples, generator) -> inputs``.
Augment = Callable[[Num[Tensor, "n *event"], torch.Generator], Num[Tensor, "n *event"]]

#: Bytes hashed between two questions whether to stop.
_AT_A_TIME = 1 << 26


@dataclass(frozen=True)
class Entropy:
    """Differential entropy of a data set's density in nats, with its Monte Carlo error."""

    value: float
    se: float = 0.0


@dataclass(frozen=True)
class Dataset:
    """Named, versioned splits as tensors.

    Attributes:
        name: The name on the command line.
        version: Changes whenever the prepared arrays do.
        splits: ``train``, ``val`` and ``test``, each ``(n, *event_shape)``. FFJORD's image
            convention has no ``val``: the loop then validates on ``test``, as FFJORD did.
        unit: Unit of the likelihood reported for it: ``nats`` or ``bits/dim``.
        to_unit: Per-example log-likelihood in the model's coordinates (nats, float64) and the
            model's inputs to the negative log-likelihood in ``unit``.
        files: SHA-256 of every file it was read from.
        seeded: Whether the splits were drawn with the run's seed.
        verified: Whether those files are byte for byte the published ones.
        augment: Applied to every training batch of stored examples (fresh noise, flips), or None.
        dequantise: Applied to batches for evaluation: as ``augment`` without flips, or None.
        log_density: For sets whose density is known: exact log density in nats.
        entropy: For sets whose entropy is known.
        image_shape: ``(channels, height, width)`` where examples are images, for pictures.
        to_pixels: Model inputs back to pixels in [0, 1], for pictures.
        from_pixels: The inverse, where pixels are not the model inputs themselves.
        labels: Class of each example of each split, as int64; empty where there are none.
        classes: Names of the classes, in the order of the labels.
        resident: Whether the splits go to the device whole; if not, they stay mapped from disk
            and each batch is moved when it is used.
        known_fingerprints: Of the splits, where they were found when the arrays were written.
    """

    name: str
    version: str
    splits: Mapping[str, Num[Tensor, "_n *event"]]
    unit: str = "nats"
    to_unit: (
        Callable[[Float[Tensor, " n"], Num[Tensor, "n *event"]], Float[Tensor, " n"]] | None
    ) = None
    files: Mapping[str, str] = field(default_factory=dict)
    verified: bool = True
    seeded: bool = False
    augment: Augment | None = None
    dequantise: Augment | None = None
    log_density: LogDensity | None = None
    entropy: Entropy | None = None
    image_shape: tuple[int, int, int] | None = None
    to_pixels: Callable[[Num[Tensor, "n *event"]], Num[Tensor, "n *shape"]] | None = None
    from_pixels: Callable[[Num[Tensor, "n *event"]], Num[Tensor, "n *event"]] | None = None
    labels: Mapping[str, Int[Tensor, " _n"]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    note: str = ""
    resident: bool = True
    known_fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.splits["train"].shape[1:])

    @property
    def dim(self) -> int:
        """Number of dimensions of one example."""
        return math.prod(self.event_shape)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples in each split."""
        return {name: len(split) for name, split in self.splits.items()}

    def fingerprints(self) -> dict[str, str]:
        """Return SHA-256 of each split's array: type, shape and bytes."""
        if self.known_fingerprints:
            return dict(self.known_fingerprints)
        return {name: fingerprint(split) for name, split in self.splits.items()}

    def augmented(
        self, examples: Num[Tensor, "n *event"], generator: torch.Generator
    ) -> Num[Tensor, "n *event"]:
        """Return stored examples as a model is trained on them, with fresh noise and flips."""
        return examples if self.augment is None else self.augment(examples, generator)

    def dequantised(
        self, examples: Num[Tensor, "n *event"], generator: torch.Generator
    ) -> Num[Tensor, "n *event"]:
        """Return stored examples as a model is evaluated on them, with fresh noise."""
        return examples if self.dequantise is None else self.dequantise(examples, generator)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """Return the set with its splits on ``device``; ``dtype`` is for floating-point splits.

        Splits that are not ``resident`` stay where they are.
        """
        if not self.resident:
            return self
        moved = {
            name: split.to(device, dtype if split.is_floating_point() else None)
            for name, split in self.splits.items()
        }
        return replace(self, splits=moved)


def fingerprint(array: Tensor) -> str:
    """Return SHA-256 over an array's type, shape and bytes."""
    host = array.detach().cpu().contiguous()
    digest = begun_fingerprint(host.dtype, tuple(host.shape))
    content = host.reshape(-1).view(torch.uint8).numpy().data
    for start in range(0, len(content), _AT_A_TIME):
        ask_within()
        digest.update(content[start : start + _AT_A_TIME])
    return digest.hexdigest()


def begun_fingerprint(dtype: torch.dtype, shape: tuple[int, ...]) -> hashlib._Hash:
    """Return a hash of type and shape, to be updated with the array's bytes in order."""
    return hashlib.sha256(f"{dtype} {shape} ".encode())
