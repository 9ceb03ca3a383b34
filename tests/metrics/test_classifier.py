"""The suite's classifier: learning, repeatability, the cache, accuracy scores, neighbours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import StopAfter
from safetensors.torch import load
from torch import nn

from dgm_bench.control import Interrupted
from dgm_bench.data.dataset import Dataset
from dgm_bench.data.digits import permuted_levels
from dgm_bench.data.labelled_images import pixels
from dgm_bench.errors import DeclarationError
from dgm_bench.kept import Journal
from dgm_bench.keyed_tensors import read_keyed, weights_hash, write_keyed
from dgm_bench.metrics.images import classifier as module
from dgm_bench.metrics.images.accuracy_score import accuracy, accuracy_score, resnet50
from dgm_bench.metrics.images.classifier import (
    ImageClassifier,
    class_probabilities,
    fit,
    image_features,
    reference_classifier,
    settings_for,
    train_classifier,
)
from dgm_bench.metrics.images.neighbours import nearest

SHAPE = (1, 8, 8)
CLASSES = tuple("0123456789")
QUICK = replace(settings_for(SHAPE), epochs=2)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    bytes_ = (permuted_levels() * 255 / 16).round().astype(np.uint8).reshape(-1, *SHAPE)
    labels = np.random.default_rng(1797).permutation(load_digits().target)
    images, labels = torch.from_numpy(bytes_), torch.from_numpy(labels).long()
    return Dataset(
        name="digits-test",
        version="1",
        splits={"train": images[:1347], "test": images[1347:]},
        image_shape=SHAPE,
        labels={"train": labels[:1347], "test": labels[1347:]},
        classes=CLASSES,
    )


@pytest.fixture(scope="module")
def trained(digits):
    return reference_classifier(digits, None, "cpu")


@pytest.fixture
def few(digits):
    """A data set that is trained on in no time."""
    splits = {name: split[:64] for name, split in digits.splits.items()}
    return replace(digits, splits=splits, labels={k: v[:64] for k, v in digits.labels.items()})


def score(digits, model):
    return accuracy(class_probabilities(model, digits.splits["test"]), digits.labels["test"])


# ----------------------------------------------------------------------------- network


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 256, 256)])
def test_it_fits_images_of_every_size(shape):
    model = ImageClassifier(shape, 7).eval()
    x = torch.rand(2, *shape)
    assert model(x).shape == (2, 7)
    assert model.features(x).shape == (2, settings_for(shape).widths[-1])
    assert model.features(x).shape[1] in (64, 128)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_images_do_not_influence_each_other(digits, trained):
    model, images = trained[0], digits.splits["test"][:50]
    together = image_features(model, images)
    apart = image_features(model, images, batch_size=1)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image_features(model, images.flip(0)).flip(0), together)


def test_it_comes_in_evaluation_mode_without_gradients(trained):
    assert not trained[0].training
    assert not any(p.requires_grad for p in trained[0].parameters())


def test_augmentation_moves_and_mirrors_whole_images():
    settings = replace(QUICK, shift=1, flip=True)
    image = torch.zeros(500, 1, 4, 4, dtype=torch.uint8)
    image[:, 0, 1, 1] = 200
    moved = module._augmented(image, settings, torch.Generator().manual_seed(0))
    places = moved.flatten(1).double().argmax(1).unique().tolist()
    # one pixel up or down, left or right; and the same mirrored: column 1 to column 2
    assert places == list(range(12))
    assert (moved.sum((1, 2, 3)) == 200).all()


def test_no_shift_and_no_flip_changes_nothing(digits):
    images = digits.splits["test"][:20]
    settings = replace(QUICK, shift=0, flip=False)
    assert torch.equal(module._augmented(images, settings, torch.Generator()), images)


def test_the_learning_rate_rises_then_falls_to_nothing():
    shares = [module._share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == 1 == shares[10]
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] < 1e-3


# ----------------------------------------------------------------------------- learning


def test_digits_are_learnt(digits, trained):
    assert score(digits, trained[0]).top1 > 0.97


def test_bytes_and_floats_are_the_same_images(digits):
    images, labels = digits.splits["train"][:300], digits.labels["train"][:300]
    a = train_classifier(images, labels, 10, QUICK, seed=3, device="cpu")
    b = train_classifier(pixels(images), labels, 10, QUICK, seed=3, device="cpu")
    assert weights_hash(a) == weights_hash(b)


def test_the_seed_alone_decides_the_weights(digits):
    images, labels = digits.splits["train"][:300], digits.labels["train"][:300]

    def trained_hash(seed, global_seed):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found = weights_hash(train_classifier(images, labels, 10, QUICK, seed=seed, device="cpu"))
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert trained_hash(3, 0) == trained_hash(3, 1)
    assert trained_hash(3, 0) != trained_hash(4, 0)


def test_the_hash_is_of_names_and_values():
    model = nn.Linear(2, 2)
    before = weights_hash(model)
    assert before == weights_hash(model)
    assert before != weights_hash(nn.Sequential(model))
    with torch.no_grad():
        model.bias[0] += 1e-9
    assert weights_hash(model) != before


@pytest.mark.usefixtures("unchecked")
def test_data_that_cannot_be_learnt_from_is_refused(digits):
    images = digits.splits["train"]
    with pytest.raises(DeclarationError, match="has 10 images and 9 labels"):
        train_classifier(images[:10], torch.zeros(9).long(), 10, seed=0, device="cpu")
    with pytest.raises(DeclarationError, match="has 1 images"):
        train_classifier(images[:1], torch.zeros(1).long(), 10, seed=0, device="cpu")


# ----------------------------------------------------------------------------- the cache


def test_a_kept_classifier_is_not_trained_again(few, tmp_path, monkeypatch):
    first, found = reference_classifier(few, tmp_path, "cpu")
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()

    def never(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train_classifier", never)
    before = torch.get_rng_state()
    second, again = reference_classifier(few, tmp_path, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert again == found == weights_hash(second)
    assert path.read_bytes() == written
    assert not second.training
    assert not any(p.requires_grad for p in second.parameters())
    x = few.splits["test"]
    assert torch.equal(class_probabilities(first, x), class_probabilities(second, x))


@pytest.mark.parametrize("damage", ["cut", "bit", "foreign"])
def test_a_damaged_or_foreign_file_is_replaced(few, tmp_path, damage, caplog):
    _, found = reference_classifier(few, tmp_path, "cpu")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    state = load(whole)
    key = module._key(few, SHAPE, few.labels["train"])
    if damage == "foreign":
        write_keyed(path, "of another", state)
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        path.write_bytes({"cut": whole[:-9], "bit": flipped}[damage])
    model, again = reference_classifier(few, tmp_path, "cpu")
    assert again == found == weights_hash(model)
    kept, metadata = read_keyed(path, key)
    assert metadata["key"] == key
    assert torch.equal(kept["head.bias"], model.head.bias)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(caplog.records) == (damage != "foreign")


def test_other_data_has_another_classifier(few, tmp_path, monkeypatch):
    reference_classifier(few, tmp_path, "cpu")
    shifted = {"train": (few.labels["train"] + 1) % 10}
    reference_classifier(replace(few, labels=shifted), tmp_path, "cpu")
    darker = {"train": few.splits["train"] // 2}
    reference_classifier(replace(few, splits=darker), tmp_path, "cpu")
    monkeypatch.setattr(module, "ARCHITECTURE", "another")
    reference_classifier(few, tmp_path, "cpu")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_data_set_without_classes_or_images_is_refused(few):
    with pytest.raises(DeclarationError, match=r"has no classes.*inception-v3-compat or vgg16"):
        reference_classifier(replace(few, labels={}, classes=()), None, "cpu")
    with pytest.raises(DeclarationError, match="holds no images"):
        reference_classifier(replace(few, image_shape=None), None, "cpu")


# ----------------------------------------------------------------------------- accuracy scores


def test_accuracies_are_counted_by_hand():
    ranked = torch.tensor([[6, 5, 4, 3, 2, 1.0], [1, 6, 5, 4, 3, 2], [6, 5, 4, 3, 2, 1]])
    found = accuracy(ranked / ranked.sum(1, keepdim=True), torch.tensor([0, 2, 5]))
    assert found.top1 == pytest.approx(1 / 3)
    assert found.top5 == pytest.approx(2 / 3)
    assert found.se == pytest.approx((1 / 3 * 2 / 3 / 3) ** 0.5)
    assert found.n == 3


def test_the_score_of_real_images_is_high_and_that_of_wrong_labels_is_chance(digits):
    images, labels = digits.splits["train"], digits.labels["train"]
    test = digits.splits["test"], digits.labels["test"]
    brief = replace(QUICK, epochs=6)
    real = accuracy_score(images, labels, *test, 10, seed=1, device="cpu", settings=brief)
    assert real.top1 > 0.95
    assert real.n == 450
    wrong = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    chance = accuracy_score(images, wrong, *test, 10, seed=1, device="cpu", settings=brief)
    assert chance.top1 < 0.25


def test_resnet50_is_for_large_images_in_colour():
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = resnet50((3, 256, 256), 1000)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    for shape in ((3, 32, 32), (1, 256, 256)):
        with pytest.raises(DeclarationError, match="takes colour images of at least 128x128"):
            resnet50(shape, 10)


def test_any_network_of_logits_can_be_trained():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).float()
    x = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0)).float()
    labels = (x[:, 0, 1:3, 1:3].mean((1, 2)) > 0.5).long()
    fit(model, x, labels, replace(QUICK, epochs=40, shift=0), seed=0, device="cpu")
    assert accuracy(class_probabilities(model, x), labels).top1 > 0.9


# ----------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("block", [3, 7, 100])
def test_neighbours_are_those_of_all_distances(block, generator):
    queries = torch.randn(10, 5, generator=generator)
    references = torch.randn(23, 5, generator=generator)
    gaps = np.linalg.norm(queries[:, None].numpy() - references[None].numpy(), axis=2)
    found = nearest(queries, references, 4, block=block)
    assert np.array_equal(found.indices.numpy(), gaps.argsort(1)[:, :4])
    np.testing.assert_allclose(found.distances.numpy(), np.sort(gaps, 1)[:, :4], rtol=1e-12)


def test_a_copy_is_at_distance_zero(generator):
    references = (1000 + torch.rand(40, 64, generator=generator)).float()
    found = nearest(references[5:9], references, 1, block=16)
    assert found.indices[:, 0].tolist() == [5, 6, 7, 8]
    assert (found.distances == 0).all()


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(DeclarationError, match="asks for 3 of 2 training images"):
        nearest(torch.rand(1, 4), torch.rand(2, 4), 3)


def test_it_learns_where_gradients_are_off():
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
    with torch.no_grad():
        model = train_classifier(images, labels, 2, QUICK, seed=0, device="cpu")
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_reference_does_not_depend_on_the_number_of_threads(few, tmp_path):
    hashes, before = set(), torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        hashes.add(reference_classifier(few, tmp_path / str(threads), "cpu")[1])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert len(hashes) == 1


def test_training_that_is_stopped_and_gone_on_with_gives_the_same_weights(tmp_path):
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 1, 8, 8), generator=noise, dtype=torch.uint8)
    labels = torch.arange(40) % 3
    settings = module.ClassifierSettings((4, 8), epochs=3, batch_size=8, shift=1, flip=True)

    def trained(journal, stop):
        with StopAfter(stop).active(), journal.active():
            return train_classifier(images, labels, 3, settings, seed=0, device="cpu")

    whole = weights_hash(trained(Journal(tmp_path / "whole", "a"), 1000))
    for stop in (4, 6):  # in the first epoch and in the second
        with pytest.raises(Interrupted):
            trained(Journal(tmp_path / "stopped", "a"), stop)
    assert weights_hash(trained(Journal(tmp_path / "stopped", "a"), 1000)) == whole
