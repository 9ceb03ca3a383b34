"""Every kind of PNG and JPEG is read as what it shows, or refused, or told of."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from dgm_bench import data
from dgm_bench.data.image_files import oddities, opened
from dgm_bench.data.image_folder import ODDITIES, _remarks, as_published, square
from dgm_bench.errors import DataError

SIDE = 16
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(256, size=(256, 3), dtype=np.uint8)


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(colour, depth, samples, *chunks, size=None):
    """A PNG file of samples of shape ``(height, width, channels)``, by the format's text."""
    height, width = size or samples.shape[:2]
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*part) for part in chunks)]
    parts += [chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def samples(colour, depth):
    shape = (SIDE, SIDE, CHANNELS[colour])
    return RNG.integers(2**depth, size=shape)


def read(content, tmp_path, prepare=square):
    path = tmp_path / "some.png"
    path.write_bytes(content)
    with opened(path) as image:
        found, done = prepare(image, path, side=SIDE)
        return np.asarray(found), done


def shown(colour, depth, drawn):
    """The colours of a PNG image in 8 bits, by the format's text."""
    if colour == PALETTE:
        return COLOURS[drawn[..., 0]]
    levels = drawn * 255 // (2**depth - 1)
    return levels[..., [0, 0, 0] if colour in (GREY, GREY_ALPHA) else [0, 1, 2]]


KINDS = [(GREY, depth) for depth in (1, 2, 4, 8)] + [(PALETTE, depth) for depth in (1, 2, 4, 8)]
KINDS += [(colour, 8) for colour in (RGB, GREY_ALPHA, RGBA)]


@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_every_png_of_up_to_8_bits_is_read_as_it_is_shown(colour, depth, tmp_path):
    drawn = samples(colour, depth)
    palette = [(b"PLTE", COLOURS[: 2**depth].tobytes())] if colour == PALETTE else []
    found, done = read(png(colour, depth, drawn, *palette), tmp_path)
    assert np.array_equal(found, shown(colour, depth, drawn))
    assert ("palette" in done) == (colour == PALETTE)
    assert ("transparent" in done) == (colour in (GREY_ALPHA, RGBA))


@pytest.mark.parametrize("colour", [GREY, RGB, GREY_ALPHA, RGBA])
@pytest.mark.parametrize("prepare", [square, as_published])
def test_16_bits_a_channel_are_refused(colour, prepare, tmp_path):
    """Pillow drops the lower byte: of a camera's 12 bits in 16, that leaves 16 levels."""
    drawn = samples(colour, 12)
    with pytest.raises(
        DataError, match=r"some\.png: has 16 bits a channel, expected 8; convert it"
    ):
        read(png(colour, 16, drawn), tmp_path, prepare)


def test_a_colour_that_is_declared_transparent_is_told(tmp_path):
    drawn = samples(RGB, 8)
    drawn[0, 0] = 7
    keyed = png(RGB, 8, drawn, (b"tRNS", struct.pack(">3H", 7, 7, 7)))
    assert read(keyed, tmp_path)[1] == ("transparent",)
    drawn[0, 0] = 255
    opaque = png(RGBA, 8, np.dstack([drawn, np.full((SIDE, SIDE), 255)]))
    assert read(opaque, tmp_path)[1] == ()


def saved(image, **settings):
    stream = io.BytesIO()
    image.save(stream, **settings)
    return stream.getvalue()


def test_images_to_be_shown_turned_and_those_of_several_frames_are_told(tmp_path):
    plain = Image.new("RGB", (SIDE, SIDE), (200, 10, 30))
    exif = Image.Exif()
    for orientation, done in ((1, ()), (6, ("turned",))):
        exif[0x0112] = orientation
        assert read(saved(plain, format="JPEG", exif=exif), tmp_path)[1] == done
    other = Image.new("RGB", (SIDE, SIDE), (0, 99, 0))
    frames = saved(plain, format="PNG", save_all=True, append_images=[other])
    found, done = read(frames, tmp_path)
    assert done == ("frames",)
    assert (found == [200, 10, 30]).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"])
def test_what_a_camera_wrote_wrongly_does_not_hide_the_picture(exif, tmp_path):
    plain = Image.new("RGB", (SIDE, SIDE), (200, 10, 30))
    assert read(saved(plain, format="JPEG", exif=exif), tmp_path)[1] == ()


def test_what_is_odd_is_said_of_published_images_too(tmp_path):
    drawn = samples(RGBA, 8)
    _, done = read(png(RGBA, 8, drawn), tmp_path, as_published)
    assert done == ("transparent",)


def test_remarks_name_every_oddity():
    counts = {name: number for number, name in enumerate(ODDITIES, start=2)}
    card = data.card("ffhq-1024")
    (remark,) = _remarks(card, dict(card.sizes), counts)
    assert "2 of a palette" in remark
    assert "3 transparent and shown opaque" in remark
    assert "4 to be shown turned and left as stored" in remark
    assert "5 of several frames" in remark


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_larger_than_any_is_refused_before_memory_is_taken(tmp_path):
    few = np.zeros((1, 1, 3))
    tracemalloc.start()
    for side in (10_000, 50_000):
        with pytest.raises(DataError, match=r"too large|could be decompression bomb"):
            read(png(RGB, 8, few, size=(side, side)), tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "BMP"])
def test_other_formats_are_refused_whatever_they_are_called(kind, tmp_path):
    """Pillow has EPS drawn by Ghostscript, which runs programs."""
    content = saved(Image.new("RGB", (SIDE, SIDE)), format=kind)
    with pytest.raises(DataError, match="neither JPEG nor PNG"):
        read(content, tmp_path)


def test_a_plain_image_has_no_oddities(tmp_path):
    path = tmp_path / "plain.png"
    path.write_bytes(png(RGB, 8, samples(RGB, 8)))
    with opened(path) as image:
        assert oddities(image) == ()
