"""The transformer over codes: causal, normalised, and the same with and without its cache."""

import itertools
import math

import pytest
import torch
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasCodePrior, HasLogProb
from dgm_bench.models.codes.packing import pack, packed_size
from dgm_bench.models.codes.priors.attention import Block, CausalTransformer
from dgm_bench.models.codes.priors.code_transformer import PADDING, CodeTransformer
from dgm_bench.spec import ModelSpec

SMALL = {"width": 8, "depth": 2, "heads": 2}
CAPTIONS = ["a", "ab", "zwölf"]
PREFIXES = {
    "none": {},
    "class": {"classes": 3, "prefix": "class"},
    "text": {"classes": 3, "prefix": "text", "captions": CAPTIONS},
}
EACH_PREFIX = pytest.mark.parametrize("prefix", list(PREFIXES))


def new(prefix="none", grids=((2, 2),), level=0, codes=3, **args):
    """A model away from its initial weights, under which all codes are about equally likely."""
    args = {"grids": grids, "level": level, "codes": codes, **SMALL, **PREFIXES[prefix], **args}
    model = CodeTransformer((packed_size(grids),), **args)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def rows(model, n, codes=3):
    levels = [torch.randint(codes, (n, *grid)) for grid in model.grids]
    return pack(levels, torch.arange(n) % (model.classes or 1)).to(torch.int16)


# ------------------------------------------------------------------------------- the density


@EACH_PREFIX
@pytest.mark.parametrize("label", [0, 2])
def test_probabilities_of_all_codes_sum_to_one(prefix, label):
    model = new(prefix)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(81, 2, 2)
    labels = torch.full((81,), label if model.classes else 0)
    log_prob = model.log_prob(pack([every], labels))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_prob.std() > 0.5


def test_lower_level_is_normalised_whatever_is_above():
    model = new("class", grids=((1, 1), (2, 2)), level=1)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(81, 2, 2)
    found = []
    for top in range(3):
        x = pack([torch.full((81, 1, 1), top), every], torch.ones(81, dtype=torch.int64))
        found.append(model.log_prob(x))
        assert found[-1].exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert (found[0] - found[1]).abs().min() > 1e-6


def test_codes_of_lower_levels_do_not_count():
    model = new(grids=((2, 2), (4, 4)), level=0)
    x = rows(model, 5)
    other = x.clone()
    other[:, 4:-1] = (other[:, 4:-1] + 1) % 3
    assert torch.equal(model.log_prob(x), model.log_prob(other))


def test_causal_by_autograd():
    model = CausalTransformer(8, 2, 2).eval()
    x = torch.randn(2, 5, 8, requires_grad=True)
    for token in range(5):
        (gradient,) = torch.autograd.grad(model(x)[:, token].square().sum(), x)
        reached = gradient.abs().sum((0, 2)) > 0
        assert reached.tolist() == [place <= token for place in range(5)]


@EACH_PREFIX
def test_each_code_depends_on_those_before_it_alone(prefix):
    """Probabilities of the codes before a place, summed out of the joint one, do not change."""
    model = new(prefix)
    codes, tokens = torch.tensor([[[0, 1], [2, 0]]]), model.prefix_tokens(torch.tensor([1]))
    for place in range(4):
        tails = list(itertools.product(range(3), repeat=4 - place))
        every = codes.reshape(1, 4).repeat(len(tails), 1)
        every[:, place:] = torch.tensor(tails)
        joint = model.log_prob_given(every.reshape(-1, 2, 2), tokens.expand(len(tails), -1))
        known = math.prod(
            math.exp(_conditional(model, codes.reshape(4), tokens, earlier))
            for earlier in range(place)
        )
        assert joint.exp().sum().item() == pytest.approx(known, rel=1e-10)


def _conditional(model, codes, tokens, place):
    """Log probability of one code from the network run on the codes before it alone."""
    stream = torch.cat([model._stream(tokens, ()), model.embed(codes[None, :place])], 1)
    logits = model.logits(model.transformer(stream)[0, -1])
    return logits.log_softmax(0)[codes[place]].item()


@EACH_PREFIX
def test_examples_do_not_know_each_other(prefix):
    model = new(prefix, grids=((1, 2), (3, 2)), level=1)
    x = rows(model, 6)
    one_by_one = torch.cat([model.log_prob(row[None]) for row in x])
    torch.testing.assert_close(model.log_prob(x), one_by_one, rtol=1e-12, atol=1e-12)


@EACH_PREFIX
def test_gradients_reach_every_parameter(prefix):
    model = new(prefix, grids=((2, 2), (2, 3)), level=1)
    model.log_prob(rows(model, 9)).sum().backward()
    still = [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    assert still == []


# --------------------------------------------------------------------------------- the prefix


@pytest.mark.parametrize("prefix", ["class", "text"])
def test_class_matters(prefix):
    model = new(prefix)
    codes = torch.randint(3, (1, 2, 2)).expand(3, 2, 2)
    found = model.log_prob(pack([codes], torch.arange(3)))
    assert (found[:, None] - found).abs().add(torch.eye(3)).min() > 1e-6


def test_text_given_directly_is_its_class():
    model = new("text")
    x = rows(model, 3)
    codes = x[:, :4].long().reshape(3, 2, 2)
    found = model.log_prob_given(codes, model.text_tokens(CAPTIONS))
    assert torch.equal(found, model.log_prob(x))


def test_text_that_is_no_caption():
    model, codes = new("text"), torch.randint(3, (4, 2, 2))
    texts = ["b", "ba", "ab", "zwei"]
    found = model.log_prob_given(codes[:1].expand(4, -1, -1), model.text_tokens(texts))
    assert len({round(value, 9) for value in found.tolist()}) == 4


def test_captions_are_bytes_with_padding_after_them():
    tokens = new("text").prefix_tokens(torch.tensor([1, 2]))
    assert tokens.tolist() == [[97, 98] + [PADDING] * 4, [122, 119, 195, 182, 108, 102]]


def test_padding_is_learned_for_each_place_and_is_no_byte():
    model = new("text")
    x = rows(model, 3)
    before = model.log_prob(x)
    model.prefix.padding.weight.data[1] += torch.randn(
        8
    )  # a place that only the first caption lacks
    after = model.log_prob(x)
    assert (after == before).tolist() == [False, True, True]
    model.prefix.byte.weight.data[255] += torch.randn(8)  # a byte that no text in UTF-8 has
    assert torch.equal(model.log_prob(x), after)


# ----------------------------------------------------------------------------------- sampling


@EACH_PREFIX
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cache_changes_no_code(prefix, dtype):
    model = new(prefix, grids=((2, 2), (6, 5)), level=1, codes=7).to(dtype)
    labels = torch.arange(8) % 3
    above = [torch.randint(7, (8, 2, 2))]
    fast = model.sample_codes(above, labels, torch.Generator().manual_seed(3))
    slow = model.sample_codes_uncached(above, labels, torch.Generator().manual_seed(3))
    assert fast.shape == (8, 6, 5)
    assert fast.dtype == torch.int64
    assert torch.equal(fast, slow)
    other = model.sample_codes(above, labels, torch.Generator().manual_seed(4))
    assert not torch.equal(fast, other)


def test_samples_have_the_probabilities_of_the_density(generator):
    model, n = new("class", grids=((1, 2),)), 20_000
    codes = model.sample_codes([], torch.full((n,), 2), generator).reshape(n, 2)
    counts = torch.bincount(codes[:, 0] * 3 + codes[:, 1], minlength=9)
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 2)
    expected = n * model.log_prob(pack([every], torch.full((9,), 2))).exp()
    chi_square = ((counts - expected).square() / expected).sum()
    assert chi_square < 31.8  # exceeded once in 10,000 with 8 degrees of freedom


def test_sampling_with_free_text(generator):
    model = new("text")
    codes = model.sample_codes_given(model.text_tokens(["abba", "b"]), [], generator)
    assert codes.shape == (2, 2, 2)


# ------------------------------------------------------------------------- learning, and the rest


def test_learns_nearly_to_the_entropy():
    """Codes of which each but the first repeats the one before it with probability 0.9."""
    model = CodeTransformer(
        (10,), grids=[(3, 3)], level=0, codes=2, width=16, depth=1, heads=2
    ).float()
    entropy = math.log(2) - 8 * (0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(250):
        loss = -model.log_prob(_chains(256)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        held_out = -model.log_prob(_chains(20_000)).mean().item()
    assert entropy - 0.05 < held_out < entropy + 0.1


def _chains(n):
    changes = torch.rand(n, 9) < 0.1
    changes[:, 0] = torch.rand(n) < 0.5
    return pack([(changes.cumsum(1) % 2).reshape(n, 3, 3)], torch.zeros(n, dtype=torch.int64))


def test_starts_near_the_uniform_distribution():
    grids = [(4, 4)]
    args = {"grids": grids, "level": 0, "codes": 8, "width": 32, "depth": 4, "heads": 4}
    model = build(ModelSpec(name="code_transformer:CodeTransformer", args=args), (17,))
    log_prob = model.log_prob(rows(model, 20, codes=8))
    torch.testing.assert_close(
        log_prob, torch.full((20,), -16 * math.log(8)), rtol=0.05, atol=0, check_dtype=False
    )
    assert isinstance(model, HasCodePrior)
    assert isinstance(model, HasLogProb)


def test_weights_that_write_into_the_sum_begin_smaller():
    model = CausalTransformer(64, 8, 4)
    for block in model.blocks:
        assert isinstance(block, Block)
        assert block.expand.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for written in (block.contract, block.attention.outward):
            assert written.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
            assert not written.bias.any()


def test_dropout_is_for_training_alone():
    model = new("class", dropout=0.5)
    x = rows(model, 3)
    assert torch.equal(model.log_prob(x), model.log_prob(x))
    model.train()
    assert not torch.equal(model.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"prefix": "text", "classes": 3}, "needs captions"),
        ({"prefix": "text", "classes": 3, "captions": ["a", "b"]}, "2 captions .* 3 classes"),
        ({"prefix": "text", "classes": 2, "captions": ["a", ""]}, "1 captions .* 2 classes"),
        ({"prefix": "class", "classes": 2, "captions": ["a", "b"]}, "others take none"),
        ({"prefix": "class"}, "need the number of classes"),
        ({"classes": 3}, "'none' is for classes=None"),
        ({"heads": 3}, "multiple of the number of heads"),
        ({"heads": 0}, "multiple of the number of heads"),
    ],
)
def test_arguments_that_do_not_go_together(args, words):
    with pytest.raises(DeclarationError, match=words):
        CodeTransformer((5,), **{"grids": [(2, 2)], "level": 0, "codes": 3, **SMALL, **args})


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"level": 1}, "level 1: is not among"),
        ({"grids": [(3, 3)]}, "use rows of 10"),
        ({"codes": [3, 3]}, "not one for each of 1 grids"),
    ],
)
def test_levels_that_do_not_fit(args, told):
    with pytest.raises(DeclarationError, match=told):
        CodeTransformer((5,), **{"grids": [(2, 2)], "level": 0, "codes": 3, **SMALL, **args})


def test_each_level_may_have_its_own_number_of_codes(generator):
    model = new(grids=((1, 2), (2, 3)), level=1, codes=[5, 3])
    above = torch.tensor([[[4, 0]]]).expand(100, -1, -1)
    labels = torch.zeros(100, dtype=torch.int64)
    codes = model.sample_codes([above], labels, generator)
    assert codes.unique().tolist() == [0, 1, 2]
    assert model.log_prob(pack([above, codes], labels)).isfinite().all()


def test_prefix_that_does_not_fit():
    model, codes = new("text"), torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(DeclarationError, match="7 bytes: is longer than the 6 bytes"):
        model.text_tokens(["dreizig"])
    with pytest.raises(DeclarationError, match=r"2 prefix tokens .* takes 6 and 0"):
        model.log_prob_given(codes, torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(DeclarationError, match="1 levels above"):
        model.log_prob_given(codes, model.text_tokens(["a"]), [codes])
    with pytest.raises(DeclarationError, match="longer than the 0 bytes"):
        new("class").text_tokens(["a"])
