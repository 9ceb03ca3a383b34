"""Nonlinearities equal torch's: values, both derivatives, at the kink, far out and in batches."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch.autograd import gradcheck, gradgradcheck

from dgm_bench.models.elementwise import binary_log_likelihood, elu, log_sigmoid, softplus

FUNCTIONS = {"elu": (elu, F.elu), "softplus": (softplus, F.softplus)}
FUNCTIONS["log_sigmoid"] = (log_sigmoid, F.logsigmoid)
FAR = [-1e4, -700.0, -30.0, -1e-9, 0.0, 1e-9, 30.0, 700.0, 1e4]

functions = pytest.mark.parametrize("name", FUNCTIONS)


@functions
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_slopes_are_torchs(name, dtype):
    ours, theirs = FUNCTIONS[name]
    x = torch.cat([torch.tensor(FAR), torch.linspace(-9, 9, 400)]).to(dtype).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=2 * torch.finfo(dtype).eps)
    slopes = [torch.autograd.grad(f(x).sum(), x)[0] for f in (ours, theirs)]
    # torch's softplus is linear from 20 on
    torch.testing.assert_close(*slopes, rtol=0, atol=max(2 * torch.finfo(dtype).eps, 3e-9))


@functions
def test_both_derivatives_are_those_of_the_values(name):
    ours, _ = FUNCTIONS[name]
    x = torch.tensor([[-3.0, -0.2], [0.1, 4.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(ours, x)
    assert gradgradcheck(ours, x)


@functions
def test_they_batch_under_vmap(name):
    ours, theirs = FUNCTIONS[name]
    x = torch.randn(3, 4, dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(lambda row: ours(row).sum()))(x)
    expected = torch.func.vmap(torch.func.grad(lambda row: theirs(row).sum()))(x)
    torch.testing.assert_close(slopes, expected)


def test_the_likelihood_of_binary_examples_is_the_bernoulli_one():
    logits = 5 * torch.randn(3, 7, 4, dtype=torch.float64)
    x = torch.randn(3, 1, 4).sign().clamp(min=0).double()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x.expand(3, 7, 4)).sum(-1)
    torch.testing.assert_close(binary_log_likelihood(logits, x), expected)
