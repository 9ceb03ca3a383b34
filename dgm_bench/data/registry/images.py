"""Images for flows, with the conventions of the papers."""

from __future__ import annotations

from dataclasses import replace

from dgm_bench.data.cards import DataFile, DatasetCard, Download, as_published, split_sizes

_CONVENTIONS = {"convention": ("maf", "ffjord")}
_CONVENTION_NOTE = (
    "convention maf: fixed noise, logits, a validation split; "
    "ffjord: fresh noise, pixels in [0, 1), no validation split"
)

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
MNIST_FILES = (
    DataFile(
        "train-images-idx3-ubyte.gz",
        size=9_912_422,
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    DataFile(
        "t10k-images-idx3-ubyte.gz",
        size=1_648_877,
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
)

MNIST = DatasetCard(
    name="mnist",
    title="MNIST, 28x28 grey digits",
    event_shape=(1, 28, 28),
    unit="bits/dim",
    sizes=split_sizes(50_000, 10_000, 10_000),
    loader="images:load_mnist",
    homes=("mnist",),
    files=MNIST_FILES,
    downloads=tuple(as_published(file, "mnist", *MNIST_MIRRORS) for file in MNIST_FILES),
    options=_CONVENTIONS,
    manual="https://ossci-datasets.s3.amazonaws.com/mnist/",
    note=_CONVENTION_NOTE,
)

_LEVELS_NOTE = (
    "bytes without noise; the last {} train images validate; bits/dim of probabilities of bytes"
)

MNIST_LEVELS = replace(
    MNIST,
    name="mnist-levels",
    title="MNIST, 28x28 grey digits, levels 0 to 255",
    loader="levels:load_mnist",
    options={},
    note=_LEVELS_NOTE.format("10,000"),
)

_CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

CIFAR10 = DatasetCard(
    name="cifar10",
    title="CIFAR-10, 32x32 colour photographs",
    event_shape=(3, 32, 32),
    unit="bits/dim",
    sizes=split_sizes(90_000, 5_000, 10_000),
    loader="images:load_cifar10",
    homes=("cifar10", ""),
    files=tuple(
        # Python 3 pickles them anew with other bytes.
        DataFile(f"cifar-10-batches-py/{name}", md5=md5, repacked=True)
        for name, md5 in _CIFAR_MD5.items()
    ),
    downloads=(
        Download(
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            path="cifar10/cifar-10-python.tar.gz",
            size=170_498_071,
            unpacked=187_000_000,
            md5="c58f30108f718f92721af3b95e74349a",
        ),
    ),
    options=_CONVENTIONS,
    manual="https://www.cs.toronto.edu/~kriz/cifar.html",
    note=_CONVENTION_NOTE,
)

CIFAR10_LEVELS = replace(
    CIFAR10,
    name="cifar10-levels",
    title="CIFAR-10, 32x32 colour photographs, levels 0 to 255",
    sizes=split_sizes(45_000, 5_000, 10_000),
    loader="levels:load_cifar10",
    options={},
    note=f"{_LEVELS_NOTE.format('5,000')}; no mirror images",
)
