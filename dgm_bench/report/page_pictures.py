"""The pictures of runs for the page: those that are here, small, as addresses that hold them."""

from __future__ import annotations

import base64
import io
from functools import cache
from hashlib import sha256
from pathlib import Path

from dgm_bench.records import RunRecord, kept_pictures
from dgm_bench.report.kept_figures import drawn_once
from dgm_bench.store import Store

#: Pixels of the widest picture.
WIDEST = 860
QUALITY = 75


def pictures_of(record: RunRecord, store: Store) -> list[tuple[str, str]]:
    """Return names and addresses of a run's pictures that are on this machine.

    They are among its artifacts or, where these were not kept, among the folder's figures, in which
    a picture is known by its digest.
    """
    folder = store.folder_of(record)
    found = {file.stem: file for file in kept_pictures(record, folder)}
    for name, digest in record.artifacts.items() if not found else ():
        if file := _figures(folder / "figures").get(digest):
            found[Path(name).stem] = file
    return [(name, _address(file)) for name, file in found.items()]


@cache
def _figures(folder: Path) -> dict[str, Path]:
    return {sha256(file.read_bytes()).hexdigest(): file for file in sorted(folder.glob("*.png"))}


def _address(file: Path) -> str:
    content = file.read_bytes()
    return drawn_once(lambda: small(content), "picture", sha256(content).hexdigest())


def small(content: bytes) -> str:
    """Return the address of a picture as WebP, or as it is where that cannot be made."""
    try:
        kind, content = "webp", _webp(content)
    except (ImportError, OSError):
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _webp(content: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDEST, WIDEST * 2))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()
