"""Weights of published networks, whose features the scores of images are computed from.

Torch-free. Weights are downloaded only on request by name, never during an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgm_bench import paths
from dgm_bench.data.cards import DataFile, Download
from dgm_bench.data.files import DataState, FileCheck, checksum
from dgm_bench.errors import DataError, DataUnavailable, find_named

FOLDER = "weights"  # below the data root
VARIABLE = "DGM_BENCH_WEIGHTS"  # names a folder that is looked into first


@dataclass(frozen=True)
class WeightsCard:
    """What is known of a network's weights without loading them.

    Attributes:
        name: The network's name on the command line, which is torch-fidelity's.
        title: One line for people.
        file: The file as it is published.
        url: Where it is published.
    """

    name: str
    title: str
    file: DataFile
    url: str

    @property
    def download(self) -> Download:
        """Where the file comes from, and where it goes below the data root."""
        path, size = f"{FOLDER}/{self.file.path}", self.file.size or 0
        return Download(urls=(self.url,), path=path, size=size, sha256=self.file.sha256)


# pytorch-fid publishes the same bytes as pt_inception-2015-12-05-6726825d.pth, with
# SHA-1 bd836944fd6db519dfd8d924aa457f5b3c8357ff.
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
# Not the vgg16.pkl of NVIDIA that the authors of precision and recall used.
_VGG = "vgg16-397923af.pth"

WEIGHTS: tuple[WeightsCard, ...] = (
    WeightsCard(
        name="inception-v3-compat",
        title="Inception v3 of 2015-12-05, by which FID and Inception scores are published",
        file=DataFile(
            _INCEPTION,
            size=95_628_359,
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        ),
        url=f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION}",
    ),
    WeightsCard(
        name="vgg16",
        title="VGG-16 of torchvision, for precision and recall",
        file=DataFile(
            _VGG,
            size=553_433_881,
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
        url=f"https://download.pytorch.org/models/{_VGG}",
    ),
)


def weights_names() -> list[str]:
    """Return the names of all networks whose weights are known."""
    return [known.name for known in WEIGHTS]


def weights_card(name: str) -> WeightsCard:
    """Return the card of a network's weights.

    Raises:
        UsageError: There is none of that name.
    """
    return find_named(name, {known.name: known for known in WEIGHTS}, "weights")


def find_weights(name: str, root: Path) -> Path:
    """Return the file of a network's weights, once its checksum is found right.

    It is looked for in the folder that ``DGM_BENCH_WEIGHTS`` names, then in ``weights`` below
    the data root.

    Raises:
        DataUnavailable: It is not there.
        DataError: It is there, and is not the published file.
        UsageError: There are no weights of that name.
    """
    wanted = weights_card(name)
    check = check_weights(wanted, root)
    if check.outcome == "missing":
        places = " or ".join(str(folder) for folder in _folders(root))
        remedy = f"run dgm-bench data fetch {name}, or put {wanted.url} there"
        raise DataUnavailable(wanted.file.path, f"weights not found in {places}", remedy)
    if check.outcome != "ok":
        remedy = f"delete it and run dgm-bench data fetch {name}"
        raise DataError(check.path, f"{check.outcome}: {check.detail}", remedy)
    return check.path


def weights_state(name: str, root: Path) -> DataState:
    """Say whether a network's weights are there, by existence and size only."""
    wanted = weights_card(name)
    path, command = _locate(wanted, root), f"dgm-bench data fetch {name}"
    if not path.is_file():
        return DataState("missing", f"{path}: not found", command)
    whole = path.stat().st_size == wanted.file.size
    return DataState("here", str(path)) if whole else DataState("incomplete", str(path), command)


def check_weights(wanted: WeightsCard, root: Path) -> FileCheck:
    """Compare the file of a network's weights with the published one, by size and checksum."""
    path = _locate(wanted, root)
    if not path.is_file():
        return FileCheck(path, "missing", "not found")
    size = path.stat().st_size
    if size != wanted.file.size:
        return FileCheck(path, "wrong size", f"{size:,} bytes, expected {wanted.file.size:,}")
    found = checksum(path, "sha256")
    if found != wanted.file.sha256:
        return FileCheck(path, "wrong checksum", f"{found}, expected {wanted.file.sha256}")
    return FileCheck(path, "ok")


def fetch_weights(name: str, root: Path, *, progress: bool = True) -> Path:
    """Download a network's weights unless they are there, and return their file.

    Raises:
        DataError: They cannot be fetched, or a file in their place is not the published one.
        UsageError: There are no weights of that name.
    """
    wanted = weights_card(name)
    if check_weights(wanted, root).outcome == "missing":
        from dgm_bench.data.download import download

        download(wanted.download, root, progress=progress)
    return find_weights(name, root)


def _folders(root: Path) -> list[Path]:
    """Return where weights are looked for, in that order."""
    named = paths.named_folder(VARIABLE)
    return [*([named] if named else []), root / FOLDER]


def _locate(wanted: WeightsCard, root: Path) -> Path:
    """Return the file where it is found first, else where a download puts it."""
    places = [folder / wanted.file.path for folder in _folders(root)]
    return next((place for place in places if place.is_file()), places[-1])
