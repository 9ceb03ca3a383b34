"""Images with classes, and large ones, for models of pixels."""

from __future__ import annotations

from dataclasses import replace

from dgm_bench.data.cards import DataFile, DatasetCard, as_published, split_sizes
from dgm_bench.data.registry.images import CIFAR10, MNIST, MNIST_FILES, MNIST_MIRRORS

_MNIST_LABELS = (
    DataFile(
        "train-labels-idx1-ubyte.gz",
        size=28_881,
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    DataFile(
        "t10k-labels-idx1-ubyte.gz",
        size=4_542,
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

MNIST_LABELLED = replace(
    MNIST,
    name="mnist-labelled",
    title="MNIST with classes, padded to 32x32",
    event_shape=(1, 32, 32),
    classes=10,
    unit="nats",
    loader="labelled_images:load_mnist",
    files=(*MNIST_FILES, *_MNIST_LABELS),
    downloads=tuple(
        as_published(file, "mnist", *MNIST_MIRRORS) for file in (*MNIST_FILES, *_MNIST_LABELS)
    ),
    options={},
    note="bytes / 255, no noise; the last 10,000 train images validate",
)

MNIST_CAPTIONED = replace(
    MNIST_LABELLED,
    name="mnist-captioned",
    title="MNIST with captions of class, thickness and slant, padded to 32x32",
    classes=90,
    sizes=split_sizes(44_262, 8_889, 16_849),
    loader="captioned_images:load_mnist",
    note="as mnist-labelled; thickness and slant are thirds of what is measured of the class's "
    "training images; those of 10 held-out captions are moved from train and val to the test",
)

MNIST_CLASSES = replace(
    MNIST_LABELLED,
    name="mnist-classes",
    title="MNIST, 28x28, each image and its class in one row",
    event_shape=(28 * 28 + 1,),
    sizes={"train": 60_000, "test": 10_000},
    loader="class_rows:load_mnist",
    options={"shifts": ("random", "none")},
    note="bytes / 255; train images are shifted by up to 4 pixels both ways, drawn anew in each "
    "batch, or with shifts = none left as they are; no image validates",
)

CIFAR10_LABELLED = replace(
    CIFAR10,
    name="cifar10-labelled",
    title="CIFAR-10 with classes, 32x32 colour photographs",
    classes=10,
    unit="nats",
    sizes=split_sizes(45_000, 5_000, 10_000),
    loader="labelled_images:load_cifar10",
    options={},
    note="bytes / 255, no noise and no mirror images; the last 5,000 train images validate",
)

_BY_NUMBERS = "compared by numbers of images alone: no checksums of the files are published"

IMAGENET = DatasetCard(
    name="imagenet-256",
    title="ImageNet (ILSVRC 2012) with classes, 256x256, from a folder of yours",
    event_shape=(3, 256, 256),
    classes=1_000,
    unit="nats",
    sizes=split_sizes(1_271_167, 10_000, 50_000),
    loader="image_folder:load_imagenet",
    homes=("imagenet-256", "imagenet"),
    files=(
        DataFile("train", count=1_281_167, suffixes=(".jpeg", ".jpg", ".png")),
        DataFile("val", count=50_000, suffixes=(".jpeg", ".jpg", ".png")),
    ),
    manual="https://www.image-net.org/download.php",
    layout="imagenet-256/train/<wnid>/*.JPEG and imagenet-256/val/<wnid>/*.JPEG",
    note="bytes / 255, no noise; its validation images are the test, 10,000 random train images "
    "validate; middle square, resized with Pillow's bicubic filter; grey and CMYK images become "
    f"RGB, smaller ones are enlarged; {_BY_NUMBERS}",
)

#: The same images at other sizes, from the same folder.
IMAGENETS = tuple(
    replace(
        IMAGENET,
        name=f"imagenet-{side}",
        title=f"ImageNet (ILSVRC 2012) with classes, {side}x{side}, from a folder of yours",
        event_shape=(3, side, side),
    )
    for side in (128, 512)
)

FFHQ = DatasetCard(
    name="ffhq-1024",
    title="Flickr-Faces-HQ, 1024x1024, from a folder of yours",
    event_shape=(3, 1024, 1024),
    unit="nats",
    sizes=split_sizes(55_000, 5_000, 10_000),
    loader="image_folder:load_ffhq",
    homes=("ffhq-1024", "ffhq"),
    files=(DataFile(".", count=70_000, suffixes=(".png",)),),
    manual="https://github.com/NVlabs/ffhq-dataset",
    layout="ffhq-1024/**/*.png",
    note="bytes / 255, no noise; the first 60,000 train, of which the last 5,000 validate, and the "
    f"other 10,000 are the test; {_BY_NUMBERS}",
)
