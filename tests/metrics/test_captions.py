"""What is measured of text and image, on models small enough to work out by hand."""

from dataclasses import replace

import pytest
import torch

from dgm_bench import data as datasets
from dgm_bench.data.captioned_images import SAID
from dgm_bench.data.captions import CAPTIONS, KNOWN, NAMES
from dgm_bench.data.labelled_images import pixels
from dgm_bench.errors import DeclarationError
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.metrics.images import captions
from dgm_bench.metrics.images.captions import CaptionJudge, accuracies, likelihood_ratios
from dgm_bench.metrics.registry import METRICS
from dgm_bench.models.build import build
from dgm_bench.models.codes.packing import pack
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.spec import EvaluationSpec, ImageEvaluationSpec, ModelSpec

JOINT = {
    "grids": [[4, 4]],
    "codes": 4,
    "captions": list(CAPTIONS),
    "known": KNOWN,
    "vocabulary": 40,
    "text_length": 24,
    "bpe_dropout": 0.0,
    "attention": "sparse",
    "kernel": 3,
    "width": 8,
    "depth": 1,
    "heads": 1,
    "dropout": 0.0,
}
DVAE = {"codes": 4, "hidden": 4, "blocks": 1, "poolings": 1, "dim": 4}
SAMPLES = 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return datasets.load("digits-captioned", tmp_path_factory.mktemp("none"), offline=True)


@pytest.fixture
def model():
    joint = build(ModelSpec(name="joint_transformer:JointTransformer", args=JOINT), (17,))
    for parameter in joint.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return TwoStage(build(ModelSpec(name="dvae:DVAE", args=DVAE), (1, 8, 8)), [joint]).eval()


@pytest.fixture
def evaluation(model, digits, tmp_path):
    judge = ImageEvaluationSpec(samples=SAMPLES, keep=0.5)
    spec = EvaluationSpec(metrics=("caption-samples",), batch_size=50, judge=judge)
    return Evaluation(model.float(), digits, spec, 0, tmp_path)


@pytest.fixture
def fitting(monkeypatch):
    """A judge that takes no time: the class is right where the first pixel is dark."""

    class Judge(CaptionJudge):
        def __init__(self, *args):
            pass

        def right(self, images, numbers):
            dark = images[:, 0, 0, 0] < 128
            return {"class": dark, "caption": dark & (numbers >= KNOWN)}

    monkeypatch.setattr(captions, "CaptionJudge", Judge)


def by_name(metrics):
    return {metric.name: metric for metric in metrics}


# ----------------------------------------------------------------------------- likelihoods


def test_likelihoods_are_means_over_captions_in_training_and_others(evaluation, model, digits):
    found = by_name(METRICS["caption-likelihood"].measure(evaluation))
    joint, labels = model.prior(0), digits.labels["test"]
    x = pixels(digits.splits["test"])
    rows = pack(model.coder.encode(x), labels)
    texts = joint.text_tokens([CAPTIONS[label] for label in labels])
    of_text, of_codes = -joint.log_prob_of_text(texts), -joint.log_prob(rows) / 16
    for suffix, of in (("", labels < KNOWN), ("-held-out", labels >= KNOWN)):
        assert found[f"text-nll{suffix}"].value == pytest.approx(of_text[of].mean().item(), 1e-5)
        assert found[f"image-nll{suffix}"].value == pytest.approx(of_codes[of].mean().item(), 1e-5)
        per_token = of_text[of].sum() / joint.lengths(texts)[of].sum()
        assert found[f"text-nll-token{suffix}"].value == pytest.approx(per_token.item(), 1e-5)
        assert found[f"text-nll{suffix}"].n == of.sum()
    every = joint.log_prob_of_text(joint.text_tokens(CAPTIONS)).exp().sum()
    assert found["caption-mass"].value == pytest.approx(every.item(), 1e-4)


def test_ratio_is_bayes_rule(model):
    """With few captions and codes all sums are written out."""
    args = {**JOINT, "grids": [[1, 2]], "captions": ["a", "b", "a b"], "known": 3, "vocabulary": 7}
    joint = build(ModelSpec(name="joint_transformer:JointTransformer", args=args), (3,)).double()
    for parameter in joint.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    codes, wanted = torch.tensor([[[0, 1]], [[2, 2]], [[3, 0]]]), torch.tensor([2, 0, 2])
    texts = joint.text_tokens(args["captions"])
    prior = joint.log_prob_of_text(texts).exp()
    for row, (own, caption) in enumerate(zip(codes, wanted.tolist(), strict=True)):
        given = joint.log_prob_given(own.expand(3, 1, 2), texts).exp()
        expected = (given[caption] / (prior * given).sum()).log().item()
        ratio = likelihood_ratios(joint.eval(), codes, wanted, 2)[row].item()
        assert ratio == pytest.approx(expected, rel=1e-10)


# ----------------------------------------------------------------------------- samples


@pytest.mark.usefixtures("fitting")
def test_held_out_captions_have_candidates_of_which_the_best_are_kept(evaluation, monkeypatch):
    drawn = []

    def draw(model, labels, batch_size, generator):
        drawn.append(labels)
        return torch.arange(len(labels))[:, None, None].expand(-1, 4, 4)

    def decode(model, codes, batch_size):
        """Dark are those of odd places."""
        dark = codes[:, 0, 0] % 2 == 1
        return torch.where(dark, 0, 255).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)

    monkeypatch.setattr(captions, "draw_codes", draw)
    monkeypatch.setattr(captions, "_decoded", decode)
    ratios = torch.tensor([0.0, 1, 2, 1, 0, 5, 6, 7, 8, 1, 2, 3])
    monkeypatch.setattr(captions, "likelihood_ratios", lambda *args: ratios)
    found = by_name(METRICS["caption-samples"].measure(evaluation))
    known, held = drawn
    assert known.tolist() == list(range(SAMPLES))
    assert held.tolist() == [KNOWN + n for n in range(SAMPLES) for _ in range(2)]
    assert found["class-accuracy"].value == 0.5
    assert found["class-accuracy-held-out"].value == 0.5
    assert found["class-accuracy-held-out"].n == 2 * SAMPLES
    # The best of the pairs are places 1, 2, 5, 7, 8 and 11.
    assert found["reranked-class-accuracy-held-out"].value == pytest.approx(4 / 6)
    assert found["reranked-class-accuracy-held-out"].n == SAMPLES
    assert found["caption-accuracy"].value == 0.0
    assert {"reconstruction-class-accuracy", "reconstruction-caption-accuracy-held-out"} <= set(
        found
    )
    assert all(metric.direction == "higher" for metric in found.values())


def test_samples_of_a_model_are_measured_without_further_ado(evaluation, monkeypatch):
    monkeypatch.setattr(
        captions, "reference_classifier", lambda *args: (torch.nn.Flatten().eval(), "")
    )
    monkeypatch.setattr(
        captions, "class_probabilities", lambda model, images: torch.rand(len(images), 10)
    )
    first, again = (METRICS["caption-samples"].measure(evaluation) for _ in range(2))
    assert len(first) == 4 * 5
    assert [m.value for m in first if "thick" in m.name] == [
        m.value for m in again if "thick" in m.name
    ]


def test_images_are_judged_by_their_own_captions(digits, tmp_path, monkeypatch):
    """Training images have the attributes that their captions say, and no others."""
    images, own = digits.splits["train"][:400], digits.labels["train"][:400]
    small = replace(digits, splits={"train": images}, labels={"train": own})
    seen = []

    def knowing(model, images):
        return torch.eye(10)[SAID[own, 0]]

    def trained(data, folder, device):
        seen.append((data.classes, data.labels["train"]))
        return torch.nn.Identity(), ""

    monkeypatch.setattr(captions, "reference_classifier", trained)
    monkeypatch.setattr(captions, "class_probabilities", knowing)
    judge = CaptionJudge(small, tmp_path, torch.device("cpu"))
    assert seen[0][0] == NAMES
    assert torch.equal(seen[0][1], SAID[own, 0])
    assert all(right.all() for right in judge.right(images, own).values())
    other = torch.roll(own, 1)
    wrong = judge.right(images, other)
    assert torch.equal(wrong["class"], SAID[own, 0] == SAID[other, 0])
    assert 0.2 < wrong["thickness"].double().mean() < 0.5
    assert wrong["caption"].double().mean() < 0.1


def test_accuracies_are_shares():
    (metric,) = accuracies({"class": torch.tensor([True, False, True, True])}, "a-", "-b", "how")
    assert (metric.name, metric.value, metric.n) == ("a-class-accuracy-b", 0.75, 4)


# ----------------------------------------------------------------------------- refusals


def test_other_priors_and_other_captions_are_refused(evaluation, digits):
    args = {"grids": [[4, 4]], "level": 0, "codes": 4, "classes": 90, "prefix": "class"}
    args |= {"captions": None, "width": 8, "depth": 1, "heads": 1, "dropout": 0.0}
    other = build(ModelSpec(name="code_transformer:CodeTransformer", args=args), (17,))
    two = TwoStage(evaluation.model.autoencoder, [other])
    for name in ("caption-likelihood", "caption-samples"):
        with pytest.raises(DeclarationError, match="CodeTransformer is not"):
            METRICS[name].require_fit(replace(evaluation, model=two))
    undeclared = evaluation.spec.model_copy(update={"judge": None})
    with pytest.raises(DeclarationError, match=r"need evaluation\.judge"):
        METRICS["caption-samples"].require_fit(replace(evaluation, spec=undeclared))
    few = replace(digits, classes=digits.classes[:10])
    with pytest.raises(DeclarationError, match=r"knows 90 classes, and .* has 10"):
        METRICS["caption-likelihood"].require_fit(replace(evaluation, data=few))
