"""Image files: which are read, and what of one is lost or left aside on the way to 8 bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dgm_bench.data.arrays import decoding
from dgm_bench.errors import DataError

#: Pillow knows many more, one of which (EPS) calls another program to draw it.
FORMATS = ("JPEG", "PNG")
#: Pixels of the largest image: Pillow warns beyond as many, and this refuses.
MOST_PIXELS = 89_478_485
_ORIENTATION, _UPRIGHT = 0x0112, (0, 1)


@contextmanager
def opened(path: Path, stream: io.BytesIO | None = None) -> Iterator[Image.Image]:
    """Open an image of 8 bits a channel or fewer, from ``stream`` where its bytes are read already.

    Raises:
        DataError: It is truncated, is not a JPEG or PNG image, is too large, or has 16 bits a
            channel, of which Pillow would drop half; also when that shows only later.
    """
    with decoding(path, _unreadable), Image.open(stream or path, formats=FORMATS) as image:
        _require_bounded(image, path)
        yield image


def _unreadable(path: Path, error: Exception) -> DataError:
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "neither JPEG nor PNG" if unknown else str(error) or type(error).__name__
    remedy = "replace it, or take it out of the folder"
    return DataError(path, f"is not a readable image ({reason})", remedy)


def _require_bounded(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        remedy = "replace it by a smaller one, or take it out of the folder"
        raise DataError(path, f"is too large: {width:,}x{height:,} pixels", remedy)
    if any("16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        remedy = "convert it to 8 bits a channel in RGB"
        raise DataError(path, "has 16 bits a channel, expected 8", remedy)


def oddities(image: Image.Image) -> tuple[str, ...]:
    """Return what of an image its pixels in RGB do not show, or show in another way.

    ``palette``: its colours are few. ``transparent``: colours are shown that were hidden.
    ``turned``: its camera asked for it to be shown turned, and it is left as stored. ``frames``: it
    has several, of which the first is taken.
    """
    found = {
        "palette": image.mode in ("P", "PA"),
        "transparent": _is_transparent(image),
        "turned": _is_turned(image),
        "frames": getattr(image, "n_frames", 1) > 1,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(least < 255)  # type: ignore[operator]


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) not in _UPRIGHT
    except Exception:  # what a camera wrote may be anything, and the picture whole
        return False
