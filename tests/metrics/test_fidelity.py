"""Scores of drawn images: against torch-fidelity, closed forms, and points worked out by hand."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_fidelity
import torchvision
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from dgm_bench.data import weights
from dgm_bench.errors import DataError, DataUnavailable, DeclarationError, RunFailure
from dgm_bench.metrics.images.features import (
    ImageBytes,
    classifier_extractor,
    extract,
    published_extractor,
    register_classifier,
)
from dgm_bench.metrics.images.fidelity import Reference, score_images
from dgm_bench.metrics.images.precision_recall import query_radius, reference_radius
from dgm_bench.metrics.images.requirements import require_sample_sizes
from dgm_bench.metrics.images.scores import (
    frechet,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
)
from dgm_bench.spec import ImageEvaluationSpec

SHA256 = "0123456789abcdef" * 4
JUDGE = ImageEvaluationSpec(samples=120, isc_splits=4, kid_subsets=5, kid_subset_size=40)


class TinyClassifier(nn.Module):
    def __init__(self, channels, width=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, width)
        )
        self.head = nn.Linear(width, 5)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def _bytes(n, channels, seed, brightest=256):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, 8, 8)
    return torch.randint(brightest, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def channels(request):
    return request.param


@pytest.fixture
def classifier(channels):
    return TinyClassifier(channels)


@pytest.fixture
def extractor(classifier, channels):
    return classifier_extractor(classifier, SHA256, channels)


# ------------------------------------------------------------------------------- features


def test_features_are_those_of_calling_the_classifier(classifier, extractor, channels):
    images = _bytes(10, channels, 0)
    layers = extract(images, extractor, batch_size=4)
    pixels = images.double() / 255
    torch.testing.assert_close(layers["features"], classifier.features(pixels), rtol=0, atol=1e-12)
    torch.testing.assert_close(layers["logits"], classifier(pixels), rtol=0, atol=1e-12)


def test_pixels_are_rounded_to_bytes(extractor, channels):
    images = _bytes(6, channels, 0)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    floats = (images.double() + 0.99 * noise).clamp(0, 255) / 255
    for layer, expected in extract(images, extractor).items():
        assert torch.equal(extract(floats, extractor)[layer], expected)
    beyond = torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(2, channels, 8, 8)
    assert ImageBytes(beyond)[0].max() == 0
    assert ImageBytes(beyond)[1].min() == 255


def test_the_batch_size_does_not_matter(extractor, channels):
    """To rounding: 1e-12 in double precision."""
    images = _bytes(30, channels, 0)
    one, other = (extract(images, extractor, batch_size=size) for size in (7, 30))
    for layer in ("features", "logits"):
        torch.testing.assert_close(one[layer], other[layer], rtol=0, atol=1e-12)


def test_the_classifier_itself_stays_as_it_was(classifier, extractor, channels):
    extract(_bytes(4, channels, 0), extractor)
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_other_channels_are_refused():
    with pytest.raises(DataError, match="2 channels"):
        ImageBytes(torch.zeros(3, 2, 8, 8))


def test_scores_are_those_of_calculate_metrics(classifier, extractor, channels):
    """Through our registered classifier, on the same images: 1e-9 in double precision."""
    generated, real = _bytes(120, channels, 0, 200), _bytes(150, channels, 1)
    register_classifier()
    expected = torch_fidelity.calculate_metrics(
        input1=ImageBytes(generated),
        input2=ImageBytes(real),
        feature_extractor="classifier",
        classifier=classifier,
        channels=channels,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=4,
        kid_subsets=5,
        kid_subset_size=40,
        batch_size=16,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    found = {}
    for metric in score_images(generated, Reference(real, extractor), JUDGE, torch.Generator()):
        found[metric.name] = metric
    for name, key in {
        "isc": "inception_score_mean",
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }.items():
        assert found[f"classifier-{name}"].value == pytest.approx(expected[key], rel=1e-9, abs=1e-9)
    kid_se = expected["kernel_inception_distance_std"] * math.sqrt(
        40 / min(len(generated), len(real))
    )
    assert found["classifier-kid"].se == pytest.approx(kid_se, rel=1e-9)
    isc_sd = expected["inception_score_std"]
    assert found["classifier-isc"].se == pytest.approx(isc_sd / 2, rel=1e-9)


# ----------------------------------------------------------------------- published networks


def _publish(monkeypatch, root, name, state):
    """Put weights below a data root as if they were the published ones."""
    card = weights.weights_card(name)
    path = root / "weights" / card.file.path
    path.parent.mkdir()
    torch.save(state, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    file = replace(card.file, size=path.stat().st_size, sha256=sha256)
    monkeypatch.setattr(weights, "WEIGHTS", (replace(card, file=file),))
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    return path, sha256


def _no_download(*args, **kwargs):
    raise AssertionError("weights are never downloaded on the way to a number")


def test_inception_takes_weights_from_the_data_root(tmp_path, monkeypatch):
    """With random weights, since the published ones are a download; the wiring is the same."""
    module = "torch_fidelity.feature_extractor_inceptionv3"
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("any", ["2048"], verbose=False)
    for parameter in network.parameters():
        if parameter.ndim > 1:  # so large that signals pass through
            nn.init.kaiming_normal_(parameter)
    monkeypatch.setattr(f"{module}.load_state_dict_from_url", _no_download)
    path, sha256 = _publish(monkeypatch, tmp_path, "inception-v3-compat", network.state_dict())
    extractor = published_extractor("inception-v3-compat", tmp_path)
    assert extractor.weights == sha256
    generated, real = _bytes(4, 1, 0), _bytes(4, 3, 1)
    judge = ImageEvaluationSpec(
        samples=4, neighbours=1, isc_splits=2, kid_subsets=2, kid_subset_size=3
    )
    layers = extract(generated, extractor, batch_size=3)
    assert layers["2048"].shape == (4, 2048)
    assert layers["logits_unbiased"].shape == (4, 1008)
    expected = torch_fidelity.calculate_metrics(
        input1=ImageBytes(generated),
        input2=ImageBytes(real),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(path),
        isc=True,
        kid=True,
        isc_splits=judge.isc_splits,
        kid_subsets=judge.kid_subsets,
        kid_subset_size=judge.kid_subset_size,
        batch_size=4,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    score = inception_score(layers["logits_unbiased"], judge.isc_splits)
    assert score.value - 1 == pytest.approx(expected["inception_score_mean"] - 1, rel=1e-3)
    assert score.value > 1.0001
    other = extract(real, extractor)["2048"]
    kid = kernel_distance(layers["2048"], other, judge.kid_subsets, judge.kid_subset_size)
    assert kid.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert abs(kid.value) > 1e-3


class TinyVGG(nn.Module):
    """As large as a test wants it, with the seven parts that torch-fidelity takes apart."""

    def __init__(self):
        super().__init__()
        head = [nn.Linear(12, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8)]
        self.features = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(*head, nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x):
        return self.classifier(self.features(x))


def test_vgg_gives_precision_and_recall_only(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.models, "vgg16", TinyVGG)
    _publish(monkeypatch, tmp_path, "vgg16", TinyVGG().state_dict())
    extractor = published_extractor("vgg16", tmp_path)
    judge = ImageEvaluationSpec(samples=9, features=("vgg16",))
    found = score_images(
        _bytes(9, 3, 0), Reference(_bytes(11, 3, 1), extractor), judge, torch.Generator()
    )
    suffixes = ("precision", "recall", "precision-query", "recall-query")
    assert [metric.name for metric in found] == [f"vgg16-{suffix}" for suffix in suffixes]
    assert [metric.n for metric in found] == [9, 11, 9, 11]


def test_missing_weights_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setattr("dgm_bench.data.download.download", _no_download)
    with pytest.raises(DataUnavailable, match="dgm-bench data fetch vgg16"):
        published_extractor("vgg16", tmp_path)


# ---------------------------------------------------------------------- distances of moments


def _with_moments(n, mean, covariance, generator):
    """Draw features whose sample moments are exactly the wished ones: whiten, then colour."""
    x = torch.randn(n, len(mean), generator=generator)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def _covariance(dim, generator):
    factor = torch.randn(dim, dim, generator=generator)
    return factor @ factor.T / dim + 0.1 * torch.eye(dim)


def _square_root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.sqrt().diag() @ vectors.T


def test_fid_of_gaussians_is_the_closed_form(generator):
    """tr (S1 S2)^{1/2} by the symmetric root: that of S1^{1/2} S2 S1^{1/2} has the same trace."""
    dim = 12
    m1, m2 = torch.randn(2, dim, generator=generator)
    s1, s2 = _covariance(dim, generator), _covariance(dim, generator)
    x, y = _with_moments(500, m1, s1, generator), _with_moments(400, m2, s2, generator)
    root = _square_root(s1)
    cross = _square_root(root @ s2 @ root).trace()
    expected = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * cross
    found = frechet_distance(x, moments(y), generator)
    assert found.value == pytest.approx(float(expected), abs=1e-6)
    assert found.value > 1


def test_fid_of_commuting_gaussians_is_by_hand(generator):
    """Means 3 apart in one direction, deviations 1 and 2 in each of two: 9 + 2 (2 - 1)^2 = 11."""
    eye = torch.eye(2)
    x = _with_moments(50, torch.zeros(2), eye, generator)
    y = _with_moments(60, torch.tensor([3.0, 0.0]), 4 * eye, generator)
    assert frechet(moments(x), moments(y)) == pytest.approx(11, abs=1e-6)
    assert frechet(moments(x), moments(x)) == pytest.approx(0, abs=1e-6)


def test_bootstrap_error_of_fid_is_the_spread_over_fresh_samples(generator):
    """Far from zero FID is about normal; 20 resamples give its sd within a factor of two."""
    reference = moments(torch.randn(5_000, 3, generator=generator))
    samples = [2 + torch.randn(300, 3, generator=generator) for _ in range(30)]
    spread = np.std([frechet(moments(sample), reference) for sample in samples], ddof=1)
    found = frechet_distance(samples[0], reference, generator)
    assert spread / 2 < found.se < 2 * spread
    wide = torch.randn(300, 257, generator=generator)
    assert frechet_distance(wide, moments(wide), generator).se is None


def test_inception_score_by_hand():
    """Sure of c classes, equally often: each part scores c. Never sure: 1."""
    sure = 1e3 * torch.eye(4).repeat(250, 1)
    found = inception_score(sure, 1)
    assert found.value == pytest.approx(4, abs=1e-9)
    assert inception_score(torch.zeros(100, 4), 5).value == pytest.approx(1, abs=1e-9)


def test_kid_by_hand():
    """One subset of all: with x = 1 and y = 0 everywhere, 2^3 + 1^3 - 2 * 1^3 = 7."""
    found = kernel_distance(torch.ones(6, 1), torch.zeros(6, 1), 1, 6)
    assert found.value == pytest.approx(7, abs=1e-12)


# -------------------------------------------------------------------- precision and recall


def test_definitions_differ_on_points_by_hand():
    """Points of the line, k = 1.

    Generated 0, 1, 10, with radii (to the nearest of the others) 1, 1, 9.
    Reference 3, 5, 30, with radii 2, 2, 25.

    Radius of the point of the set: 0 is 30 from 30 (25), 3 from 3 (2), 5 from 5 (2): no. 1 is 2
    from 3 (2): yes. 10 is 20 from 30 (25): yes. Precision 2/3. 3 is 2 from 1 (1), but 7 from 10
    (9): yes. 5 is 5 from 10 (9): yes. 30 is 20 from 10 (9): no. Recall 2/3.

    Radius of the point asked about: 0 (1) is 3 from the nearest: no. 1 (1) is 2: no. 10 (9) is 5:
    yes. Precision 1/3. 3 (2) is 2 from 1: yes. 5 (2) is 4: no. 30 (25) is 20: yes. Recall 2/3.
    """
    generated = torch.tensor([0.0, 1.0, 10.0])[:, None]
    reference = torch.tensor([3.0, 5.0, 30.0])[:, None]
    assert reference_radius(generated, reference, 1) == pytest.approx((2 / 3, 2 / 3))
    assert query_radius(generated, reference, 1) == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize("definition", [reference_radius, query_radius])
def test_equal_sets_and_far_sets(definition, generator):
    x = torch.randn(50, 4, generator=generator)
    assert definition(x, x, 3) == (1, 1)
    assert definition(x, x + 100, 3) == (0, 0)


def _by_brute_force(generated, reference, k, of_query):
    """Count with a double loop, in numpy, with distances of differences."""

    def radius(points, i):
        distances = sorted(np.linalg.norm(points[i] - other) for other in points)
        return distances[k]  # the first is that to itself

    def fraction(queries, others):
        near = 0
        for i, query in enumerate(queries):
            for j, other in enumerate(others):
                reach = radius(queries, i) if of_query else radius(others, j)
                if np.linalg.norm(query - other) <= reach:
                    near += 1
                    break
        return near / len(queries)

    return fraction(generated, reference), fraction(reference, generated)


@pytest.mark.parametrize("rows", [None, 7])
@pytest.mark.parametrize("k", [1, 3])
def test_equals_brute_force(rows, k, generator):
    x = torch.randn(40, 3, generator=generator)
    y = 0.7 * torch.randn(33, 3, generator=generator) + 0.5
    found = reference_radius(x, y, k, rows), query_radius(x, y, k, rows)
    expected = [_by_brute_force(x.numpy(), y.numpy(), k, of_query) for of_query in (False, True)]
    assert found[0] == pytest.approx(expected[0], abs=1e-7)
    assert found[1] == pytest.approx(expected[1], abs=1e-12)
    assert found[0] != pytest.approx(found[1])


# ----------------------------------------------------------------------------- the one entry


def test_metrics_say_what_they_are(extractor, channels):
    real = Reference(_bytes(150, channels, 1), extractor)
    generator = torch.Generator().manual_seed(3)
    found = score_images(_bytes(120, channels, 0), real, JUDGE, generator, "best checkpoint")
    names = ["isc", "fid", "kid", "precision", "recall", "precision-query", "recall-query"]
    assert [metric.name for metric in found] == [f"classifier-{name}" for name in names]
    assert [metric.direction for metric in found] == ["higher", "lower", "lower", *4 * ["higher"]]
    assert [metric.n for metric in found] == [120, 120, 120, 120, 150, 120, 150]
    for metric in found:
        assert metric.split == "train"
        assert metric.protocol.startswith(
            "best checkpoint; classifier features, weights 0123456789ab; torch-fidelity "
            f"{torch_fidelity.__version__}; 120 generated against 150 of train"
        )
    by_name = {metric.name: metric for metric in found}
    assert "not comparable" in by_name["classifier-isc"].protocol
    assert "k = 3" in by_name["classifier-recall"].protocol
    p = by_name["classifier-recall-query"].value
    assert by_name["classifier-recall-query"].se == pytest.approx(math.sqrt(p * (1 - p) / 150))


def test_one_reference_serves_several_sets(extractor, channels, monkeypatch):
    real = Reference(_bytes(150, channels, 1), extractor)
    seen = []
    extracted = Reference.extract
    monkeypatch.setattr(
        Reference, "extract", lambda self, x: seen.append(len(x)) or extracted(self, x)
    )
    first, second = (
        score_images(images, real, JUDGE, torch.Generator().manual_seed(0))
        for images in (_bytes(120, channels, 0), _bytes(130, channels, 2, 100))
    )
    assert seen == [120, 130]
    assert second[1].value > first[1].value  # the second set is darker than the reference


def test_images_that_are_not_finite_end_the_run(extractor, channels):
    images = torch.full((120, channels, 8, 8), math.nan)
    real = Reference(_bytes(150, channels, 1), extractor)
    with pytest.raises(RunFailure, match="not finite"):
        score_images(images, real, JUDGE, torch.Generator())


@pytest.mark.parametrize(
    ("changes", "reference", "named"),
    [
        ({"neighbours": 120}, 500, ("neighbours=120", "121 images", "judge.samples is 120")),
        ({"neighbours": 50}, 50, ("neighbours=50", "51 images", "judge.reference is 50")),
        ({"kid_subset_size": 121}, 500, ("kid_subset_size=121", "KID", "judge.samples is 120")),
        ({}, 39, ("kid_subset_size=40", "40 images", "judge.reference is 39")),
        ({"isc_splits": 121}, 500, ("isc_splits=121", "Inception score", "judge.samples is 120")),
        ({"reference": 501}, 500, ("reference=501", "has 500 images")),
        ({"features": ("vgg",)}, 500, ("judge.features", "did you mean 'vgg16'")),
    ],
)
def test_too_few_images_are_refused_in_one_line(changes, reference, named):
    judge = JUDGE.model_copy(update=changes)
    with pytest.raises(DeclarationError) as error:
        require_sample_sizes(judge, reference)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("evaluation.judge.")
    for part in named:
        assert part in text


def test_just_enough_images_are_enough():
    require_sample_sizes(JUDGE, 40)
    vgg = {"features": ("vgg16",), "kid_subset_size": 10_000, "neighbours": 39}
    require_sample_sizes(JUDGE.model_copy(update=vgg), 40)


def test_too_few_drawn_images_are_refused_too(extractor, channels):
    real = Reference(_bytes(150, channels, 1), extractor)
    with pytest.raises(DeclarationError, match="samples is 39"):
        score_images(_bytes(39, channels, 0), real, JUDGE, torch.Generator())
