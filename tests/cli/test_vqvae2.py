"""What a user can get wrong with images, classifiers and weights: one line, exit code 2."""

from dataclasses import replace

import pytest
from click.testing import CliRunner
from PIL import Image

from dgm_bench.cli import cli
from dgm_bench.data.weights import WEIGHTS
from dgm_bench.metrics.images.classifier import settings_for

OWN = 'evaluation.judge.features=["classifier"]'
FEW = ("evaluation.judge.samples=8", "evaluation.judge.compared=8", "evaluation.judge.reference=20",
       "evaluation.judge.isc_splits=2", "evaluation.judge.kid_subsets=2",
       "evaluation.judge.kid_subset_size=5", "evaluation.judge.score=false")  # fmt: skip


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="JPEG")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a small ImageNet: three classes of twelve train and three test images."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("DGM_BENCH_WEIGHTS", raising=False)
    for label in range(3):
        for split, count in (("train", 12), ("val", 3)):
            for i in range(count):
                image = Image.new("RGB", (260, 256), (80 * label, 7 * i, 99))
                save(image, tmp_path / f"data/imagenet-256/{split}/n0000000{label}/{i}.JPEG")
    return tmp_path / "data"


def run(root, *settings):
    """Run the row of real data on ImageNet; return exit code and what was said."""
    words = ["run", "vqvae2/diversity/real/fid", "--budget", "none", "--offline", "--no-tracking"]
    words += ["--data-root", str(root), "--results", str(root.parent / "results")]
    for setting in settings:
        words += ["--set", setting]
    return CliRunner().invoke(cli, words)


def told(result, root):
    """Return the one line of the mistake; nothing else was left."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert not list((root.parent / "results").rglob("*.json"))
    return line


def images_of(root, split="train"):
    return sorted((root / "imagenet-256" / split).rglob("*.JPEG"))


def empty(root):
    for path in images_of(root):
        path.unlink()


def grey(root):
    for path in images_of(root):
        save(Image.new("L", (260, 256), 99), path)


def broken(root):
    path = images_of(root)[5]
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("breaking", "words"),
    [(empty, "no images"), (grey, "grey"), (broken, "is not a readable image")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_cannot_be_used_is_told_with_its_reason(root, breaking, words):
    breaking(root)
    assert words in told(run(root, OWN, *FEW), root)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("evaluation.judge.compared=3", "precision and recall needs at least 4 images"),
        ("evaluation.judge.reference=2", "evaluation.judge.reference is 2"),
        ("evaluation.judge.kid_subset_size=50", "KID needs at least 50"),
        ('evaluation.judge.features=["inception"]', "inception: no such"),
    ],
)
def test_too_few_images_are_told_before_anything_is_done(root, setting, words):
    assert words in told(run(root, OWN, *FEW, setting), root)


def test_missing_weights_are_told_with_the_command_that_gets_them(root):
    line = told(run(root, *FEW), root)
    assert "dgm-bench data fetch inception-v3-compat" in line


def test_weights_that_are_others_are_told_with_both_checksums(root, monkeypatch, tmp_path):
    card = WEIGHTS[0]
    with (tmp_path / card.file.path).open("wb") as file:
        file.truncate(card.file.size)
    monkeypatch.setenv("DGM_BENCH_WEIGHTS", str(tmp_path))
    line = told(run(root, *FEW), root)
    assert "wrong checksum" in line
    assert card.file.sha256 in line
    assert "delete it" in line


def test_a_good_folder_runs(root, monkeypatch):
    once = replace(settings_for((3, 256, 256)), epochs=1)
    monkeypatch.setattr("dgm_bench.metrics.images.classifier.settings_for", lambda shape: once)
    monkeypatch.setenv("DGM_BENCH_DATA", str(root.parent / "elsewhere"))
    result = run(root, OWN, *FEW)
    assert result.exit_code == 0, result.output
    assert list((root / "classifiers").iterdir())
    assert not (root.parent / "elsewhere").exists()
    assert len(list((root.parent / "results/runs").rglob("*.json"))) == 1
