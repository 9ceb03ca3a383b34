"""Images for variational autoencoders."""

from __future__ import annotations

from dataclasses import replace

from dgm_bench.data.cards import DataFile, DatasetCard, Download, as_published, split_sizes
from dgm_bench.data.registry.images import MNIST

_LAROCHELLE = "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
_AMAT_FILES = (
    DataFile(
        "binarized_mnist_train.amat",
        size=78_400_000,
        sha256="ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    ),
    DataFile(
        "binarized_mnist_valid.amat",
        size=15_680_000,
        sha256="1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    ),
    DataFile(
        "binarized_mnist_test.amat",
        size=15_680_000,
        sha256="e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
    ),
)

STATIC_MNIST = DatasetCard(
    name="mnist-static",
    title="MNIST, binarised once by Larochelle",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=split_sizes(50_000, 10_000, 10_000),
    loader="binary_images:load_static_mnist",
    homes=("binarized_mnist", "MNIST_static"),
    files=_AMAT_FILES,
    downloads=tuple(as_published(file, "binarized_mnist", _LAROCHELLE) for file in _AMAT_FILES),
    manual=_LAROCHELLE,
)

_CHARDATA_BLOB = "016a3536ffe5e1d38e42563a18d7a78bfaf643ec"

OMNIGLOT = DatasetCard(
    name="omniglot",
    title="Omniglot, 28x28 as prepared for the importance-weighted autoencoder",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=split_sizes(23_000, 1_345, 8_070),
    loader="binary_images:load_omniglot",
    homes=("omniglot", "OMNIGLOT"),
    files=(DataFile("chardata.mat", git_blob=_CHARDATA_BLOB),),
    downloads=(
        Download(
            urls=("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
            path="omniglot/chardata.mat",
            size=25_000_000,
            git_blob=_CHARDATA_BLOB,
        ),
    ),
    seeded=True,
    manual="https://github.com/yburda/iwae/tree/master/datasets/OMNIGLOT",
    note="training images are drawn black and white afresh for every batch",
)

_DRAWN = "images are drawn black and white afresh for every batch, with the run's seed in tests"

DYNAMIC_MNIST = replace(
    MNIST,
    name="mnist-dynamic",
    title="MNIST, binarised afresh for every batch",
    unit="nats",
    sizes={"train": 60_000, "test": 10_000},
    loader="binary_images:load_dynamic_mnist",
    options={},
    note=f"all training images, none that validate; {_DRAWN}",
)

DYNAMIC_OMNIGLOT = replace(
    OMNIGLOT,
    name="omniglot-dynamic",
    title="Omniglot, 28x28, binarised afresh for every batch",
    sizes={"train": 24_345, "test": 8_070},
    loader="binary_images:load_dynamic_omniglot",
    seeded=False,
    note=f"all training images, none that validate; {_DRAWN}",
)

OMNIGLOT_RESIZED = DatasetCard(
    name="omniglot-resized28",
    title="all 32,460 Omniglot characters, resized to 28x28 bits",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=split_sizes(22_722, 1_623, 8_115),
    loader="binary_images:load_resized_omniglot",
    homes=("omniglot_resized28",),
    files=(
        DataFile(
            "omniglot_28x28_maml.npz",
            sha256="2409915b1330f19608475d7d3347461d8ce481acbf13d5accfb1944257ceac13",
        ),
    ),
    manual="https://github.com/brendenlake/omniglot",
    note="not the chardata.mat of the published tables: resized in another way, and split by who "
    "drew (1 to 14 train, 15 validates, 16 to 20 test)",
)

_FREY_FILE = DataFile(
    "freyfaces.pkl",
    size=3_568_521,
    sha256="3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a",
)

FREYFACES = DatasetCard(
    name="freyfaces",
    title="Frey Faces, 28x20 grey frames of one face",
    event_shape=(1, 28, 20),
    unit="bits/dim",
    sizes=split_sizes(1_565, 200, 200),
    loader="freyfaces:load",
    homes=("freyfaces", "Freyfaces"),
    files=(_FREY_FILE,),
    downloads=(
        as_published(
            _FREY_FILE,
            "freyfaces",
            "https://github.com/riannevdberg/sylvester-flows/raw/master/data/Freyfaces",
            "https://github.com/y0ast/Variational-Autoencoder/raw/master",
        ),
    ),
    seeded=True,
    manual="https://github.com/riannevdberg/sylvester-flows",
    note="split with seeds 123, 321 and 231 in runs 0, 1 and 2: the test set differs between runs",
)

_CALTECH_FILE = DataFile(
    "caltech101_silhouettes_28_split1.mat",
    size=872_124,
    sha256="eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
)

CALTECH = DatasetCard(
    name="caltech",
    title="Caltech 101 silhouettes, 28x28",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=split_sizes(4_100, 2_264, 2_307),
    loader="binary_images:load_caltech",
    homes=("caltech101_silhouettes", "Caltech101Silhouettes"),
    files=(_CALTECH_FILE,),
    downloads=(
        as_published(
            _CALTECH_FILE, "caltech101_silhouettes", "https://people.cs.umass.edu/~marlin/data"
        ),
    ),
    manual="https://people.cs.umass.edu/~marlin/data.shtml",
)
