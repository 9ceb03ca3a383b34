"""ImageNet and FFHQ from folders of the user's own: small folders of the same layout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from factories import StopAfter
from PIL import Image

from dgm_bench import data
from dgm_bench.cli import cli
from dgm_bench.control import Interrupted
from dgm_bench.data import decoded as cache
from dgm_bench.data import image_folder
from dgm_bench.data.dataset import fingerprint
from dgm_bench.errors import DataError, DataUnavailable
from dgm_bench.sealed import read_sealed

WNIDS = ("n01440764", "n01443537")


def colour(number, size):
    """A plain image of a colour of its own."""
    return Image.new("RGB", size, (number % 256, 255 - number % 256, 128))


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="JPEG" if path.suffix == ".JPEG" else "PNG")


@pytest.fixture
def imagenet(tmp_path):
    """Two classes of eleven train and two test images, 300 wide and 260 high."""
    for label, wnid in enumerate(WNIDS):
        for split, count in (("train", 11), ("val", 2)):
            for i in range(count):
                number = 100 * label + 5 * i + (60 if split == "val" else 0)
                save(colour(number, (300, 260)), tmp_path / f"imagenet/{split}/{wnid}/{i}.JPEG")
    return tmp_path


@pytest.fixture
def ffhq(tmp_path, monkeypatch):
    """28 images of 16x16, as the test's FFHQ has them."""
    small = replace(data.card("ffhq-1024"), event_shape=(3, 16, 16))
    monkeypatch.setattr(data, "CARDS", (small,))
    for i in range(28):
        save(colour(i, (16, 16)), tmp_path / f"ffhq-1024/{i // 10:02}000/{i:05}.png")
    return tmp_path


@pytest.fixture
def decodings(monkeypatch):
    """Counts how many images are decoded."""
    seen, decode = [], cache._decode
    monkeypatch.setattr(
        cache, "_decode", lambda source, file: seen.append(file) or decode(source, file)
    )
    return seen


def places(root, name):
    """What lies in the cache but for its lock."""
    return sorted(p.name for p in (root / "decoded" / name).glob("*") if p.name != ".lock")


# ------------------------------------------------------------------------------- ImageNet


def test_imagenet_has_its_classes_and_splits(imagenet):
    loaded = data.load("imagenet-256", imagenet)
    assert loaded.sizes == {"train": 20, "val": 2, "test": 4}
    assert loaded.event_shape == loaded.image_shape == (3, 256, 256)
    assert loaded.classes == WNIDS
    assert loaded.labels["test"].tolist() == [0, 0, 1, 1]
    assert all(x.dtype == torch.uint8 for x in loaded.splits.values())
    assert all(y.dtype == torch.int64 for y in loaded.labels.values())
    assert not loaded.verified
    assert "not the published numbers of images: 20 train, 2 val, 4 test" in loaded.note
    assert data.load("imagenet-256", imagenet).labels["val"].equal(loaded.labels["val"])


def test_labels_stay_with_their_images(imagenet):
    loaded = data.load("imagenet-256", imagenet)
    red = torch.cat([x[:, 0, 128, 128] for x in loaded.splits.values()]).double()
    labels = torch.cat(list(loaded.labels.values()))
    assert torch.equal((red > 90).long(), labels)  # the second class starts at red 100
    train = (
        loaded.splits["train"][:, 0, 128, 128].tolist()
        + loaded.splits["val"][:, 0, 128, 128].tolist()
    )
    written = [100 * label + 5 * i for label in (0, 1) for i in range(11)]
    assert np.allclose(sorted(train), written, atol=2)  # JPEG


def test_the_middle_square_is_resized_bicubically(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(300, 700, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found, done = image_folder.square(image, tmp_path, side=256)
    middle = image.crop((200, 0, 500, 300)).resize((256, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(found), np.asarray(middle))
    assert done == ()
    exact, _ = image_folder.square(image.crop((0, 0, 256, 256)), tmp_path, side=256)
    assert np.array_equal(np.asarray(exact), pixels[:256, :256])


def test_single_grey_cmyk_and_small_images_are_taken_and_counted(imagenet):
    folder = imagenet / "imagenet/train" / WNIDS[0]
    save(colour(3, (300, 260)).convert("L"), folder / "0.JPEG")
    save(colour(3, (300, 260)).convert("CMYK"), folder / "1.JPEG")
    save(colour(3, (300, 90)), folder / "2.JPEG")
    assert "1 grey, 1 CMYK, 1 enlarged" in data.load("imagenet-256", imagenet).note


def test_state_looks_at_folders_only(imagenet, monkeypatch):
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("walks through the folder"))
    state = data.state("imagenet-256", imagenet)
    assert (state.status, state.detail) == ("here", str(imagenet / "imagenet"))


def test_verify_says_how_many_images_there_are(imagenet):
    train, val = data.verify("imagenet-256", imagenet)
    assert (train.outcome, val.outcome) == ("no checksum", "no checksum")
    assert "22 images of 1,281,167 published" in train.detail
    assert [check.outcome for check in data.verify("ffhq-1024", imagenet)] == ["missing"]


# ----------------------------------------------------------------------------------- FFHQ


def test_ffhq_is_split_in_order(ffhq):
    loaded = data.load("ffhq-1024", ffhq)
    assert loaded.sizes == {"train": 22, "val": 2, "test": 4}
    red = torch.cat([x[:, 0, 0, 0] for x in loaded.splits.values()])
    assert red.tolist() == list(range(28))
    assert (loaded.labels, loaded.classes) == ({}, ())


def test_ffhq_prefers_the_published_folder_over_thumbnails(ffhq):
    (ffhq / "ffhq-1024").rename(ffhq / "images1024x1024")
    (ffhq / "ffhq").mkdir()
    (ffhq / "images1024x1024").rename(ffhq / "ffhq/images1024x1024")
    save(colour(0, (4, 4)), ffhq / "ffhq/thumbnails128x128/00000.png")
    assert sum(data.load("ffhq-1024", ffhq).sizes.values()) == 28


def test_the_sizes_on_the_cards_are_those_of_the_rules():
    ffhq, imagenet = data.card("ffhq-1024"), data.card("imagenet-256")
    n = ffhq.files[0].count
    assert ffhq.sizes == {"train": n - n // 7 - n // 14, "val": n // 14, "test": n // 7}
    assert imagenet.sizes["train"] + imagenet.sizes["val"] == imagenet.files[0].count
    assert imagenet.sizes["test"] == imagenet.files[1].count


# ------------------------------------------------------------------------------- the cache


def test_a_folder_is_decoded_once_and_again_when_it_changed(ffhq, decodings):
    first = data.load("ffhq-1024", ffhq)
    again = data.load("ffhq-1024", ffhq)
    assert len(decodings) == 28
    assert torch.equal(again.splits["train"], first.splits["train"])
    (key,) = places(ffhq, "ffhq-1024")
    save(colour(77, (16, 16)), ffhq / "ffhq-1024/00000/00000.png")
    changed = data.load("ffhq-1024", ffhq)
    assert len(decodings) == 56
    assert changed.splits["train"][0, 0, 0, 0] == 77
    assert first.splits["train"][0, 0, 0, 0] == 0  # still mapped, though its file is gone
    assert len(places(ffhq, "ffhq-1024")) == 1
    assert places(ffhq, "ffhq-1024") != [key]
    assert changed.fingerprints()["train"] != first.fingerprints()["train"]
    assert changed.fingerprints()["test"] == first.fingerprints()["test"]


def test_fingerprints_are_those_of_the_arrays_but_not_computed_again(ffhq, monkeypatch):
    loaded = data.load("ffhq-1024", ffhq)
    computed = {name: fingerprint(split) for name, split in loaded.splits.items()}
    monkeypatch.setattr("dgm_bench.data.dataset.fingerprint", lambda _: pytest.fail("reads all"))
    assert loaded.fingerprints() == computed == data.load("ffhq-1024", ffhq).fingerprints()


def test_splits_stay_on_disk_and_a_batch_is_selected_from_them(ffhq):
    loaded = data.load("ffhq-1024", ffhq)
    assert not loaded.resident
    moved = loaded.to("meta", torch.float32)
    assert moved.splits["train"].device.type == "cpu"
    batch = moved.splits["train"].index_select(0, torch.tensor([3, 1]))
    x = moved.augment(batch, torch.Generator())
    assert x.dtype == torch.float32
    assert torch.allclose(x[:, 0, 0, 0].double() * 255, torch.tensor([3.0, 1.0]))


def test_what_a_killed_process_leaves_is_not_taken_for_whole(ffhq, decodings):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from dgm_bench import data; from dgm_bench.data import decoded\n"
        "small = replace(data.card('ffhq-1024'), event_shape=(3, 16, 16)); data.CARDS = (small,)\n"
        "decoded._AT_A_TIME = 1; old = decoded._decode\n"
        "def slow(s, f):\n  time.sleep(300 if '00014' in f.path else 0); return old(s, f)\n"
        "decoded._decode = slow; data.load('ffhq-1024', Path(sys.argv[1]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(ffhq)])
    until = time.monotonic() + 300
    while not list((ffhq / "decoded").glob("*/*.part/*.u8")) and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [name for name in places(ffhq, "ffhq-1024") if name.endswith(".part")]
    assert sum(data.load("ffhq-1024", ffhq).sizes.values()) == 28
    assert 14 <= len(decodings) <= 28
    assert not [name for name in places(ffhq, "ffhq-1024") if name.endswith(".part")]


def everything(loaded):
    splits = {name: split.clone() for name, split in loaded.splits.items()}
    return loaded.files, loaded.fingerprints(), {n: s.numpy().tobytes() for n, s in splits.items()}


@pytest.mark.parametrize("at_a_time", [1, 5, 256])
def test_stopped_decoding_goes_on_and_decodes_nothing_twice(
    ffhq, decodings, monkeypatch, at_a_time
):
    whole = everything(data.load("ffhq-1024", ffhq))
    shutil.rmtree(ffhq / "decoded")
    decodings.clear()
    monkeypatch.setattr(cache, "_AT_A_TIME", at_a_time)
    monkeypatch.setattr(cache, "ThreadPoolExecutor", InTurn)
    for times in (3, 12, 8):
        with StopAfter(times + 1).active(), pytest.raises(Interrupted):
            data.load("ffhq-1024", ffhq)
    assert 10 < len(decodings) < 28
    with StopAfter(1001).active():
        assert everything(data.load("ffhq-1024", ffhq)) == whole
    assert len(decodings) == 28


class InTurn(ThreadPoolExecutor):
    """A pool that works only while it is waited for."""

    def map(self, function, files):
        return map(function, files)


@pytest.mark.parametrize("name", ["images.u8", "images.list", "index.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "add", "remove"])
def test_what_is_damaged_is_decoded_again_from_there_on(
    ffhq, decodings, monkeypatch, caplog, name, damage
):
    monkeypatch.setattr(cache, "_AT_A_TIME", 7)
    whole = everything(data.load("ffhq-1024", ffhq))
    decodings.clear()
    (file,) = (ffhq / "decoded/ffhq-1024").glob(f"*/{name}")
    content = bytearray(file.read_bytes())
    place = int(len(content) * 0.6)
    content[place] ^= 4
    damaged = {"flip": content, "cut": content[:place], "add": [*file.read_bytes(), 0]}
    file.unlink()
    if damage != "remove":
        file.write_bytes(bytes(damaged[damage]))
    assert everything(data.load("ffhq-1024", ffhq)) == whole
    at_most = 14 if damage in ("flip", "cut") else 28
    assert len(decodings) <= (0 if name == "index.json" else at_most)
    assert len(caplog.records) <= 1
    assert len(places(ffhq, "ffhq-1024")) == 1


def test_runs_that_start_together_decode_once(ffhq, decodings):
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: data.load("ffhq-1024", ffhq), range(3)))
    assert len(decodings) == 28
    assert all(torch.equal(x.splits["train"], loaded[0].splits["train"]) for x in loaded)


def test_a_short_array_is_written_again(ffhq, decodings):
    data.load("ffhq-1024", ffhq)
    (array,) = (ffhq / "decoded/ffhq-1024").glob("*/images.u8")
    os.truncate(array, 100)
    assert data.load("ffhq-1024", ffhq).splits["test"][3, 0, 0, 0] == 27
    assert len(decodings) == 56


def test_a_full_disk_is_refused_before_anything_is_decoded(ffhq, monkeypatch, decodings):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Free())
    with pytest.raises(DataError, match=r"needs 0\.00 GB, the disk has 0\.00 GB free"):
        data.load("ffhq-1024", ffhq)
    assert decodings == []
    assert places(ffhq, "ffhq-1024") == []


class Free:
    free = 10


def test_names_of_files_need_not_be_utf8(ffhq, decodings):
    before = data.load("ffhq-1024", ffhq).files
    image = ffhq / "ffhq-1024/00000/00009.png"
    image.rename(image.with_name(os.fsdecode(b"0000\xe9.png")))
    assert data.load("ffhq-1024", ffhq).files != before
    assert data.load("ffhq-1024", ffhq).files != before
    assert len(decodings) == 2 * 28


def test_the_index_names_digests_of_the_files(ffhq):
    loaded = data.load("ffhq-1024", ffhq)
    (index,) = (ffhq / "decoded/ffhq-1024").glob("*/index.json")
    assert json.loads(read_sealed(index, ""))["files"] == loaded.files
    assert set(loaded.files) == {"train", "val", "test"}


# --------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["imagenet-256", "ffhq-1024"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_missing_folder_says_what_is_expected_where(name, offline, tmp_path):
    with pytest.raises(DataUnavailable) as caught:
        data.load(name, tmp_path, offline=offline)
    for part in (name, "never downloaded", f"{tmp_path}/{data.card(name).layout}", "https://"):
        assert part in str(caught.value)


def test_fetch_says_the_same_in_one_line_with_exit_code_2(tmp_path):
    result = CliRunner().invoke(
        cli, ["data", "fetch", "imagenet-256", "--data-root", str(tmp_path)]
    )
    assert result.exit_code == 2
    assert "never downloaded" in result.output.replace("\n", " ")


def test_half_a_layout_is_broken_rather_than_unavailable(tmp_path):
    (tmp_path / "imagenet-256/train").mkdir(parents=True)
    assert data.state("imagenet-256", tmp_path).status == "incomplete"
    with pytest.raises(DataError, match="val: no such folder") as caught:
        data.load("imagenet-256", tmp_path)
    assert not isinstance(caught.value, DataUnavailable)


def break_imagenet(folder, how):
    train, val = folder / "train", folder / "val"
    first = train / WNIDS[0] / "0.JPEG"
    if how == "empty":
        for path in train.rglob("*.JPEG"):
            path.unlink()
    elif how == "flat":
        for path in list(val.rglob("*.JPEG"))[:1]:
            path.rename(val / path.name)
    elif how == "class":
        save(colour(1, (300, 260)), val / "n99999999/0.JPEG")
    elif how == "truncated":
        noise = np.random.default_rng(0).integers(256, size=(260, 300, 3), dtype=np.uint8)
        save(Image.fromarray(noise), first)
        first.write_bytes(first.read_bytes()[:9000])
    elif how == "text":
        first.write_text("no image")
    elif how == "deep":
        save(Image.new("I;16", (300, 260)), first.with_name("0.png"))
    else:
        for path in train.rglob("*.JPEG"):
            save(colour(1, (300, 260)).convert("L") if how == "grey" else colour(1, (64, 64)), path)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("empty", r"imagenet/train: holds no images \(.jpeg, .jpg, .png\)"),
        ("flat", r"val/\d.JPEG: lies in no class folder; put it into val/<wnid>/"),
        ("class", "val/n99999999: is a class that train does not have"),
        ("truncated", r"n01440764/0.JPEG: is not a readable image \(.*truncated"),
        ("text", r"n01440764/0.JPEG: is not a readable image \(neither JPEG nor PNG"),
        ("deep", "n01440764/0.png: has 16 bits a channel"),
        ("grey", "train: all 22 images looked at are grey, .*n01440764/0.JPEG among them"),
        ("small", "train: all 22 images looked at, .* are smaller than 256x256"),
    ],
)
def test_a_bad_imagenet_folder_is_refused_in_one_line(how, match, imagenet):
    break_imagenet(imagenet / "imagenet", how)
    with pytest.raises(DataError, match=match) as caught:
        data.load("imagenet-256", imagenet)
    assert "\n" not in str(caught.value)
    assert places(imagenet, "imagenet-256") == []


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (colour(1, (16, 16)).convert("L"), r"00020.png: is grey \(mode L\), expected colour"),
        (colour(1, (8, 8)), "00020.png: is 8x8, expected 16x16"),
        (Image.new("I;16", (16, 16)), "00020.png: has 16 bits a channel"),
    ],
)
def test_one_bad_image_of_ffhq_is_refused_and_nothing_is_left(image, match, ffhq):
    save(image, ffhq / "ffhq-1024/02000/00020.png")
    with pytest.raises(DataError, match=match):
        data.load("ffhq-1024", ffhq)
    assert places(ffhq, "ffhq-1024") == []


def test_too_few_images_for_the_splits_are_refused(ffhq):
    for path in sorted((ffhq / "ffhq-1024").rglob("*.png"))[5:]:
        path.unlink()
    with pytest.raises(DataError, match="holds 5 images, and the splits need 14"):
        data.load("ffhq-1024", ffhq)


def test_a_cache_that_cannot_be_written_says_so(ffhq):
    Path(ffhq / "decoded").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot be written .* DGM_BENCH_DATA"):
        data.load("ffhq-1024", ffhq)
