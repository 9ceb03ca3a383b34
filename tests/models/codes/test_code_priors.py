"""What the convolutional priors of codes owe alike: PixelCNN, PixelCNN++ and PixelSNAIL."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.build import build
from dgm_bench.models.capabilities import HasCodePrior
from dgm_bench.models.codes.packing import pack, packed_size, unpack
from dgm_bench.models.codes.priors.weight_norm import WeightNormed
from dgm_bench.spec import ModelSpec

NETWORKS = {
    "pixelcnn": ("pixelcnn:PixelCNN", {"layers": 2, "output_layers": 1}),
    "pixelcnnpp": ("pixelcnnpp:PixelCNNPP", {"blocks": 1, "scales": 2, "dropout": 0.0}),
    "pixelsnail": (
        "pixelsnail:PixelSNAIL",
        {"layers": 3, "attention_layers": 2, "heads": 2, "head_width": 4, "output_layers": 1},
    ),
}
#: PixelCNN++ has kernels and widths of its own, here two scales, the coarser with odd sides, too.
ONLY_WIDTH = {"pixelcnnpp"}
SMALL = {"hidden": 8, "residual": 6, "kernel": 3}
#: Grids, level, numbers of codes, classes.
PLACES = {
    "top": (((2, 2),), 0, 3, None),
    "top-of-class": (((2, 2), (4, 4)), 0, 3, 2),
    "bottom": (((1, 1), (2, 2)), 1, [4, 3], None),
    "bottom-of-class": (((1, 2), (2, 2)), 1, [4, 3], 2),
}
LARGER = {
    "top": (((5, 6),), 0, 7, None),
    "top-of-class": (((5, 6), (10, 12)), 0, [7, 4], 3),
    "bottom": (((3, 2), (6, 4)), 1, [5, 7], None),
    "bottom-of-class": (((3, 2), (6, 4)), 1, [5, 7], 3),
    "third": (((2, 1), (2, 3), (6, 6)), 2, 7, 3),
    "one-column": (((4, 1),), 0, 7, None),
}

every_network = pytest.mark.parametrize("name", NETWORKS)
every_place = pytest.mark.parametrize("place", PLACES)
every_larger_place = pytest.mark.parametrize("place", LARGER)


def arguments(name, args):
    """Those that a network has."""
    unknown = ("residual", "kernel") if name in ONLY_WIDTH else ()
    return {key: value for key, value in args.items() if key not in unknown}


def new(name, place, **args):
    grids, level, codes, classes = place
    module, own = NETWORKS[name]
    where = {"grids": grids, "level": level, "codes": codes, "classes": classes}
    below = {"conditioning_layers": 1} if level else {}
    spec = ModelSpec(name=module, args=arguments(name, {**own, **SMALL, **where, **below, **args}))
    model = build(spec, (packed_size(grids),))
    for layer in model.modules():
        if isinstance(layer, WeightNormed):  # which begins with branches and logits near zero
            nn.init.constant_(layer.length, 1.0)
            nn.init.normal_(layer.bias)
    return model


def sizes_of(place):
    grids, _, codes, _ = place
    return [codes] * len(grids) if isinstance(codes, int) else codes


def rows(place, n):
    """Random codes of all levels and classes, packed."""
    grids, _, _, classes = place
    sizes = sizes_of(place)
    codes = [torch.randint(k, (n, *g)) for k, g in zip(sizes, grids, strict=True)]
    return pack(codes, torch.randint(classes or 1, (n,))).short()


def all_outcomes(place, row):
    """``row`` with every possible grid of codes at the level."""
    grids, level, _, _ = place
    grid, k = grids[level], sizes_of(place)[level]
    every = torch.tensor(list(itertools.product(range(k), repeat=math.prod(grid))))
    levels, labels = unpack(row.expand(len(every), -1), grids)
    levels[level] = every.unflatten(1, grid)
    return pack(levels, labels)


@every_network
@every_place
def test_probabilities_sum_to_one(name, place):
    model = new(name, PLACES[place]).eval()
    assert isinstance(model, HasCodePrior)
    for row in rows(PLACES[place], 3):
        log_prob = model.log_prob(all_outcomes(PLACES[place], row))
        assert log_prob.shape == (81,)
        assert abs(log_prob.exp().sum().item() - 1) < 1e-12
        assert log_prob.exp().std() > 1e-4


@every_network
def test_class_and_levels_above_matter(name):
    model, place = new(name, PLACES["bottom-of-class"]), PLACES["bottom-of-class"]
    row = rows(place, 1)
    changed = row.repeat(4, 1)
    changed[1, 0] = (row[0, 0] + 1) % 4
    changed[2, 1] = (row[0, 1] + 1) % 4
    changed[3, -1] = 1 - row[0, -1]
    assert len(model.log_prob(changed).unique()) == 4


@every_network
def test_log_prob_is_the_sum_over_positions(name):
    place = LARGER["bottom-of-class"]
    model, x = new(name, place), rows(place, 3)
    levels, labels = unpack(x, place[0])
    logits = model.logits(levels[1], model.context(levels[:1], labels))
    log_probs = logits.log_softmax(-1)
    expected = [
        sum(log_probs[i, r, c, levels[1][i, r, c]] for r in range(6) for c in range(4))
        for i in range(3)
    ]
    torch.testing.assert_close(model.log_prob(x), torch.stack(expected))


@every_network
@every_larger_place
def test_examples_do_not_touch_each_other(name, place):
    model, x = new(name, LARGER[place]), rows(LARGER[place], 4)
    alone = torch.cat([model.log_prob(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model.log_prob(x), alone, rtol=0, atol=1e-10)


@every_network
@every_larger_place
def test_cached_networks_give_the_logits_of_the_whole_network(name, place):
    """Each step before the code at its position is taken in."""
    grids, level, _, _ = LARGER[place]
    model = new(name, LARGER[place], kernel=5).eval()
    levels, labels = unpack(rows(LARGER[place], 3), grids)
    codes, context = levels[level], model.context(levels[:level], labels)
    with torch.no_grad():
        expected, cached = model.logits(codes, context), model.cached(3, context)
        for row in range(grids[level][0]):
            cached.begin_row(row)
            for column in range(grids[level][1]):
                logits = cached.logits(column)
                torch.testing.assert_close(logits, expected[:, row, column], rtol=0, atol=1e-12)
                cached.feed(codes[:, row, column], column)


@every_network
@every_larger_place
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("unchecked")  # numbers alone, and long
def test_fast_sampling_gives_what_slow_sampling_gives(name, place, dtype):
    grids, level, _, _ = LARGER[place]
    model = new(name, LARGER[place], dropout=0.5).to(dtype)
    levels, labels = unpack(rows(LARGER[place], 6), grids)
    fast, slow = (
        draw(levels[:level], labels, torch.Generator().manual_seed(4))
        for draw in (model.sample_codes, model.sample_codes_uncached)
    )
    assert fast.shape == (6, *grids[level])
    assert torch.equal(fast, slow)
    assert model.training
    other = model.sample_codes(levels[:level], labels, torch.Generator().manual_seed(5))
    assert not torch.equal(fast, other)


@every_network
@every_place
def test_samples_follow_the_probabilities(name, place):
    grids, level, _, _ = PLACES[place]
    model, row = new(name, PLACES[place]).eval(), rows(PLACES[place], 1)
    n, every = 20_000, all_outcomes(PLACES[place], row)
    levels, labels = unpack(row.expand(n, -1), grids)
    codes = model.sample_codes(levels[:level], labels, torch.Generator().manual_seed(2))
    number = (codes.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    observed = torch.bincount(number, minlength=81)
    expected = n * model.log_prob(every).detach().exp()
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert stats.chisquare(observed, torch.full((81,), n / 81)).pvalue < 1e-9


@every_network
@pytest.mark.parametrize("place", [place for place in LARGER if place != "one-column"])
def test_gradients_reach_every_parameter(name, place):
    model = new(name, LARGER[place])
    model.log_prob(rows(LARGER[place], 40)).mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_network
@every_place
def test_state_dict_holds_everything(name, place):
    model, fresh, x = new(name, PLACES[place]), new(name, PLACES[place]), rows(PLACES[place], 5)
    assert not torch.allclose(fresh.log_prob(x), model.log_prob(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


@every_network
def test_single_precision_agrees_with_double(name):
    place = LARGER["bottom-of-class"]
    model, x = new(name, place), rows(place, 5)
    expected = model.log_prob(x)
    actual = model.float().log_prob(x)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)


@every_network
def test_dropout_is_for_training_alone(name):
    place = LARGER["top"]
    model, x = new(name, place, dropout=0.5), rows(place, 5)
    assert not torch.equal(model.log_prob(x), model.log_prob(x))
    model.eval()
    assert torch.equal(model.log_prob(x), model.log_prob(x))


@every_network
@pytest.mark.parametrize(
    ("place", "args", "message"),
    [
        ("top", {"level": 1}, "level 1"),
        ("top", {"kernel": 4}, "kernel 4"),
        ("top", {"kernel": 1}, "kernel 1"),
        ("bottom", {"codes": [3]}, "not one for each"),
        ("bottom", {"grids": [[2, 1], [3, 1]]}, "not a multiple"),
        ("bottom", {"grids": [[1, 1], [2, 3]]}, "do not fit rows"),
    ],
)
def test_what_does_not_belong_together_is_refused(name, place, args, message):
    grids, level, codes, classes = PLACES[place]
    where = {"grids": grids, "level": level, "codes": codes, "classes": classes}
    module, own = NETWORKS[name]
    if name in ONLY_WIDTH and "kernel" in args:
        return  # its kernels are fixed
    spec = ModelSpec(name=module, args=arguments(name, {**own, **SMALL, **where, **args}))
    with pytest.raises(DeclarationError, match=message):
        build(spec, (6,) if place == "bottom" else (5,))


def noisy(codes, k):
    """Change a tenth of the codes to another one."""
    change = torch.rand(codes.shape) < 0.1
    return (codes + change * torch.randint(1, k, codes.shape)) % k


def nats_of_noise(k):
    return -0.9 * math.log(0.9) - 0.1 * math.log(0.1 / (k - 1))


def sums(n, k):
    """Codes that are what is left plus what is above plus the class, most of the time."""
    top, labels = torch.randint(k, (n, 2, 2)), torch.randint(2, (n,))
    base = top.repeat_interleave(2, 1).repeat_interleave(2, 2) + labels[:, None, None]
    bottom = torch.zeros(n, 4, 4, dtype=torch.long)
    for c in range(4):
        left = bottom[:, :, c - 1] if c else 0
        bottom[:, :, c] = noisy((base[:, :, c] + left) % k, k)
    return pack([top, bottom], labels).short()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ONLY_WIDTH])  # long
def test_training_comes_near_the_entropy(name):
    torch.set_default_dtype(torch.float32)
    grids, k = ((2, 2), (4, 4)), 3
    model = new(name, (grids, 1, k, 2), hidden=16, residual=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 150)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -model.log_prob(sums(64, k)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    entropy = 16 * nats_of_noise(k)
    with torch.no_grad():
        nats = -model.eval().log_prob(sums(2000, k)).mean().item()
    assert entropy - 0.15 < nats < 1.1 * entropy
