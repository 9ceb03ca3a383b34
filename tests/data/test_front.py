"""The front of the data package: names, cards, states, and loading by name."""

import gzip
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_dataset

from dgm_bench import data
from dgm_bench.context import RunContext
from dgm_bench.errors import DataError, UsageError
from dgm_bench.events import Reporter
from dgm_bench.session import DataSource
from dgm_bench.spec import DataSpec

EMBEDDED = [name for name in data.names() if data.card(name).embedded]


def test_the_front_imports_no_torch():
    code = "import sys, dgm_bench.data as d; d.state('mnist', d.default_root()); "
    code += "heavy = {'torch', 'numpy', 'pandas', 'requests'} & set(sys.modules); "
    code += "sys.exit(', '.join(heavy) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_all_sets_of_the_tables_are_there():
    wanted = {"power", "gas", "hepmass", "miniboone", "bsds300", "mnist", "cifar10", "digits"}
    wanted |= {"bsds300-patches", "8gaussians", "rings", "oracle-6", "oracle-63"}
    assert wanted <= set(data.names())
    assert len(set(data.names())) == len(data.names())


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean 'miniboone'\?"):
        data.card("minibone")


def test_the_root_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DGM_BENCH_DATA", str(tmp_path))
    assert data.default_root() == tmp_path
    monkeypatch.delenv("DGM_BENCH_DATA")
    assert "dgm-bench" in str(data.default_root())


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_set_is_as_its_card_says(name, tmp_path):
    card, loaded = data.card(name), data.load(name, tmp_path, offline=True)
    assert loaded.sizes == dict(card.sizes)
    assert (loaded.name, loaded.version, loaded.dim, loaded.unit) == (
        card.name,
        card.version,
        card.dim,
        card.unit,
    )
    assert loaded.verified
    bytes_of = ("-labelled", "-classes", "-captioned", "-levels")
    wanted = torch.uint8 if name.endswith(bytes_of) else torch.float32
    assert all(split.dtype == wanted for split in loaded.splits.values())
    assert all(bool(split.isfinite().all()) for split in loaded.splits.values())
    assert data.state(name, tmp_path).status == "embedded"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "wrong", "match"),
    [
        (
            "digits",
            {"event_shape": (1, 4, 16)},
            r"\(1, 8, 8\), and its card says \(1, 4, 16\)",
        ),
        ("moons", {"event_shape": (3,)}, r"shape \(2,\), and its card says \(3,\)"),
        ("digits-labelled", {"classes": 9}, "classes 10, and its card says 9"),
        ("digits-labelled", {"classes": None}, "classes 10, and its card says None"),
    ],
)
def test_a_set_that_is_not_as_its_card_says_is_refused(name, wrong, match, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CARDS", (replace(data.card(name), **wrong),))
    with pytest.raises(DataError, match=match):
        data.load(name, tmp_path)


def test_loading_twice_gives_the_same_arrays(tmp_path):
    for name in ("digits", "pinwheel", "oracle-6"):
        first, second = (data.load(name, tmp_path).fingerprints() for _ in range(2))
        assert first == second
        assert len(set(first.values())) == 3


def test_state_tells_missing_incomplete_and_here(tmp_path):
    assert data.state("power", tmp_path).status == "missing"
    assert data.state("power", tmp_path).remedy == "dgm-bench data fetch power"
    write(tmp_path / "hepmass/1000_train.csv")
    partial = data.state("hepmass", tmp_path)
    assert partial.status == "incomplete"
    assert "1000_test.csv" in partial.detail
    write(tmp_path / "hepmass/1000_test.csv")
    assert data.state("hepmass", tmp_path).status == "here"


def test_a_data_folder_below_the_root_is_accepted(tmp_path):
    write(tmp_path / "data/power/data.npy")
    assert data.state("power", tmp_path).status == "here"


def test_a_short_file_is_incomplete(tmp_path):
    for file in data.card("mnist").files:
        write(tmp_path / "mnist" / file.path)
    short = data.state("mnist", tmp_path)
    assert short.status == "incomplete"
    assert "3 bytes, expected 9,912,422" in short.detail


def test_offline_and_missing_says_which_file_and_how_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        data.load("gas", tmp_path, offline=True)
    message = str(caught.value)
    for part in ("gas", "ethylene_CO.pickle", "dgm-bench data fetch gas", "zenodo.org", "offline"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"convetion": "maf"}, "did you mean 'convention'"),
        ({"convention": "mafia"}, "use maf, ffjord"),
    ],
)
def test_wrong_options_are_answered(args, match, tmp_path):
    with pytest.raises(UsageError, match=match):
        data.load("mnist", tmp_path, args=args)


def test_verify_tells_every_file(tmp_path):
    assert [check.outcome for check in data.verify("mnist", tmp_path)] == ["missing", "missing"]
    first, second = (tmp_path / "mnist" / file.path for file in data.card("mnist").files)
    write(first)
    write(second, bytes(1_648_877))
    checks = data.verify("mnist", tmp_path)
    assert [check.outcome for check in checks] == ["wrong size", "wrong checksum"]
    assert "8d422c7b" in checks[1].detail
    write(tmp_path / "power/data.npy")
    assert [check.outcome for check in data.verify("power", tmp_path)] == ["no checksum"]


def test_a_file_of_another_checksum_is_refused_before_it_is_read(tmp_path):
    write(tmp_path / "omniglot/chardata.mat", b"<html>please log in</html>")
    with pytest.raises(DataError, match=r"chardata\.mat: is not the published file") as refusal:
        data.load("omniglot", tmp_path, offline=True)
    assert "expected 016a3536" in str(refusal.value)
    assert "delete it and run dgm-bench data fetch omniglot" in str(refusal.value)


class Told(Reporter):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def test_files_that_people_repack_are_read_and_told(tmp_path, monkeypatch):
    known = data.card("cifar10-labelled")
    card = replace(known, sizes={"train": 5, "val": 5, "test": 2})
    monkeypatch.setattr(data, "CARDS", (card,))
    for file in card.files:
        batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
        write(tmp_path / file.path, pickle.dumps(batch, protocol=4))
    context = RunContext(tmp_path, tmp_path, offline=True, reporter=Told())
    loaded = DataSource(context).load(DataSpec(name=card.name), 0)
    assert not loaded.verified
    assert context.reporter.texts == [
        "cifar10-labelled is not verified as the published files; "
        "dgm-bench data verify cifar10-labelled compares them"
    ]


@pytest.mark.parametrize("name", data.names())
def test_only_cifar10_may_be_repacked(name):
    for file in data.card(name).files:
        assert file.repacked == name.startswith("cifar10")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_prepared_examples_that_are_not_finite_are_named(value):
    x = torch.ones(9, 2, 3)
    x[7, 1, 2] = value
    loaded = make_dataset(x, train=4, val=2)
    with pytest.raises(DataError, match="test row 2, column 2, 3, 1 numbers in all"):
        data._require_numbers(data.card("power"), loaded)
    data._require_numbers(data.card("power"), make_dataset(x[:6], train=4, val=2))


def test_a_truncated_image_file_says_so(tmp_path):
    from dgm_bench.data.images import read_idx

    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(5000))[:-20])
    with pytest.raises(DataError, match="truncated or corrupt"):
        read_idx(path)


def write(path: Path, content: bytes = b"abc") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
