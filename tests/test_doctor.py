"""What the doctor finds, and the remedy it names."""

import os

import pytest

from dgm_bench import doctor, paths, provenance


def test_it_looks_at_everything_and_every_complaint_has_a_remedy(tmp_path):
    found = {
        check.name: check for check in doctor.checks(tmp_path / "results", None, tmp_path / "data")
    }
    assert {"python", "torch", "cpu", "gpu", "memory", "your results", "stored results",
            "data root", "data", "mlflow", "checkout"} == set(found)  # fmt: skip
    for check in found.values():
        assert (check.state == "ok") == (check.remedy == ""), check
    assert not (tmp_path / "results").exists()


def test_a_folder_is_judged_by_the_nearest_one_that_exists(tmp_path):
    assert doctor.folder_check("results", tmp_path / "a" / "b").state == "ok"


def test_a_file_in_the_way_is_a_missing_folder(tmp_path):
    (tmp_path / "results").touch()
    check = doctor.folder_check("results", tmp_path / "results")
    assert check.state == "missing"
    assert "--results" in check.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_missing(tmp_path):
    tmp_path.chmod(0o500)
    assert doctor.folder_check("data root", tmp_path / "data").state == "missing"


def test_stored_results_are_told_from_ones_own(tmp_path):
    own, stored = tmp_path / "own", tmp_path / "stored"
    assert doctor.stored_check(None, own).state == "warn"
    assert doctor.stored_check(stored, own).state == "warn"
    (stored / "runs").mkdir(parents=True)
    assert doctor.stored_check(stored, own).detail == f"{stored}, which are only read"
    assert "where yours go too" in doctor.stored_check(stored, stored).detail


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    class Usage:
        free = 10**6

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage)
    assert doctor.folder_check("results", tmp_path).state == "warn"


def test_little_memory_is_a_warning():
    assert doctor.memory_check(2 * 10**9).state == "warn"
    assert doctor.memory_check(64 * 10**9).state == "ok"


def test_missing_data_names_the_command(tmp_path):
    check = doctor.data_check(tmp_path)
    assert check.state == "warn"
    assert "digits" in check.detail.partition("not here")[0]
    assert "mnist" in check.detail.partition("not here")[2]
    assert check.remedy == "dgm-bench data fetch NAME"


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch):
    monkeypatch.setattr(provenance, "likely_device", lambda: "cuda")
    assert "driver" in doctor.gpu_check(False, "12.8").remedy
    assert "CUDA build" in doctor.gpu_check(False, None).remedy
    monkeypatch.setattr(doctor, "has_apple_gpu", lambda: True)
    assert "--device mps" in doctor.gpu_check(False, None).detail


def test_a_server_that_does_not_answer_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    check = doctor.tracking_check(tmp_path)
    assert check.state == "warn"
    assert check.remedy


def test_mlflow_that_is_not_installed_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "version_of", lambda _: None)
    assert "pip install 'dgm-bench[tracking]'" in doctor.tracking_check(tmp_path).remedy


@pytest.mark.parametrize(
    ("root", "state", "expected"),
    [
        (None, (None, None), "ok"),
        ("here", ("a" * 40, False), "ok"),
        ("here", ("a" * 40, True), "warn"),
        ("here", (None, True), "warn"),
    ],
)
def test_the_checkout_is_judged_by_what_records_would_say(monkeypatch, root, state, expected):
    monkeypatch.setattr(paths, "checkout_root", lambda: root)
    monkeypatch.setattr(provenance, "git_state", lambda _: state)
    assert doctor.checkout_check().state == expected
