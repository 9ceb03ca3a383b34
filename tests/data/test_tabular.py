"""The five tables of the MAF paper, on small files of the published layouts."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from old_frames import save_frame

from dgm_bench import data
from dgm_bench.data import tabular
from dgm_bench.data.frames import read_frame
from dgm_bench.errors import DataError


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return array


# ----------------------------------------------------------------------------------- POWER


def test_power_follows_the_released_code_step_by_step(tmp_path):
    raw = save(tmp_path / "power/data.npy", np.random.default_rng(0).normal(size=(1234, 8)))
    splits = tabular.prepare_power(tmp_path)

    rng = np.random.RandomState(42)
    order = np.arange(1234)
    rng.shuffle(order)  # the same draws as shuffling the rows
    rows = raw[order][:, [0, 2, 4, 5, 6, 7]]
    voltage, gap, sub = rng.rand(1234), rng.rand(1234), rng.rand(1234, 3)
    rows[:, 0] += 0.001 * gap
    rows[:, 1] += 0.01 * voltage
    rows[:, 2:5] += sub
    known = rows[:1111]
    rows = (rows - known.mean(0)) / known.std(0)

    assert [len(part) for part in splits] == [1000, 111, 123]
    assert np.allclose(np.vstack(splits), rows, atol=1e-12)


def test_power_noise_is_drawn_voltage_first(tmp_path):
    save(tmp_path / "power/data.npy", np.zeros((50, 8)))
    rng = np.random.RandomState(42)
    rng.shuffle(np.zeros((50, 8)))
    voltage, active = 0.01 * rng.rand(50), 0.001 * rng.rand(50)
    with np.errstate(invalid="ignore"):
        prepared = np.vstack(tabular.prepare_power(tmp_path))
    assert np.corrcoef(prepared[:, 1], voltage)[0, 1] == pytest.approx(1)
    assert np.corrcoef(prepared[:, 0], active)[0, 1] == pytest.approx(1)
    assert np.isnan(prepared[:, 5]).all()  # time has no noise


@pytest.mark.parametrize("shape", [(20, 7), (20,)])
def test_power_of_another_layout_is_refused(shape, tmp_path):
    save(tmp_path / "power/data.npy", np.zeros(shape))
    with pytest.raises(DataError, match="expected 8 columns"):
        tabular.prepare_power(tmp_path)


# ------------------------------------------------------------------------------------- GAS


@pytest.fixture
def gas_root(tmp_path):
    rng = np.random.default_rng(1)
    sensors = rng.normal(size=(1000, 4)) * [1, 2, 3, 4] + 5
    columns = {
        "Time": np.arange(1000.0),
        "Meth": rng.normal(size=1000),
        "Eth": rng.normal(size=1000),
        "a": sensors[:, 0],
        "a_again": sensors[:, 0] + 0.15 * rng.normal(size=1000),
        "b": sensors[:, 1],
        "b_like": sensors[:, 1] + 0.5 * rng.normal(size=1000),
        "c": sensors[:, 2],
        "a_third": 3 * sensors[:, 0],
        "opposite": -sensors[:, 1],
    }
    save_frame(tmp_path / "gas/ethylene_CO.pickle", columns)
    return tmp_path, columns


def test_an_old_data_frame_is_read_whichever_pandas_is_installed(gas_root):
    root, columns = gas_root
    frame = read_frame(root / "gas/ethylene_CO.pickle")
    assert list(frame.columns) == list(columns)
    assert np.array_equal(frame.to_numpy(), np.stack(list(columns.values()), axis=1))


def test_gas_drops_the_first_of_correlated_columns_and_uses_all_rows_statistics(gas_root):
    """The released code drops by correlations above 0.98 (``datasets/gas.py``)."""
    root, columns = gas_root
    assert 0.98 < np.corrcoef(columns["a"], columns["a_again"])[0, 1] < 0.99
    assert 0.96 < np.corrcoef(columns["b"], columns["b_like"])[0, 1] < 0.98
    splits = tabular.prepare_gas(root)
    kept = np.stack([columns[name] for name in ("b", "b_like", "c", "a_third", "opposite")], axis=1)
    expected = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    assert [len(part) for part in splits] == [810, 90, 100]
    assert np.allclose(np.vstack(splits), expected, atol=1e-10)


@pytest.mark.parametrize("length", [0, 10, 400])
def test_a_truncated_pickle_says_so(length, gas_root):
    path = gas_root[0] / "gas/ethylene_CO.pickle"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match="truncated or corrupt"):
        tabular.prepare_gas(gas_root[0])


def test_a_pickle_of_something_else_is_refused(tmp_path):
    path = tmp_path / "gas/ethylene_CO.pickle"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps({"Meth": [1.0]}))
    with pytest.raises(DataError, match="does not hold an old data frame"):
        tabular.prepare_gas(tmp_path)


# --------------------------------------------------------------------------------- HEPMASS


@pytest.fixture
def hepmass_root(tmp_path):
    rng = np.random.default_rng(2)

    def table(n):
        rows = rng.normal(size=(n, 4))
        rows[: n // 2, 2] = -9.0  # a feature whose smallest value repeats: goes
        rows[: n // 2, 3] = 7.0  # one whose largest value repeats: stays, by the bug
        label = (np.arange(n) % 3 > 0).astype(float)
        return np.hstack([label[:, None], rows])

    train, test = table(600), table(300)
    folder = tmp_path / "hepmass"
    folder.mkdir()
    columns = ["# label", "f0", "f1", "f2", "f3"]
    pd.DataFrame(train, columns=columns).to_csv(folder / "1000_train.csv", index=False)
    header, *lines = pd.DataFrame(test, columns=columns).to_csv(index=False).splitlines()
    text = "\n".join([header + ",mass", *(line + "," for line in lines)])
    (folder / "1000_test.csv").write_text(text)
    return tmp_path, train, test


def test_hepmass_keeps_signal_and_drops_by_the_smallest_value(hepmass_root):
    root, train, test = hepmass_root
    splits = tabular.prepare_hepmass(root)
    signal, signal_test = (rows[rows[:, 0] == 1][:, [1, 2, 4]] for rows in (train, test))
    mean, deviation = signal.mean(0), signal.std(0, ddof=1)
    assert [len(part) for part in splits] == [360, 40, 200]
    assert np.allclose(np.vstack(splits[:2]), (signal - mean) / deviation)
    assert np.allclose(splits.test, (signal_test - mean) / deviation)


def test_a_smallest_value_may_occur_five_times():
    """More often, its feature goes (``datasets/hepmass.py``: ``max_count > 5``)."""
    rows = np.arange(60.0).reshape(20, 3)
    rows[:5, 0] = rows[:6, 1] = -1
    rows[:9, 2] = 99
    assert tabular.has_repeated_minimum(rows).tolist() == [False, True, False]


def test_hepmass_with_another_number_of_features_is_refused(hepmass_root):
    path = hepmass_root[0] / "hepmass/1000_test.csv"
    path.write_text("# label,f0,mass\n1,0.5,\n1,0.25,\n")
    with pytest.raises(DataError, match="1 features, 1000_train"):
        tabular.prepare_hepmass(hepmass_root[0])


@pytest.mark.parametrize("text", ["a,b\nx,y\n", "a,b\n1," + "9" * 400 + "\n", "", 'a,b\n"1'])
def test_hepmass_that_is_no_table_is_refused(text, hepmass_root):
    path = hepmass_root[0] / "hepmass/1000_train.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="not a table of numbers"):
        tabular.prepare_hepmass(hepmass_root[0])


# --------------------------------------------------------------------- MINIBOONE and BSDS300


def test_miniboone_is_standardised_by_train_and_validation(tmp_path):
    raw = save(tmp_path / "miniboone/data.npy", np.random.default_rng(3).normal(2, 3, (101, 5)))
    splits = tabular.prepare_miniboone(tmp_path)
    known = raw[:91]
    assert [len(part) for part in splits] == [82, 9, 10]
    assert np.allclose(np.vstack(splits), (raw - known.mean(0)) / known.std(0))


def test_a_truncated_npy_says_so(tmp_path):
    path = tmp_path / "miniboone/data.npy"
    save(path, np.ones((100, 5)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated or corrupt"):
        tabular.prepare_miniboone(tmp_path)


def test_an_npy_of_objects_is_not_unpickled(tmp_path):
    path = tmp_path / "miniboone/data.npy"
    path.parent.mkdir()
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds object, expected numbers"):
        tabular.prepare_miniboone(tmp_path)


@pytest.fixture
def bsds300_root(tmp_path):
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300/BSDS300.hdf5", "w") as file:
        for value, (key, n) in enumerate({"train": 30, "validation": 4, "test": 9}.items()):
            file[key] = np.full((n, 63), value, dtype=np.float64)
    return tmp_path


def test_bsds300_is_used_as_stored(bsds300_root):
    splits = tabular.prepare_bsds300(bsds300_root)
    assert [(len(part), part[0, 0]) for part in splits] == [(30, 0), (4, 1), (9, 2)]


def test_a_truncated_hdf5_says_so(bsds300_root):
    path = bsds300_root / "BSDS300/BSDS300.hdf5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="truncated or corrupt"):
        tabular.prepare_bsds300(bsds300_root)


def test_load_refuses_other_numbers_of_rows_than_published(bsds300_root):
    with pytest.raises(DataError, match="1000000"):
        data.load("bsds300", bsds300_root, offline=True)


def test_load_gives_float32_splits_with_checksums(bsds300_root):
    small = replace(data.card("bsds300"), sizes={"train": 30, "val": 4, "test": 9})
    loaded = tabular.load(small, bsds300_root)
    assert loaded.sizes == dict(small.sizes)
    assert {split.dtype.itemsize for split in loaded.splits.values()} == {4}
    assert list(loaded.files) == ["BSDS300/BSDS300.hdf5"]
    assert len(loaded.files["BSDS300/BSDS300.hdf5"]) == 64


def test_genuine_miniboone_rows_pass(tmp_path):
    root = os.environ.get("DGM_BENCH_DATA")
    prefix = Path(root or "/nowhere") / "miniboone_prefix/data_prefix.npy"
    if not prefix.exists():
        pytest.skip("set DGM_BENCH_DATA to a folder with miniboone_prefix/data_prefix.npy")
    rows = np.frombuffer(prefix.read_bytes()[80 : 80 + 1523 * 344], "<f8").reshape(-1, 43)
    save(tmp_path / "miniboone/data.npy", rows)
    splits = tabular.prepare_miniboone(tmp_path)
    known = np.vstack(splits[:2])
    assert np.allclose(known.mean(0), 0, atol=1e-9)
    assert np.allclose(known.std(0), 1)
