"""Weights of published networks: where they are looked for, and what is said when they are not."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest

from dgm_bench.data import download, weights
from dgm_bench.data.weights import WEIGHTS, fetch_weights, find_weights, weights_card
from dgm_bench.errors import DataError, DataUnavailable, UsageError

CONTENT = b"not a network, but of a known checksum"


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """VGG-16 as if a small file were the published one."""
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    card = weights_card("vgg16")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    card = replace(card, file=replace(card.file, size=len(CONTENT), sha256=sha256))
    monkeypatch.setattr(weights, "WEIGHTS", (WEIGHTS[0], card))
    return card


def _put(folder, card, content=CONTENT):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / card.file.path
    path.write_bytes(content)
    return path


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("card", WEIGHTS, ids=lambda card: card.name)
def test_published_names_carry_the_first_digits_of_the_checksum(card):
    assert len(card.file.sha256) == 64
    assert card.file.path.endswith(f"-{card.file.sha256[:8]}.pth")
    assert card.url.endswith(card.file.path)


def test_found_below_the_data_root(tmp_path, card):
    path = _put(tmp_path / "weights", card)
    assert find_weights("vgg16", tmp_path) == path


def test_the_named_folder_comes_first(tmp_path, card, monkeypatch):
    _put(tmp_path / "weights", card)
    named = _put(tmp_path / "elsewhere", card)
    monkeypatch.setenv("DGM_BENCH_WEIGHTS", str(tmp_path / "elsewhere"))
    assert find_weights("vgg16", tmp_path) == named
    named.unlink()
    assert find_weights("vgg16", tmp_path) == tmp_path / "weights" / card.file.path


def test_missing_says_which_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("DGM_BENCH_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(DataUnavailable) as error:
        find_weights("inception-v3-compat", tmp_path)
    text = _one_line(error)
    assert text.startswith("weights-inception-2015-12-05-6726825d.pth: weights not found")
    assert str(tmp_path / "elsewhere") in text
    assert str(tmp_path / "weights") in text
    assert "dgm-bench data fetch inception-v3-compat" in text


def test_wrong_checksum_names_both(tmp_path, card):
    other = CONTENT.replace(b"known", b"other")
    path = _put(tmp_path / "weights", card, other)
    with pytest.raises(DataError) as error:
        find_weights("vgg16", tmp_path)
    text = _one_line(error)
    assert not isinstance(error.value, DataUnavailable)
    assert text.startswith(f"{path}: wrong checksum")
    assert hashlib.sha256(other).hexdigest() in text
    assert card.file.sha256 in text


def test_truncated_file_is_named(tmp_path, card):
    _put(tmp_path / "weights", card, CONTENT[:-1])
    with pytest.raises(DataError, match=f"wrong size: 37 bytes, expected {len(CONTENT)}"):
        find_weights("vgg16", tmp_path)


def test_unknown_name():
    with pytest.raises(UsageError, match="did you mean 'vgg16'"):
        weights_card("vgg-16")


def test_fetch_downloads_only_what_is_missing(tmp_path, card, monkeypatch):
    asked = []

    def deliver(item, root, *, progress):
        asked.append(item)
        _put((root / item.path).parent, card)

    monkeypatch.setattr(download, "download", deliver)
    path = fetch_weights("vgg16", tmp_path, progress=False)
    assert path == fetch_weights("vgg16", tmp_path, progress=False)
    assert path.read_bytes() == CONTENT
    (item,) = asked
    assert (item.urls, item.sha256) == ((card.url,), card.file.sha256)


def test_cards_and_needs_import_no_torch():
    code = "import sys, dgm_bench.data.weights, dgm_bench.metrics.images.requirements; "
    code += "print({'torch', 'torch_fidelity', 'numpy', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
