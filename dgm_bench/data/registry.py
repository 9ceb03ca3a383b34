"""The data sets there are. Adding one is adding a card here and the loader that it names."""

from __future__ import annotations

from dataclasses import replace

from dgm_bench.data.cards import DataFile, DatasetCard, Download


def _sizes(train: int, val: int, test: int) -> dict[str, int]:
    return {"train": train, "val": val, "test": test}


_BSDS_IMAGES = Download(
    urls=(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/BSDS300-images.tgz",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/segbench/BSDS300-images.tgz",
    ),
    path="BSDS300-images.tgz",
    size=22_500_000,
    unpacked=25_000_000,
    sha256="a5f7d0e49fe135c75518a3543ced24470156fd69305ae77845dff2a5138652b4",
)

_PATCHES = DatasetCard(
    name="bsds300-patches",
    title="8x8 grey patches drawn again from the 300 images of BSDS300",
    event_shape=(63,),
    unit="nats",
    sizes=_sizes(1_000_000, 50_000, 250_000),
    loader="patches:load",
    homes=("bsds300", "BSDS300"),
    files=(
        DataFile(
            "images/train/*.jpg",
            sha256="9de25bdaf5db109f390ba0166233ad92ef1e27696c0f60e43d2ce424e0e7061b",
            count=200,
        ),
        DataFile(
            "images/test/*.jpg",
            sha256="c2541b97777ee29fa81b59a033bd257696b50a173e39a1be8ce527e14db9a735",
            count=100,
        ),
    ),
    downloads=(_BSDS_IMAGES,),
    manual="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/",
    note="same distribution as the paper's BSDS300.hdf5, other rows: a column of its own",
)

# --------------------------------------------------------------------- tables of the MAF paper

_ZENODO = "https://zenodo.org/records/1161203"
_MAF_DATA = Download(
    urls=(
        f"{_ZENODO}/files/data.tar.gz?download=1",
        "https://zenodo.org/api/records/1161203/files/data.tar.gz/content",
    ),
    path="data.tar.gz",
    size=857_000_000,
    unpacked=2_500_000_000,
    md5="9b9c9b0375315ad270eba4ce80c093ab",
)


def _tabular(name: str, dim: int, sizes: tuple[int, int, int], *paths: str) -> DatasetCard:
    """A table of the MAF paper, as its authors put it on Zenodo."""
    return DatasetCard(
        name=name,
        title=f"{name.upper()} as prepared for the MAF paper",
        event_shape=(dim,),
        unit="nats",
        sizes=_sizes(*sizes),
        loader="tabular:load",
        homes=("", "data"),
        files=tuple(DataFile(path) for path in paths),
        downloads=(_MAF_DATA,),
        manual=_ZENODO,
        note="verified by the numbers of rows: no checksum of the unpacked files is published",
    )


_TABULAR = (
    _tabular("power", 6, (1_659_917, 184_435, 204_928), "power/data.npy"),
    _tabular("gas", 8, (852_174, 94_685, 105_206), "gas/ethylene_CO.pickle"),
    _tabular(
        "hepmass",
        21,
        (315_123, 35_013, 174_987),
        "hepmass/1000_train.csv",
        "hepmass/1000_test.csv",
    ),
    _tabular("miniboone", 43, (29_556, 3_284, 3_648), "miniboone/data.npy"),
    _tabular("bsds300", 63, (1_000_000, 50_000, 250_000), "BSDS300/BSDS300.hdf5"),
)

# ---------------------------------------------------------------------------------- images

_CONVENTIONS = {"convention": ("maf", "ffjord")}
_CONVENTION_NOTE = (
    "convention maf: fixed noise, logits, a validation split; "
    "ffjord: fresh noise, pixels in [0, 1), no validation split"
)


def _as_it_is(file: DataFile, folder: str, *mirrors: str) -> Download:
    """The download of a file that is read as it is published, under the same name everywhere."""
    return Download(
        urls=tuple(f"{mirror}/{file.path}" for mirror in mirrors),
        path=f"{folder}/{file.path}",
        size=file.size or 0,
        sha256=file.sha256,
    )


_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
)
_MNIST_FILES = (
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

_MNIST = DatasetCard(
    name="mnist",
    title="MNIST, 28x28 grey digits",
    event_shape=(1, 28, 28),
    unit="bits/dim",
    sizes=_sizes(50_000, 10_000, 10_000),
    loader="images:load_mnist",
    homes=("mnist",),
    files=_MNIST_FILES,
    downloads=tuple(_as_it_is(file, "mnist", *_MNIST_MIRRORS) for file in _MNIST_FILES),
    options=_CONVENTIONS,
    manual="https://ossci-datasets.s3.amazonaws.com/mnist/",
    note=_CONVENTION_NOTE,
)

_CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

_CIFAR10 = DatasetCard(
    name="cifar10",
    title="CIFAR-10, 32x32 colour photographs",
    event_shape=(3, 32, 32),
    unit="bits/dim",
    sizes=_sizes(90_000, 5_000, 10_000),
    loader="images:load_cifar10",
    homes=("cifar10", ""),
    files=tuple(
        DataFile(f"cifar-10-batches-py/{name}", md5=md5) for name, md5 in _CIFAR_MD5.items()
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

# ------------------------------------------------- images for variational autoencoders

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

_STATIC_MNIST = DatasetCard(
    name="mnist-static",
    title="MNIST, binarised once by Larochelle",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=_sizes(50_000, 10_000, 10_000),
    loader="binary_images:load_static_mnist",
    homes=("binarized_mnist", "MNIST_static"),
    files=_AMAT_FILES,
    downloads=tuple(_as_it_is(file, "binarized_mnist", _LAROCHELLE) for file in _AMAT_FILES),
    manual=_LAROCHELLE,
)

_OMNIGLOT = DatasetCard(
    name="omniglot",
    title="Omniglot, 28x28 as prepared for the importance-weighted autoencoder",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=_sizes(23_000, 1_345, 8_070),
    loader="binary_images:load_omniglot",
    homes=("omniglot", "OMNIGLOT"),
    files=(DataFile("chardata.mat", git_blob="016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),),
    downloads=(
        Download(
            urls=("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
            path="omniglot/chardata.mat",
            size=25_000_000,
        ),
    ),
    seeded=True,
    manual="https://github.com/yburda/iwae/tree/master/datasets/OMNIGLOT",
    note="training images are drawn black and white afresh for every batch",
)

_OMNIGLOT_RESIZED = DatasetCard(
    name="omniglot-resized28",
    title="all 32,460 Omniglot characters, resized to 28x28 bits",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=_sizes(22_722, 1_623, 8_115),
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

_FREYFACES = DatasetCard(
    name="freyfaces",
    title="Frey Faces, 28x20 grey frames of one face",
    event_shape=(1, 28, 20),
    unit="bits/dim",
    sizes=_sizes(1_565, 200, 200),
    loader="freyfaces:load",
    homes=("freyfaces", "Freyfaces"),
    files=(_FREY_FILE,),
    downloads=(
        _as_it_is(
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

_CALTECH = DatasetCard(
    name="caltech",
    title="Caltech 101 silhouettes, 28x28",
    event_shape=(1, 28, 28),
    unit="nats",
    sizes=_sizes(4_100, 2_264, 2_307),
    loader="binary_images:load_caltech",
    homes=("caltech101_silhouettes", "Caltech101Silhouettes"),
    files=(_CALTECH_FILE,),
    downloads=(
        _as_it_is(
            _CALTECH_FILE, "caltech101_silhouettes", "https://people.cs.umass.edu/~marlin/data"
        ),
    ),
    manual="https://people.cs.umass.edu/~marlin/data.shtml",
)

# ------------------------------------------------- images with classes, for models of pixels

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

_MNIST_LABELLED = replace(
    _MNIST,
    name="mnist-labelled",
    title="MNIST with classes, padded to 32x32",
    event_shape=(1, 32, 32),
    classes=10,
    unit="nats",
    loader="labelled_images:load_mnist",
    files=(*_MNIST_FILES, *_MNIST_LABELS),
    downloads=tuple(
        _as_it_is(file, "mnist", *_MNIST_MIRRORS) for file in (*_MNIST_FILES, *_MNIST_LABELS)
    ),
    options={},
    note="bytes / 255, no noise; the last 10,000 train images validate",
)

_CIFAR10_LABELLED = replace(
    _CIFAR10,
    name="cifar10-labelled",
    title="CIFAR-10 with classes, 32x32 colour photographs",
    classes=10,
    unit="nats",
    sizes=_sizes(45_000, 5_000, 10_000),
    loader="labelled_images:load_cifar10",
    options={},
    note="bytes / 255, no noise and no mirror images; the last 5,000 train images validate",
)

_BY_NUMBERS = "compared by numbers of images alone: no checksums of the files are published"

_IMAGENET = DatasetCard(
    name="imagenet-256",
    title="ImageNet (ILSVRC 2012) with classes, 256x256, from a folder of yours",
    event_shape=(3, 256, 256),
    classes=1_000,
    unit="nats",
    sizes=_sizes(1_271_167, 10_000, 50_000),
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

_FFHQ = DatasetCard(
    name="ffhq-1024",
    title="Flickr-Faces-HQ, 1024x1024, from a folder of yours",
    event_shape=(3, 1024, 1024),
    unit="nats",
    sizes=_sizes(55_000, 5_000, 10_000),
    loader="image_folder:load_ffhq",
    homes=("ffhq-1024", "ffhq"),
    files=(DataFile(".", count=70_000, suffixes=(".png",)),),
    manual="https://github.com/NVlabs/ffhq-dataset",
    layout="ffhq-1024/**/*.png",
    note="bytes / 255, no noise; the first 60,000 train, of which the last 5,000 validate, and the "
    f"other 10,000 are the test; {_BY_NUMBERS}",
)

# -------------------------------------------------------------------------------- embedded

_DIGITS = DatasetCard(
    name="digits",
    title="scikit-learn's 1,797 handwritten digits, 8x8 with 17 levels",
    event_shape=(1, 8, 8),
    unit="bits/dim",
    sizes=_sizes(1_347, 200, 250),
    loader="digits:load",
    note="fixed split and fixed noise; bits/dim count 17 levels",
)

_BINARY_DIGITS = replace(
    _DIGITS,
    name="digits-binary",
    title="scikit-learn's digits, 8x8, drawn black and white once",
    unit="nats",
    loader="binary_images:load_digits",
    note="the images and the split of digits; a pixel is 1 with its level / 16 as probability",
)

_DIGITS_LABELLED = replace(
    _DIGITS,
    name="digits-labelled",
    title="scikit-learn's digits with classes, 8x8",
    classes=10,
    unit="nats",
    loader="labelled_images:load_digits",
    note="the images and the split of digits; levels 0 to 16 become bytes, pixels are bytes / 255",
)

_TOYS = tuple(
    DatasetCard(
        name=name,
        title=f"{title}, a 2-D density of the FFJORD paper",
        event_shape=(2,),
        unit="nats",
        sizes=_sizes(20_000, 5_000, 5_000),
        loader="toys:load",
    )
    for name, title in {
        "8gaussians": "eight Gaussians on a circle",
        "checkerboard": "eight squares of a checkerboard",
        "2spirals": "two spirals",
        "pinwheel": "a pinwheel of five arms",
        "swissroll": "a Swiss roll",
        "moons": "two half moons",
        "circles": "two circles",
        "rings": "four rings",
    }.items()
)

_ORACLES = tuple(
    DatasetCard(
        name=f"oracle-{dim}",
        title=f"a fixed random transformation of a simple base in {dim} dimensions",
        event_shape=(dim,),
        unit="nats",
        sizes=_sizes(100_000, 10_000, 20_000),
        loader="oracles:load",
        note="log density and entropy are known",
    )
    for dim in (6, 8, 21, 43, 63)
)

CARDS: tuple[DatasetCard, ...] = (
    _DIGITS,
    _BINARY_DIGITS,
    _DIGITS_LABELLED,
    *_TOYS,
    *_ORACLES,
    _PATCHES,
    _MNIST,
    _CIFAR10,
    _STATIC_MNIST,
    _OMNIGLOT,
    _OMNIGLOT_RESIZED,
    _FREYFACES,
    _CALTECH,
    _MNIST_LABELLED,
    _CIFAR10_LABELLED,
    _IMAGENET,
    _FFHQ,
    *_TABULAR,
)
