"""The data sets there are. Adding one is adding a card here and the loader that it names."""

from __future__ import annotations

from dgm_bench.data.cards import DatasetCard
from dgm_bench.data.registry.computed import (
    BINARY_DIGITS,
    DIGITS,
    DIGITS_CAPTIONED,
    DIGITS_CLASSES,
    DIGITS_LABELLED,
    DIGITS_LEVELS,
    ORACLES,
    TOYS,
)
from dgm_bench.data.registry.images import CIFAR10, CIFAR10_LEVELS, MNIST, MNIST_LEVELS
from dgm_bench.data.registry.labelled import (
    CIFAR10_LABELLED,
    FFHQ,
    IMAGENET,
    IMAGENETS,
    MNIST_CAPTIONED,
    MNIST_CLASSES,
    MNIST_LABELLED,
)
from dgm_bench.data.registry.tabular import PATCHES, TABULAR
from dgm_bench.data.registry.variational import (
    CALTECH,
    DYNAMIC_MNIST,
    DYNAMIC_OMNIGLOT,
    FREYFACES,
    OMNIGLOT,
    OMNIGLOT_RESIZED,
    STATIC_MNIST,
)

CARDS: tuple[DatasetCard, ...] = (
    DIGITS,
    BINARY_DIGITS,
    DIGITS_LABELLED,
    DIGITS_CAPTIONED,
    DIGITS_CLASSES,
    DIGITS_LEVELS,
    *TOYS,
    *ORACLES,
    PATCHES,
    MNIST,
    CIFAR10,
    STATIC_MNIST,
    OMNIGLOT,
    OMNIGLOT_RESIZED,
    DYNAMIC_MNIST,
    DYNAMIC_OMNIGLOT,
    FREYFACES,
    CALTECH,
    MNIST_LABELLED,
    MNIST_CAPTIONED,
    MNIST_CLASSES,
    CIFAR10_LABELLED,
    MNIST_LEVELS,
    CIFAR10_LEVELS,
    IMAGENET,
    *IMAGENETS,
    FFHQ,
    *TABULAR,
)
