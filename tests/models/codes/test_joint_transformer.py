"""Text and image by one transformer: normalised, causal, the same with its cache and stored."""

import itertools

import pytest
import torch
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import HasCodePrior, HasLogProb
from dgm_bench.models.codes.packing import pack
from dgm_bench.models.codes.priors.joint_transformer import JointTransformer
from dgm_bench.models.whole_batch import Slice, sharing
from dgm_bench.spec import ObjectiveSpec
from dgm_bench.train.objectives import build_objective

CAPTIONS = ["a", "b", "a b", "b a"]
SMALL = {
    "grids": [[2, 2]],
    "codes": 3,
    "captions": CAPTIONS,
    "known": 4,
    "vocabulary": 7,
    "text_length": 3,
    "bpe_dropout": 0.0,
    "attention": "sparse",
    "kernel": 3,
    "width": 8,
    "depth": 3,
    "heads": 2,
    "dropout": 0.0,
}
EACH_ATTENTION = pytest.mark.parametrize("attention", ["sparse", "dense"])


def new(**args):
    """A model away from its initial weights, under which all tokens are about equally likely."""
    args = {**SMALL, **args}
    rows, columns = args["grids"][0]
    model = JointTransformer((rows * columns + 1,), **args)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def rows(model, n):
    codes = torch.randint(model.codebook_sizes[0], (n, *model.grids[0]))
    return pack([codes], torch.arange(n) % model.classes).to(torch.int16)


def every_text(model, length):
    """All texts: tokens, then padding alone."""
    texts = []
    for n in range(length + 1):
        for tokens in itertools.product(range(model.padding), repeat=n):
            texts.append([*tokens, *[model.padding] * (length - n)])
    return torch.tensor(texts)


# ------------------------------------------------------------------------------- the density


@EACH_ATTENTION
def test_probabilities_of_all_texts_and_grids_sum_to_one(attention):
    model = new(attention=attention, text_length=2, grids=[[1, 2]], captions=["a", "b"], known=2)
    texts = every_text(model, 2)
    grids = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 2)
    of_texts = model.log_prob_of_text(texts)
    assert of_texts.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert of_texts.std() > 0.3
    given = torch.stack([model.log_prob_given(g.expand(len(texts), 1, 2), texts) for g in grids])
    torch.testing.assert_close(given.exp().sum(0), torch.ones(len(texts)), rtol=0, atol=1e-12)
    assert (of_texts + given).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_terms_are_those_of_the_parts(generator):
    model = new()
    x = rows(model, 8)
    of_text, tokens, of_codes = model.terms(x, generator)
    text = model.caption_tokens(x[:, -1].long())
    torch.testing.assert_close(of_text, model.log_prob_of_text(text), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(of_codes, model.log_prob(x), rtol=1e-12, atol=1e-12)
    written = (text != model.padding).sum(1)
    assert torch.equal(tokens, (written + 1).clamp(max=3))


@EACH_ATTENTION
def test_codes_and_text_depend_on_what_is_before_them_alone(attention):
    """By autograd from each prediction to each embedded token."""
    model = new(attention=attention)
    text, codes = model.caption_tokens(torch.tensor([2])), torch.tensor([[[0, 2], [1, 1]]])
    image = model.embed(codes.flatten(1)[:, :-1])
    stream = torch.cat([model._with_start_of_image(text), image], 1).detach().requires_grad_()
    features = model._run(stream)
    for token in range(stream.shape[1]):
        (gradient,) = torch.autograd.grad(features[0, token].sum(), stream, retain_graph=True)
        reached = (gradient.abs().sum((0, 2)) > 0).nonzero()[:, 0].tolist()
        assert max(reached) == token
        # All of the text, both starts among it.
        assert reached[: min(token + 1, 5)] == list(range(min(token + 1, 5)))


def test_text_knows_nothing_of_the_image(generator):
    model = new()
    x = rows(model, 4)
    other = x.clone()
    other[:, :-1] = (other[:, :-1] + 1) % 3
    assert torch.equal(model.terms(x, generator)[0], model.terms(other, generator)[0])


def test_caption_matters_and_padding_is_of_its_place():
    model = new()
    codes = torch.randint(3, (1, 2, 2)).expand(4, 2, 2)
    before = model.log_prob(pack([codes], torch.arange(4)))
    assert (before[:, None] - before).abs().add(torch.eye(4)).min() > 1e-6
    model.text.padding.weight.data[1] += torch.randn(8)  # where texts of one token have ended
    after = model.log_prob(pack([codes], torch.arange(4)))
    written = (model.caption_tokens(torch.arange(4)) != model.padding).sum(1)
    assert torch.equal(after == before, written > 1)


def test_sparse_attention_is_another_function_of_the_same_weights():
    sparse, dense = new(), new(attention="dense")
    dense.load_state_dict(sparse.state_dict())
    x = rows(sparse, 4)
    assert not torch.allclose(sparse.log_prob(x), dense.log_prob(x))
    assert sparse.patterns == ["row", "column", "convolutional"]


def test_stored_weights_give_the_same_numbers(tmp_path):
    model, other = new(bpe_dropout=0.5), new(bpe_dropout=0.5)
    torch.save(model.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights"))
    x = rows(model, 4)
    assert torch.equal(model.log_prob(x), other.log_prob(x))
    assert not {"masks", "segmentations"} & set(model.state_dict())


def test_it_is_a_prior_of_codes_given_a_caption():
    assert isinstance(new(), HasCodePrior)
    assert isinstance(new(), HasLogProb)


# ----------------------------------------------------------------------------------- sampling


@EACH_ATTENTION
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cache_changes_no_code(attention, dtype):
    model = new(attention=attention, grids=[[4, 5]], codes=7).to(dtype)
    captions = torch.arange(8) % 4
    fast = model.sample_codes([], captions, torch.Generator().manual_seed(3))
    text = model.caption_tokens(captions)
    slow = model.sample_codes_uncached(text, torch.Generator().manual_seed(3))
    assert fast.shape == (8, 4, 5)
    assert torch.equal(fast, slow)


def test_samples_have_the_probabilities_of_the_density(generator):
    model, n = new(grids=[[1, 2]]), 20_000
    codes = model.sample_codes([], torch.full((n,), 2), generator).reshape(n, 2)
    counts = torch.bincount(codes[:, 0] * 3 + codes[:, 1], minlength=9)
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 2)
    expected = n * model.log_prob(pack([every], torch.full((9,), 2))).exp()
    assert ((counts - expected).square() / expected).sum() < 31.8  # once in 10,000


def test_texts_that_are_no_captions():
    model = new()
    assert torch.equal(model.text_tokens(CAPTIONS), model.caption_tokens(torch.arange(4)))
    assert torch.equal(model.text_tokens(["A B"]), model.text_tokens(["a b"]))
    assert model.text_tokens(["?"]).tolist()[0][-1] == model.padding
    with pytest.raises(DeclarationError, match=r"the text 'b b b b b': has . tokens"):
        model.text_tokens(["b b b b b"])


# ------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("weight", [1 / 8, 0.0, 1.0])
def test_loss_is_the_papers(weight, generator):
    model = new()
    x = rows(model, 6)
    loss = build_objective(ObjectiveSpec(name="text-and-image", args={"text_weight": weight}))
    text = [-model.log_prob_of_text(model.text_tokens([CAPTIONS[k]])).item() for k in x[:, -1]]
    tokens = [min(len(model.pairs.encode(CAPTIONS[k])) + 1, 3) for k in x[:, -1]]
    image = -model.log_prob(x).sum().item() / (6 * 4)
    found = loss(model, x, 0, generator).total.item()
    expected = weight * sum(text) / sum(tokens) + (1 - weight) * image
    assert found == pytest.approx(expected, rel=1e-12)


def test_gradients_reach_every_parameter(generator):
    model = new().train()
    build_objective(ObjectiveSpec(name="text-and-image"))(
        model, rows(model, 12), 0, generator
    ).total.backward()
    still = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


def test_no_weight_leaves_the_text_untrained(generator):
    model = new().train()
    x = rows(model, 6)
    loss = build_objective(ObjectiveSpec(name="text-and-image", args={"text_weight": 0.0}))
    loss(model, x, 0, generator).total.backward()
    assert not model.text_logits.weight.grad.any()
    assert model.text.byte.weight.grad.any()


def test_dropout_of_merges_is_for_training_alone(generator):
    model = new(bpe_dropout=0.9, text_length=5)
    x = rows(model, 4)
    assert torch.equal(model.terms(x, generator)[1], model.terms(x, generator)[1])
    model.train()
    lengths = torch.stack([model.terms(x, generator)[1] for _ in range(20)])
    assert (lengths.double().std(0) > 0).any()
    pieces = {model.pairs.decode([n for n in row if n < 7]) for row in _drawn(model, generator)}
    assert pieces == set(CAPTIONS)


def _drawn(model, generator):
    return model._drawn_tokens(torch.arange(4).repeat(9), generator).tolist()


def test_a_weight_that_is_no_share():
    with pytest.raises(DeclarationError, match="is no share"):
        build_objective(ObjectiveSpec(name="text-and-image", args={"text_weight": 1.5}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"kernel": 2}, "has no middle"),
        ({"known": 5}, "no texts to learn from"),
        ({"captions": ["a", ""], "known": 1}, "no texts to learn from"),
        ({"heads": 3}, "multiple of the number of heads"),
        ({"vocabulary": 2}, "too small"),
        ({"text_length": 1}, "has places for 1"),
    ],
)
def test_arguments_that_do_not_go_together(args, words):
    with pytest.raises(DeclarationError, match=words):
        JointTransformer((5,), **{**SMALL, **args})


def test_a_divided_batch_has_the_loss_of_the_whole(generator):
    """Each slice knows the tokens of all: the text's part is by the whole batch's number."""
    model, loss = new(), build_objective(ObjectiveSpec(name="text-and-image"))
    x = rows(model, 7)
    whole = loss(model, x, 0, generator).total.item()
    sums = []
    tokens = model.terms(x, generator)[1].sum()

    def add_up(own):
        own.copy_(tokens.to(own))

    parts = [Slice(number, 2, 7, add_up) for number in range(2)]
    for part in parts:
        with sharing(part):
            own = loss(model, x[part.start : part.stop], 0, generator)
            sums.append(part.share * own.total.item())
    assert sum(sums) == pytest.approx(whole, rel=1e-12)
