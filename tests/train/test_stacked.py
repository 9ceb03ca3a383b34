"""Losses and gradients of a batch of models are those of each; repeated operations are the same."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dgm_bench import together
from dgm_bench.catalog import load_catalog
from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec
from dgm_bench.train.objectives import negative_log_likelihood
from dgm_bench.train.stacked import StackedModels
from dgm_bench.train.traced import trace

ARGS = {
    "glow:TabularGlow": {"layers": 2, "hidden": [8]},
    "made:MADE": {"hidden": [8], "components": 2},
    "maf:MAF": {"layers": 2, "hidden": [8], "degrees": "random"},
    "naf:MAFDDSF": {"layers": 1, "hidden": [8], "activation": "elu", "sigmoid_dim": 3},
    "nice:NICE": {"layers": 2, "hidden": [8]},
    "nsf:NSFAutoregressive": {"layers": 1, "hidden": 8, "blocks": 1, "bins": 3},
    "nsf:NSFCoupling": {"layers": 2, "hidden": 8, "blocks": 1, "bins": 3},
    "realnvp:RealNVP": {"layers": 2, "hidden": [8]},
    "tan:TAN": {"groups": 1, "units": 4, "components": 2, "parameter_layers": 1},
}
pytestmark = pytest.mark.usefixtures("unchecked")  # numbers alone


def models(name, seeds=2, dim=4):
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        made.append(build(ModelSpec(name=name, args=ARGS[name]), (dim,)).train())
    return made


@pytest.mark.parametrize("name", sorted(together.MODELS))
def test_losses_and_gradients_are_those_of_each_model(name):
    """Also of another batch, of another size, after weights and masks have changed."""
    made, objective = models(name), negative_log_likelihood()
    stacked = StackedModels(made, objective)
    for size in (8, 5):
        batches = torch.randn(len(made), size, 4).unbind()
        losses, gradients = stacked.gradients(batches)
        for model, x, loss, gradient in zip(made, batches, losses, gradients, strict=True):
            own = objective(model, x, 0, torch.Generator()).total
            expected = torch.autograd.grad(own, list(model.parameters()))
            torch.testing.assert_close(loss, own.detach())
            torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in expected]))
        with torch.no_grad():
            change = 0.1 * torch.randn(stacked.vectors.shape)
            stacked.vectors += change
            for model, row in zip(made, change, strict=True):
                moved = torch.nn.utils.parameters_to_vector(model.parameters()) + row
                torch.nn.utils.vector_to_parameters(moved, model.parameters())


def test_a_buffer_that_changes_is_taken_anew():
    made = models("made:MADE")
    stacked, objective = StackedModels(made, negative_log_likelihood()), negative_log_likelihood()
    batches = torch.randn(2, 8, 4).unbind()
    stacked.gradients(batches)
    for model in made[:1]:
        for name, buffer in model.named_buffers():
            if name.endswith("mask"):
                buffer.copy_(buffer.flip(0))
    losses, _ = stacked.gradients(batches)
    for model, x, loss in zip(made, batches, losses, strict=True):
        torch.testing.assert_close(loss, objective(model, x, 0, torch.Generator()).total.detach())


# --------------------------------------------------------------------------- repeated operations


def check(compute, *shapes):
    """A repetition on other numbers equals the computation itself."""
    first, others = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    repeat = trace(compute, first)
    kept = [tensor.clone() for tensor in others]
    with torch.no_grad():
        torch.testing.assert_close(repeat(*others), compute(*[t.clone() for t in others]))
    torch.testing.assert_close(others, kept)
    return repeat


def test_a_repetition_takes_other_inputs_and_the_same_constants():
    constant = torch.randn(3)

    def compute(x, y):
        parts = (x * constant + y).split(2, dim=1)
        return parts[1], [parts[0].sum(1), torch.arange(3) * x]

    check(compute, (4, 3), (4, 3))


def test_values_changed_in_place_stay_apart_from_what_they_were_copied_from():
    def compute(x):
        copied = torch.ops.aten.mul.Scalar(x, 1)
        copied.add_(1.0)
        whole = x.new_empty(4, 3)
        whole[:, ::2] = copied[:, ::2]
        whole[:, 1::2] = x[:, 1::2]
        return whole + x

    check(compute, (4, 3))


def operations(repeat, *shapes):
    """The operations that a repetition takes."""
    inputs, counted = [torch.randn(shape) for shape in shapes], []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted.append(func)
            return func(*args, **(kwargs or {}))

    with Count():
        repeat(*inputs)
    return counted


def test_superfluous_operations_are_gone_and_results_are_not():
    aten, shapes = torch.ops.aten, ((2, 3, 4), (2, 4, 5), (2, 1, 5))

    def compute(x, y, c):
        product = aten.bmm.default(aten.expand.default(x, [2, 3, 4]), y)
        product = aten._unsafe_view.default(product, [2, 3, 5]).detach()
        total = aten.add.Tensor(aten.mul.Scalar(c, 1), product)
        turned = aten.transpose.int(aten.transpose.int(total, 1, 2), 1, 2)
        return aten.pow.Tensor_Scalar(turned, 1.0)

    assert operations(check(compute, *shapes), *shapes) == [aten.baddbmm.default]


def test_a_product_used_twice_is_computed_once():
    aten, shapes = torch.ops.aten, ((2, 3, 4), (2, 4, 3))

    def compute(x, y):
        product = aten.bmm.default(x, y)
        return aten.neg.default(product), aten.add.Tensor(product, x.sum())

    found = operations(check(compute, *shapes), *shapes)
    assert aten.bmm.default in found
    assert aten.baddbmm.default not in found


# --------------------------------------------------------------------------- which recipes


def test_recipes_say_whether_their_seeds_are_trained_together():
    recipes = {c.id: c.recipe for c in load_catalog().cells if c.recipe is not None}
    apart = {cell: together.why_apart(recipe) for cell, recipe in recipes.items()}
    assert not apart["ffjord/density/maf-5/digits"]
    assert not apart["ffjord/density/real-nvp-10/oracle-8"]
    assert not apart["ffjord/density/made-mog/digits"]
    assert apart["ffjord/density/nsf-coupling/digits"] == "dropout draws noise"
    assert apart["ffjord/density/maf-5/mnist"] == "it is too large to gain by it"
    assert apart["ffjord/density/gaussian/digits"] == "nothing is trained"
    assert "solves" in apart["ffjord/density/ffjord/digits"]
    assert "draws noise" in apart["avb/elbo/vae/digits-binary-negative-elbo"]
    for cell, why in apart.items():
        stage = recipes[cell].stages[0]
        assert why or stage.model.name in ARGS, cell
