"""Scores of the images of a model: what is drawn, what is refused, what the numbers are of."""

import tempfile

import pytest
import torch

from dgm_bench import data as datasets
from dgm_bench.errors import DataError, DataUnavailable, DeclarationError, RunFailure
from dgm_bench.metrics.evaluate import evaluate, prepare, require_fit
from dgm_bench.metrics.images import fidelity, image_bytes
from dgm_bench.metrics.images.features import extract
from dgm_bench.metrics.images.image_bytes import as_bytes, gathered
from dgm_bench.metrics.images.image_evaluator import spread
from dgm_bench.metrics.images.samples import in_turn
from dgm_bench.models.codes.identity import Identity
from dgm_bench.report.rejection import rejection_points
from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec

FEW = {"isc_splits": 2, "kid_subsets": 5, "kid_subset_size": 50}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root that keeps the classifier of the digits, trained once."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def digits(root):
    return datasets.load("digits-labelled", root)


@pytest.fixture
def measured(digits, root):
    """Measures a model of the digits, and returns the metrics by their names."""

    def measure(model, metrics=("samples",), **settings):
        spec = EvaluationSpec(
            metrics=metrics, batch_size=64, judge=ImageEvaluationSpec(**{**FEW, **settings})
        )
        prepare(model, digits, spec)
        return {metric.name: metric for metric in evaluate(model, digits, spec, 0, root)}

    return measure


class Drawer(torch.nn.Module):
    """Draws what a function makes of the classes."""

    def __init__(self, draw, classes=10):
        super().__init__()
        self.draw, self.classes = draw, classes

    def draw_images(self, labels, generator):
        return self.draw(labels)


class BothWays(Drawer):
    """Draws black images, and reconstructs as the identity does."""

    reconstruct = Identity.reconstruct

    def __init__(self):
        super().__init__(lambda labels: torch.zeros(len(labels), 1, 8, 8))


def held_out(data):
    """A model that draws held-out images of the class that is asked for: as good as real."""
    of_class = [data.splits["test"][data.labels["test"] == k].float() / 255 for k in range(10)]
    taken = dict.fromkeys(range(10), 0)

    def draw(labels):
        images = []
        for label in labels.tolist():
            images.append(of_class[label][taken[label] % len(of_class[label])])
            taken[label] += 1
        return torch.stack(images)

    return Drawer(draw)


def test_real_images_are_good_and_diverse_and_noise_is_neither(digits, measured):
    many = {"samples": 1_000, "compared": 200}
    real = measured(held_out(digits), **many)
    noise = measured(Drawer(lambda labels: torch.rand(len(labels), 1, 8, 8)), **many)
    assert real["classifier-precision"].value > 0.8
    assert real["classifier-recall"].value > 0.8
    assert noise["classifier-recall"].value < 0.3
    assert noise["classifier-fid"].value > 5 * real["classifier-fid"].value
    assert real["cas-top1"].value > 80 > 50 > noise["cas-top1"].value
    assert real["classifier-precision"].split == "train"
    assert "200 generated against 1347 of train" in real["classifier-precision"].protocol


def test_the_identity_stands_for_real_data(measured):
    found = measured(Identity((1, 8, 8)), ("reconstructions",), samples=1_000)
    assert found["reconstruction-classifier-precision"].n == 250
    assert found["reconstruction-cas-top1"].value > 95


@pytest.mark.parametrize("metrics", [("samples", "reconstructions"), ("reconstructions",)])
def test_the_reference_is_seen_once_in_a_run(metrics, measured, monkeypatch):
    """Samples and reconstructions share its features, and one does not change the other."""
    seen = []

    def counted(images, *args):
        seen.append(len(images))
        return extract(images, *args)

    monkeypatch.setattr(fidelity, "extract", counted)
    together = measured(BothWays(), metrics, samples=300, compared=100, score=False)
    assert sorted(seen) == [100] * (len(metrics) + 1) + [1347]  # once those held out
    for metric in metrics:
        alone = measured(BothWays(), (metric,), samples=300, compared=100, score=False)
        assert alone.items() <= together.items()


def test_rejection_keeps_what_the_classifier_is_sure_of(digits, measured):
    """Of a mixture of real images and noise that is the real half."""
    real = held_out(digits)

    def mixed(labels):
        coins = torch.arange(len(labels)) // 10 % 2
        noise = torch.rand(len(labels), 1, 8, 8)
        return torch.where(coins.bool()[:, None, None, None], real.draw(labels), noise)

    found = measured(Drawer(mixed), samples=200, keep=0.5, score=False)
    ours, kept = found["classifier-precision"].value, found["rejected-classifier-precision"].value
    assert kept > ours + 0.1
    assert found["rejected-classifier-precision"].n == 200
    points = rejection_points(list(found.values()))["classifier"]
    assert [kept for kept, _, _ in points] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert points[-1][1] > points[0][1]
    fids = [found[f"classifier-fid-kept-{kept}%"].value for kept in (100, 70, 50)]
    assert fids == sorted(fids, reverse=True)
    assert found["classifier-isc-kept-50%"].n == 200
    assert not any("cas" in name for name in found)


class Truncated(Drawer):
    """Draws brighter images the less its noise is truncated, of an image of each class."""

    def __init__(self, data, classes=10):
        first = torch.stack([data.splits["train"][data.labels["train"] == k][0] for k in range(10)])
        super().__init__(lambda labels: first[labels].float() / 255, classes)

    def draw_truncated(self, labels, truncation, generator):
        images = self.draw(labels)
        noise = torch.rand(images.shape, generator=generator).clamp(max=truncation)
        return (images + noise).clamp(0, 1)


def test_truncation_scores_as_many_images_at_each_threshold(digits, measured):
    many = {"samples": 300, "compared": 100, "truncations": (0.0, 0.5)}
    found = measured(Truncated(digits), **many)
    names = {name for name in found if name.endswith("-truncated-0.5")}
    assert {name.removesuffix("-truncated-0.5") for name in names} == {
        *(f"classifier-{score}" for score in ("precision", "recall", "isc", "fid")),
        "cas-top1",
        "cas-top5",
    }
    for score in ("classifier-precision", "classifier-recall", "classifier-fid", "cas-top1"):
        plain, none, some = (
            found[f"{score}{end}"] for end in ("", "-truncated-0", "-truncated-0.5")
        )
        assert plain.n == none.n == some.n
        if score != "classifier-fid":  # its bootstrap draws on from the plain samples' noise
            assert plain.value == none.value
            assert some.value < none.value
    assert "noise truncated at 0.5" in found["cas-top1-truncated-0.5"].protocol
    assert "trained on 300 of these" in found["cas-top1-truncated-0.5"].protocol


def test_every_threshold_truncates_the_same_noise(digits, measured):
    """So a threshold beyond all noise changes nothing, and the order of thresholds does not."""
    few = {"samples": 120, "score": False}
    found = measured(Truncated(digits), **few, truncations=(5.0, 0.3, 1.0))
    assert found["classifier-fid-truncated-5"].value == found["classifier-fid-truncated-1"].value
    alone = measured(Truncated(digits), **few, truncations=(0.3,))
    name = "classifier-fid-truncated-0.3"
    assert found[name] == alone[name]


def test_a_model_without_classes_has_no_accuracy_at_any_threshold(digits, measured):
    found = measured(Truncated(digits, classes=None), samples=100, truncations=(0.5,))
    assert "classifier-recall-truncated-0.5" in found
    assert not any(name.startswith("cas") for name in found)


def test_a_model_that_cannot_truncate_its_noise_is_refused(digits, measured):
    with pytest.raises(DeclarationError, match="truncations: truncate noise, which Drawer cannot"):
        measured(held_out(digits), samples=100, truncations=(0.5,))


def test_copies_of_training_images_are_noticed(digits, measured):
    few = {"samples": 250, "score": False}
    own = iter(digits.splits["train"].float() / 255)
    copier = Drawer(lambda labels: torch.stack([next(own) for _ in labels]))
    found = measured(copier, **few)["classifier-copying"]
    assert found.value < -4
    assert "copies of 1347 training images, 250 held out" in found.protocol
    fresh = measured(held_out(digits), **few)["classifier-copying"]
    assert abs(fresh.value) < 3 * fresh.se


def test_copies_are_sought_among_all_training_images(digits, measured):
    few = {"samples": 150, "score": False, "reference": 200}
    protocol = measured(held_out(digits), **few)["classifier-copying"].protocol
    assert "150 generated against 200 of train" in protocol
    assert "copies of 1347 training images" in protocol


def test_a_classifier_learns_from_several_parts_of_the_drawn_images(digits, measured):
    found = measured(held_out(digits), samples=100, keep=0.5)
    learnt = {name for name in found if name.startswith("cas-top1")}
    assert learnt == {"cas-top1", "cas-top1-kept-80%", "cas-top1-kept-60%"}
    for name in learnt:
        assert "trained on 100 of these" in found[name].protocol


def test_only_the_first_are_compared_and_all_are_learnt_from(digits, measured):
    found = measured(held_out(digits), samples=300, compared=100)
    assert found["classifier-fid"].n == 100
    assert "trained on 300 of these images" in found["cas-top1"].protocol


@pytest.mark.parametrize(
    ("settings", "classes", "words"),
    [
        ({"samples": 3, "neighbours": 3}, 10, "neighbours"),
        ({"samples": 200, "compared": 30}, 10, "kid_subset_size"),
        ({"samples": 200, "reference": 5_000}, 10, "1347"),
        ({"samples": 200, "features": ("clasifier",)}, 10, "did you mean 'classifier'"),
        ({"samples": 200, "keep": 0.5}, None, "knows no classes"),
        ({"samples": 200}, 7, "7 classes"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(digits, root, settings, classes, words):
    model = Drawer(lambda labels: torch.zeros(len(labels), 1, 8, 8), classes)
    spec = EvaluationSpec(metrics=("samples",), judge=ImageEvaluationSpec(**{**FEW, **settings}))
    with pytest.raises(DeclarationError, match=words) as caught:
        require_fit(spec, model, digits, root)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_here_are_told_before_anything_is_trained(digits, root):
    judge = ImageEvaluationSpec(samples=200, features=("inception-v3-compat",), **FEW)
    spec = EvaluationSpec(metrics=("samples",), judge=judge)
    with pytest.raises(DataUnavailable, match="dgm-bench data fetch inception-v3-compat"):
        require_fit(spec, Drawer(lambda labels: torch.zeros(len(labels), 1, 8, 8)), digits, root)


def test_classes_take_turns():
    labels = torch.tensor([2, 0, 0, 1, 2, 1, 0, 2])
    assert in_turn(torch.tensor([1, 2, 3, 4, 6, 7]), labels).tolist() == [1, 3, 4, 2, 7, 6]


def test_some_are_taken_from_everywhere():
    assert spread(torch.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert (
        spread(torch.arange(3), 4).tolist() == spread(torch.arange(3), None).tolist() == [0, 1, 2]
    )


def test_reconstructions_have_no_more_held_out_images_than_there_are(digits, root):
    judge = ImageEvaluationSpec(samples=1_000, isc_splits=2, kid_subsets=5, kid_subset_size=260)
    spec = EvaluationSpec(metrics=("samples", "reconstructions"), judge=judge)
    with pytest.raises(DeclarationError, match="is 250"):
        require_fit(spec, BothWays(), digits, root)


def test_a_data_root_that_keeps_nothing_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    digits = datasets.load("digits-labelled", tmp_path)
    spec = EvaluationSpec(
        metrics=("reconstructions",), judge=ImageEvaluationSpec(samples=200, **FEW)
    )
    with pytest.raises(DataError, match="--data-root"):
        require_fit(spec, Identity((1, 8, 8)), digits, tmp_path / "file")


def test_images_that_are_not_finite_end_the_run(measured):
    broken = Drawer(lambda labels: torch.full((len(labels), 1, 8, 8), torch.nan))
    with pytest.raises(RunFailure, match="not finite"):
        measured(broken, samples=200)


def test_pixels_become_the_nearest_bytes_within_their_range():
    pixels = torch.tensor([-0.2, 0.4, 0.6, 99.4, 99.6, 254.4, 254.6, 300.0]) / 255
    bytes_ = as_bytes(pixels.view(2, 1, 2, 2))
    assert bytes_.flatten().tolist() == [0, 0, 1, 99, 100, 254, 255, 255]


def test_many_images_are_kept_in_a_file(monkeypatch):
    parts = [torch.full((2, 1, 3, 3), level, dtype=torch.uint8) for level in range(5)]
    expected = gathered(parts, 10)
    files, open_file = [], tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: files.append(open_file()) or files[-1])
    for size in (90, 89):
        monkeypatch.setattr(image_bytes, "IN_MEMORY", size)
        mapped = gathered(iter(parts), 10)
        assert torch.equal(mapped, expected)
        assert len(files) == (size < 90)
    assert mapped[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
