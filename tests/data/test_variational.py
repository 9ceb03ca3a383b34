"""Images for variational autoencoders: the real files where they are, else small ones."""

import gzip
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from dgm_bench import data
from dgm_bench.context import RunContext
from dgm_bench.data import binary_images, freyfaces
from dgm_bench.data.cards import DataFile
from dgm_bench.data.files import check_files, git_blob
from dgm_bench.errors import DataError
from dgm_bench.session import DataSource
from dgm_bench.spec import DataSpec

RNG = np.random.default_rng(0)
DRAWN = ("mnist-dynamic", "omniglot-dynamic")
NAMES = (
    *("mnist-static", "omniglot", "omniglot-resized28", "freyfaces", "caltech", "digits-binary"),
    *DRAWN,
)
SMALL = {"train": 5, "val": 3, "test": 4}


def small_card(name):
    return replace(data.card(name), sizes=SMALL)


def is_binary(x):
    return bool(((x == 0) | (x == 1)).all())


def by_columns(flat):
    """Images from column-by-column rows, as ``load_data.py`` of the released codes has them."""
    return flat.reshape(-1, 28, 28).reshape((-1, 784), order="F").reshape(-1, 1, 28, 28)


# ------------------------------------------------------------------------- the real files


@pytest.fixture
def real(data_root):
    """Load a set of the data root, or skip where it is not there."""

    def load(name, seed=0):
        if not data.state(name, data_root).loadable:
            pytest.skip(f"set DGM_BENCH_DATA to a folder with {name}")
        return data.load(name, data_root, seed=seed, offline=True)

    return load


@pytest.mark.parametrize("name", NAMES)
def test_a_real_set_is_as_its_card_says(name, real):
    card, loaded = data.card(name), real(name)
    assert loaded.sizes == dict(card.sizes)
    assert loaded.event_shape == loaded.image_shape == card.event_shape
    assert loaded.unit == card.unit
    assert loaded.verified
    assert loaded.note or name in ("mnist-static", "caltech")
    for split, x in loaded.splits.items():
        assert x.dtype == torch.float32
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        grey = name in ("freyfaces", *DRAWN) or (name, split) == ("omniglot", "train")
        assert is_binary(x) != grey


def test_static_mnist_is_its_text(real, data_root):
    loaded = real("mnist-static")
    home = Path(next(iter(data.verify("mnist-static", data_root))).path).parent
    for name, x in zip(("train", "valid", "test"), loaded.splits.values(), strict=True):
        lines = (home / f"binarized_mnist_{name}.amat").read_text().splitlines()
        for row in (0, len(lines) // 2, -1):
            assert x[row].flatten().tolist() == [float(word) for word in lines[row].split()]


def test_frey_frames_are_split_as_by_the_released_code(real, data_root):
    home = next(iter(data.verify("freyfaces", data_root))).path
    with home.open("rb") as stream:
        frames = pickle.load(stream, encoding="latin1")[0]
    for run, split_seed in enumerate((123, 321, 231)):
        shuffled = frames / 255.0
        np.random.RandomState(split_seed).shuffle(shuffled)
        found = torch.cat(list(real("freyfaces", run).splits.values()))
        expected = torch.from_numpy(shuffled.reshape(-1, 1, 28, 20)).float()
        assert torch.equal(found, expected)


def test_silhouettes_are_inverted_and_upright_as_by_the_released_code(real, data_root):
    loaded = real("caltech")
    stored = scipy.io.loadmat(data.verify("caltech", data_root)[0].path)
    for split, x in loaded.splits.items():
        expected = 1.0 - by_columns(stored[f"{split}_data"].astype("float32"))
        assert np.array_equal(x.numpy(), expected)
    border = torch.cat([x[:, 0, 0] for x in loaded.splits.values()])
    assert float(border.mean()) < 0.3  # figures are the ones, what surrounds them the zeros


# ------------------------------------------------------------------------------ Frey Faces


@pytest.fixture
def frey_home(tmp_path):
    """1,965 frames that carry their own number, and nothing else."""
    frames = np.zeros((1965, 560), np.uint8)
    frames[:, 0], frames[:, 1] = np.divmod(np.arange(1965), 256)
    (tmp_path / "freyfaces.pkl").write_bytes(pickle.dumps([frames], protocol=2))
    return tmp_path


def frame_numbers(x):
    levels = (x.double() * 255).round().long().flatten(1)
    return (256 * levels[:, 0] + levels[:, 1]).tolist()


def test_every_run_has_its_own_split_of_the_same_frames(frey_home):
    card = data.card("freyfaces")
    runs = [freyfaces.load(card, frey_home, seed) for seed in range(4)]
    tests = [set(frame_numbers(run.splits["test"])) for run in runs]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len(tests[one] & tests[other]) < 60  # of 200: by chance about 20
    assert runs[3].fingerprints() == runs[0].fingerprints()
    for run, seed in zip(runs, (123, 321, 231, 123), strict=True):
        everything = [number for x in run.splits.values() for number in frame_numbers(x)]
        assert sorted(everything) == list(range(1965))
        assert str(seed) in run.note
        assert not run.verified


def test_frey_counts_bits_of_a_discrete_likelihood(frey_home):
    loaded = freyfaces.load(data.card("freyfaces"), frey_home, 0)
    x = loaded.splits["test"][:3]
    uniform = torch.full((3,), -560 * np.log(256))
    assert loaded.to_unit(uniform, x).tolist() == pytest.approx([8.0] * 3)


@pytest.mark.parametrize("stored", [[], [np.zeros((1965, 560))], [np.zeros((7, 560), np.uint8)]])
def test_frames_of_another_layout_are_refused(stored, tmp_path):
    (tmp_path / "freyfaces.pkl").write_bytes(pickle.dumps(stored, protocol=2))
    with pytest.raises(DataError, match="1,965 frames of 560 bytes"):
        freyfaces.load(data.card("freyfaces"), tmp_path, 0)


def test_frames_that_ask_for_code_are_refused(tmp_path):
    (tmp_path / "freyfaces.pkl").write_bytes(pickle.dumps([Path("anything")], protocol=2))
    with pytest.raises(DataError, match="forbidden global pathlib") as refusal:
        freyfaces.load(data.card("freyfaces"), tmp_path, 0)
    assert "\n" not in str(refusal.value)


# -------------------------------------------------------------------------------- Omniglot


@pytest.fixture
def omniglot_home(tmp_path):
    """Eight training and four test images, with the pixels of one along the first axis."""
    home = tmp_path / "omniglot"
    home.mkdir()
    greys = {"data": RNG.random((784, 8)), "testdata": RNG.random((784, 4))}
    greys["data"][:300, :4] = 0  # some images are emptier: they need no fewer random numbers
    greys["data"][300:500, 4:] = 1
    scipy.io.savemat(home / "chardata.mat", greys)
    return home, greys


def test_omniglot_is_prepared_as_by_the_released_code(omniglot_home):
    home, greys = omniglot_home
    loaded = binary_images.load_omniglot(small_card("omniglot"), home, 7)
    train, test = (by_columns(greys[key].T.astype("float32")) for key in ("data", "testdata"))
    np.random.RandomState(7).shuffle(train)
    draw = np.random.RandomState(777)
    expected = train[:-3], draw.binomial(1, train[-3:]), draw.binomial(1, test)
    for found, wanted in zip(loaded.splits.values(), expected, strict=True):
        assert np.array_equal(found.numpy(), wanted)


def test_omniglots_test_images_do_not_depend_on_the_run(omniglot_home):
    runs = [
        binary_images.load_omniglot(small_card("omniglot"), omniglot_home[0], seed)
        for seed in range(4)
    ]
    prints = [run.fingerprints() for run in runs]
    assert len({one["test"] for one in prints}) == 1
    assert len({one["val"] for one in prints}) == 4
    assert len({one["train"] for one in prints}) == 4
    assert all(f"seed {seed}" in run.note for seed, run in enumerate(runs))


def test_omniglots_training_images_are_drawn_afresh(omniglot_home, generator):
    loaded = binary_images.load_omniglot(small_card("omniglot"), omniglot_home[0], 0)
    grey = loaded.splits["train"]
    draws = torch.stack([loaded.augment(grey, generator) for _ in range(400)])
    assert is_binary(draws)
    assert draws.dtype == grey.dtype
    assert not torch.equal(draws[0], draws[1])
    error = 5 * (grey * (1 - grey) / 400).sqrt() + 1e-9
    assert ((draws.mean(0) - grey).abs() <= error).all()
    again = torch.Generator().manual_seed(generator.initial_seed())
    assert torch.equal(loaded.augment(grey, again), draws[0])
    assert loaded.dequantise is None  # what is evaluated is drawn already


def small_home(name, folder):
    """A folder with eight training and four test images, and their grey values in [0, 1]."""
    shapes = {"data": (8, 28, 28), "testdata": (4, 28, 28)}
    levels = {key: RNG.integers(256, size=shape, dtype=np.uint8) for key, shape in shapes.items()}
    if name == "mnist-dynamic":
        for file, images in zip(data.card(name).files, levels.values(), strict=True):
            header = b"\x00\x00\x08\x03" + np.array(images.shape, ">u4").tobytes()
            (folder / file.path).write_bytes(gzip.compress(header + images.tobytes()))
    else:  # column by column, with the images beside each other
        stored = {key: x.transpose(2, 1, 0).reshape(784, -1) / 255 for key, x in levels.items()}
        scipy.io.savemat(folder / "chardata.mat", stored)
    return [x[:, None] / 255 for x in levels.values()]


@pytest.mark.parametrize("name", DRAWN)
def test_dynamic_images_are_all_there_and_drawn_in_tests_too(name, tmp_path, generator):
    expected = small_home(name, tmp_path)
    card = replace(data.card(name), sizes={"train": 8, "test": 4})
    load = getattr(binary_images, card.loader.split(":")[1])
    loaded = load(card, tmp_path)
    assert list(loaded.splits) == ["train", "test"]
    for found, grey in zip(loaded.splits.values(), expected, strict=True):
        assert np.allclose(found.numpy(), grey, rtol=0, atol=1e-6)
    grey = loaded.splits["test"]
    for draw in (loaded.augmented, loaded.dequantised):
        draws = torch.stack([draw(grey, generator) for _ in range(400)])
        assert is_binary(draws)
        error = 5 * (grey * (1 - grey) / 400).sqrt() + 1e-9
        assert ((draws.mean(0) - grey).abs() <= error).all()


def test_another_chardata_than_the_published_is_told(omniglot_home, tmp_path):
    loaded = binary_images.load_omniglot(small_card("omniglot"), omniglot_home[0], 0)
    assert not loaded.verified
    assert "files differ from the published ones" in loaded.note
    (tmp_path / "hello").write_bytes(b"hello\n")
    known = "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object of this line
    assert git_blob(tmp_path / "hello") == known


def test_chardata_is_compared_by_gits_name(omniglot_home):
    home, card = omniglot_home[0], small_card("omniglot")
    assert [check.outcome for check in check_files(card, home.parent)] == ["wrong checksum"]
    own = replace(card.files[0], git_blob=git_blob(home / "chardata.mat"))
    card = replace(card, files=(own,))
    assert [check.outcome for check in check_files(card, home.parent)] == ["ok"]
    loaded = binary_images.load_omniglot(card, home, 3)
    assert loaded.verified
    assert loaded.note == f"{card.note}; validation images chosen with seed 3"


def test_other_frames_than_the_published_are_told(frey_home):
    card = data.card("freyfaces")
    loaded = freyfaces.load(card, frey_home, 1)
    assert not loaded.verified
    assert loaded.note.startswith(f"{card.note}; files differ from the published ones")
    assert "seed 321" in loaded.note


@pytest.mark.parametrize(
    ("stored", "match"),
    [
        ({"data": np.zeros((784, 8))}, "holds no 'testdata'"),
        ({"data": np.zeros((8, 784)), "testdata": np.zeros((784, 4))}, "'data' does not hold"),
        ({"data": np.zeros((784, 8)), "testdata": np.zeros((784, 5))}, "5 test images, not"),
        ({"data": np.full((784, 8), 255), "testdata": np.zeros((784, 4))}, r"outside \[0, 1\]"),
        ({"data": "words", "testdata": "words"}, "'data' is no matrix of numbers"),
    ],
)
def test_a_chardata_of_another_layout_is_refused(stored, match, tmp_path):
    scipy.io.savemat(tmp_path / "chardata.mat", stored)
    with pytest.raises(DataError, match=match) as refusal:
        binary_images.load_omniglot(small_card("omniglot"), tmp_path, 0)
    assert "\n" not in str(refusal.value)


@pytest.fixture
def resized_home(tmp_path):
    """Three characters by each of 20 people, whose number each image shows in its first bits."""
    drawer = np.tile(np.arange(1, 21, dtype=np.uint8), 3)
    images = np.zeros((60, 98), np.uint8)
    images[:, 0] = drawer
    np.savez(tmp_path / "omniglot_28x28_maml.npz", images=images, drawer=drawer)
    return tmp_path


def test_resized_omniglot_is_split_by_who_drew(resized_home):
    card = replace(data.card("omniglot-resized28"), sizes={"train": 42, "val": 3, "test": 15})
    loaded = binary_images.load_resized_omniglot(card, resized_home)
    places = 2.0 ** torch.arange(7, -1, -1)
    drew = [set((x[:, 0, 0, :8].double() @ places).tolist()) for x in loaded.splits.values()]
    assert drew == [set(range(1, 15)), {15}, set(range(16, 21))]
    assert "not the chardata.mat" in loaded.note


@pytest.mark.parametrize("cut", [0, 100, 700])
def test_a_truncated_archive_says_so(cut, resized_home):
    path = resized_home / "omniglot_28x28_maml.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="truncated or corrupt") as refusal:
        binary_images.load_resized_omniglot(data.card("omniglot-resized28"), resized_home)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("stored", "match"),
    [
        ({"images": np.zeros((4, 98), np.uint8)}, "drawer"),
        ({"images": np.zeros((4, 97), np.uint8), "drawer": np.ones(4)}, "98 bytes"),
        ({"images": np.zeros((4, 98)), "drawer": np.ones(4)}, "98 bytes"),
        ({"images": np.zeros((4, 98), np.uint8), "drawer": np.ones(4)}, "4 train, 0 val"),
    ],
)
def test_an_archive_of_another_layout_is_refused(stored, match, tmp_path):
    np.savez(tmp_path / "omniglot_28x28_maml.npz", **stored)
    with pytest.raises(DataError, match=match):
        binary_images.load_resized_omniglot(data.card("omniglot-resized28"), tmp_path)


# --------------------------------------------------------------------------- static MNIST


def write_amat(path, bits):
    lines = (" ".join(str(bit) for bit in row) for row in bits)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def amat_home(tmp_path):
    bits = RNG.integers(2, size=(12, 784))
    parts = np.split(bits, (5, 8))
    for file, part in zip(data.card("mnist-static").files, parts, strict=True):
        write_amat(tmp_path / file.path, part)
    return tmp_path, parts


def test_static_mnist_reads_its_layout(amat_home):
    home, parts = amat_home
    loaded = binary_images.load_static_mnist(small_card("mnist-static"), home)
    for found, bits in zip(loaded.splits.values(), parts, strict=True):
        assert np.array_equal(found.flatten(1).numpy(), bits)
    assert not loaded.verified
    assert "data verify" in loaded.note


def test_too_few_images_are_refused(amat_home):
    with pytest.raises(DataError, match="5 train, 3 val, 4 test images, not 50,000 train"):
        binary_images.load_static_mnist(data.card("mnist-static"), amat_home[0])


@pytest.mark.parametrize(
    ("bits", "match"),
    [
        (np.zeros((3, 783), int), "no whole number of lines"),
        (np.zeros((784, 783), int), "lines of 784 zeros and ones"),
        (np.full((2, 784), 2), "lines of 784 zeros and ones"),
    ],
)
def test_text_of_another_layout_is_refused(bits, match, tmp_path):
    write_amat(tmp_path / "x.amat", bits)
    with pytest.raises(DataError, match=match) as refusal:
        binary_images.read_amat(tmp_path / "x.amat")
    assert "\n" not in str(refusal.value)


def test_truncated_text_is_refused(amat_home):
    path = amat_home[0] / "binarized_mnist_train.amat"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="no whole number of lines"):
        binary_images.read_amat(path)


# --------------------------------------------------------------------------------- Caltech


def silhouettes():
    sizes = zip(("train", "val", "test"), SMALL.values(), strict=True)
    return {f"{split}_data": RNG.integers(2, size=(n, 784), dtype=np.uint8) for split, n in sizes}


def test_caltech_reads_its_layout(tmp_path):
    stored = silhouettes()
    scipy.io.savemat(tmp_path / "caltech101_silhouettes_28_split1.mat", stored)
    loaded = binary_images.load_caltech(small_card("caltech"), tmp_path)
    for split, x in loaded.splits.items():
        assert np.array_equal(x.numpy(), 1 - by_columns(stored[f"{split}_data"]))
    assert not loaded.verified


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"val_data": None}, "holds no 'val_data'"),
        ({"val_data": np.zeros((784, 3))}, "'val_data' does not hold images of 784 pixels"),
        ({"val_data": np.full((3, 784), 0.5)}, "neither black nor white"),
    ],
)
def test_silhouettes_of_another_layout_are_refused(change, match, tmp_path):
    stored = {key: array for key, array in (silhouettes() | change).items() if array is not None}
    scipy.io.savemat(tmp_path / "caltech101_silhouettes_28_split1.mat", stored)
    with pytest.raises(DataError, match=match) as refusal:
        binary_images.load_caltech(small_card("caltech"), tmp_path)
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------------------- binary digits


def test_binary_digits_are_draws_of_the_digits_in_their_splits(tmp_path):
    drawn, digits = (data.load(name, tmp_path) for name in ("digits-binary", "digits"))
    assert drawn.sizes == digits.sizes
    pixels = torch.cat([x.flatten(1).double() for x in drawn.splits.values()])
    stored = torch.cat(list(digits.splits.values()))
    levels = (digits.to_pixels(stored.double()) * 17).floor().long()
    for level in range(17):
        of_level = pixels[levels == level]
        error = 4 * np.sqrt(level / 16 * (1 - level / 16) / len(of_level))
        assert float(of_level.mean()) == pytest.approx(level / 16, abs=error)


# ------------------------------------------------------------------- splits that depend on the run


def test_only_sets_whose_split_depends_on_the_run_are_seeded():
    seeded = {name for name in data.names() if data.card(name).seeded}
    assert seeded == {"freyfaces", "omniglot"}


@pytest.fixture
def root_of_small_sets(omniglot_home, monkeypatch):
    omniglot = replace(small_card("omniglot"), files=(DataFile("chardata.mat"),))
    cards = (omniglot, data.card("digits-binary"))
    monkeypatch.setattr(data, "CARDS", cards)
    return omniglot_home[0].parent


def test_the_runs_seed_reaches_the_loader(root_of_small_sets):
    zero, default, one = (
        data.load("omniglot", root_of_small_sets, offline=True, **given).fingerprints()
        for given in ({"seed": 0}, {}, {"seed": 1})
    )
    assert zero == default
    assert zero["val"] != one["val"]


def test_neighbouring_runs_share_data_unless_the_split_is_the_runs(root_of_small_sets):
    source = DataSource(RunContext(root_of_small_sets, root_of_small_sets, offline=True))
    digits, omniglot = DataSpec(name="digits-binary"), DataSpec(name="omniglot")
    assert source.load(digits, 0) is source.load(digits, 1)
    first = source.load(omniglot, 0)
    assert source.load(omniglot, 0) is first
    second = source.load(omniglot, 1)
    assert second.fingerprints()["val"] != first.fingerprints()["val"]
    assert source.load(omniglot, 0).fingerprints() == first.fingerprints()
