"""Masked products by blocks, and networks of sorted units, against the dense ones."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from dgm_bench.models.flows.layers import masked
from dgm_bench.models.flows.layers.masked import MaskedNetwork, input_degrees
from dgm_bench.models.flows.layers.staircase import blocks_of, masked_product
from dgm_bench.models.flows.made import MixtureMADE
from dgm_bench.models.flows.maf import MAF
from dgm_bench.spec import OptimizerSpec
from dgm_bench.train.optimizers import build_optimizer


@pytest.fixture
def always_sorted(monkeypatch):
    def switch(on=True):
        monkeypatch.setattr(masked, "FEWEST_UNITS", 0 if on else 10**9)

    switch()
    return switch


def both(always_sorted, build):
    """The same model, of the same draws, with sorted units and without."""
    models = []
    for on in (True, False):
        always_sorted(on)
        torch.manual_seed(3)
        models.append(build())
    return models


MASKS = {
    "staircase": torch.arange(17)[:, None] // 2 >= torch.arange(11),
    "descending": torch.arange(17)[:, None] // 2 >= torch.arange(11).flip(0),
    "none": torch.zeros(5, 4, dtype=torch.bool),
    "all": torch.ones(5, 4, dtype=torch.bool),
    "scattered": torch.rand(16, 9, generator=torch.Generator().manual_seed(0)) > 0.6,
    "middle": (torch.arange(9) > 2) & (torch.arange(9) < 6) & (torch.arange(8)[:, None] > 0),
}


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("mask", MASKS)
def test_blocks_equal_the_dense_product(mask, count):
    mask = MASKS[mask].double()
    shapes = (7, mask.shape[1]), mask.shape, (len(mask),)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    x, weight, bias = inputs
    products = (
        masked_product(x, weight, bias, mask, blocks_of(mask > 0, count)),
        F.linear(x, weight * mask, bias),
    )
    torch.testing.assert_close(*products, rtol=1e-12, atol=1e-12)
    found, expected = (
        torch.autograd.grad((y**2).sum(), inputs, retain_graph=True) for y in products
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found[1][mask == 0] == 0).all()
    curved = (torch.autograd.grad((y**3).sum(), x, create_graph=True)[0] for y in products)
    found, expected = (torch.autograd.grad(g.square().sum(), inputs) for g in curved)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_blocks_of_a_staircase_leave_out_what_is_masked():
    mask = torch.ones(64, 64, dtype=torch.bool).tril()
    blocks = blocks_of(mask, 8)
    assert [(b.seen.stop - b.seen.start) for b in blocks] == list(range(8, 72, 8))
    assert [(b.edge.stop - b.edge.start) for b in blocks] == 8 * [7]


def test_only_gradients_that_are_asked_for():
    mask = MASKS["staircase"].double()
    x, weight = torch.randn(3, 11), torch.randn(17, 11, requires_grad=True)
    y = masked_product(x, weight, torch.zeros(17), mask, blocks_of(mask > 0, 3))
    y.sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0) * mask)


def new_maf(degrees="sequential"):
    return MAF((5,), 2, (12, 9), degrees=degrees, components=2)


@pytest.mark.parametrize("degrees", ["sequential", "random"])
def test_a_sorted_model_starts_and_trains_as_the_dense_one(degrees, always_sorted):
    """Its state dicts are the dense one's, those of masked and decayed weights too."""
    models = both(always_sorted, lambda: new_maf(degrees))
    assert models[0].layers[0].network[0].blocks
    assert not models[1].layers[0].network[0].blocks
    start, dense = (model.state_dict() for model in models)
    assert list(start) == list(dense)
    assert all(torch.equal(start[name], dense[name]) for name in dense)
    x = torch.randn(30, 5)
    for model in models:
        spec = OptimizerSpec(name="adam-maf", lr=0.01, weight_decay=0.1)
        optimizer = build_optimizer(spec, model)
        for _ in range(4):
            optimizer.zero_grad()
            (-model.log_prob(x).mean()).backward()
            optimizer.step()
    ends = [model.state_dict() for model in models]
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)
    noise = (torch.Generator().manual_seed(1) for _ in models)
    samples = [model.eval().sample(6, g) for model, g in zip(models, noise, strict=True)]
    torch.testing.assert_close(*samples, rtol=1e-9, atol=1e-9)


def test_state_dicts_go_between_sorted_and_dense(always_sorted):
    """Masks of another draw come with the weights, and are those that count."""
    *kept, loaded = (*both(always_sorted, lambda: new_maf("random")), new_maf("random"))
    x = torch.randn(4, 5)
    for one in kept:
        for parameter in one.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    always_sorted()
    for source in (*kept, copy.deepcopy(kept[0])):
        target = new_maf("random")
        assert not torch.equal(target.state_dict()["layers.0.network.0.mask"],
                               source.state_dict()["layers.0.network.0.mask"])  # fmt: skip
        for model in (target, loaded):
            model.load_state_dict(source.state_dict())
            torch.testing.assert_close(model.log_prob(x), source.log_prob(x))
            again = model.state_dict()
            assert all(torch.equal(again[name], v) for name, v in source.state_dict().items())


def test_a_state_dict_of_another_shape_is_refused(always_sorted):
    with pytest.raises(RuntimeError, match="size mismatch"):
        new_maf().load_state_dict(MAF((5,), 2, (9, 9), components=2).state_dict())


def test_biases_are_drawn_in_the_order_of_the_state_dict(always_sorted):
    one, other = both(always_sorted, lambda: MixtureMADE(4, [12], 3).network.last)
    assert not torch.equal(one.bias, other.bias)
    assert torch.equal(one.state_dict()["bias"], other.state_dict()["bias"])


def test_transforms_and_mixed_precision_take_the_dense_product(always_sorted):
    network = MaskedNetwork(input_degrees(4), [12], 1).float()
    x = torch.randn(2, 4, dtype=torch.float32)
    exact = torch.autograd.functional.jacobian(lambda x: network(x).sum(0), x)
    torch.testing.assert_close(torch.func.jacrev(lambda x: network(x).sum(0))(x), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x).dtype == torch.bfloat16
