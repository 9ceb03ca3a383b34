"""Tables: those of the MAF paper, and patches of images drawn again."""

from __future__ import annotations

from dgm_bench.data.cards import DataFile, DatasetCard, Download, split_sizes

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

PATCHES = DatasetCard(
    name="bsds300-patches",
    title="8x8 grey patches drawn again from the 300 images of BSDS300",
    event_shape=(63,),
    unit="nats",
    sizes=split_sizes(1_000_000, 50_000, 250_000),
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
        sizes=split_sizes(*sizes),
        loader="tabular:load",
        homes=("", "data"),
        files=tuple(DataFile(path) for path in paths),
        downloads=(_MAF_DATA,),
        manual=_ZENODO,
        note="verified by the numbers of rows: no checksum of the unpacked files is published",
    )


TABULAR = (
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
    # At second hand: training and test from two public loaders, validation from one.
    _tabular("bsds300", 63, (1_000_000, 50_000, 250_000), "BSDS300/BSDS300.hdf5"),
)
