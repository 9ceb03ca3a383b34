"""Optimisers against the formulas of their sources, in NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dgm_bench.spec import OptimizerSpec
from dgm_bench.train.optimizers import build_optimizer

LR, EPS = 1e-2, 1e-3


def adam(t, m, v, gradient, decay, beta2):
    """Kingma and Ba, algorithm 1."""
    m, v = 0.9 * m + 0.1 * gradient, beta2 * v + (1 - beta2) * gradient**2
    return m, v, LR * m / (1 - 0.9**t) / (np.sqrt(v / (1 - beta2**t)) + EPS)


def adamw(t, m, v, gradient, decay, beta2):
    """Loshchilov and Hutter: the decay is no part of the gradient."""
    m, v, step = adam(t, m, v, gradient - decay, decay, beta2)
    return m, v, step + LR * decay


def adam_maf(t, m, v, gradient, decay, beta2):
    """Released MAF code, ml/step_strategies.py: epsilon inside the root."""
    m, v = 0.9 * m + 0.1 * gradient, beta2 * v + (1 - beta2) * gradient**2
    return m, v, LR * m / (1 - 0.9**t) / np.sqrt(v / (1 - beta2**t) + EPS)


def adamax(t, m, v, gradient, decay, beta2):
    """Kingma and Ba, algorithm 2, with epsilon beside each gradient."""
    m, v = 0.9 * m + 0.1 * gradient, np.maximum(beta2 * v, np.abs(gradient) + EPS)
    return m, v, LR / (1 - 0.9**t) * m / v


def adamax_glow(t, m, v, gradient, decay, beta2):
    """Released Glow code, optim.py: the rate has Adam's second factor besides."""
    m, v, step = adamax(t, m, v, gradient, decay, beta2)
    return m, v, math.sqrt(1 - beta2**t) * step


def sgd_momentum(t, m, v, gradient, decay, beta2):
    """The momentum of TensorFlow and torch, without damping or Nesterov's look ahead."""
    m = 0.9 * m + gradient
    return m, v, LR * m


RULES = {
    "adam": adam,
    "adamw": adamw,
    "adam-maf": adam_maf,
    "adamax": adamax,
    "adamax-glow": adamax_glow,
    "sgd-momentum": sgd_momentum,
}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))

    def decayed_parameters(self):
        return [self.first]


@pytest.mark.parametrize("beta2", [0.98, 0.999])
@pytest.mark.parametrize("name", RULES)
def test_formula(name, beta2):
    """The decay 0.1 is the gradient of half of it times the sum of squares, but for adamw.

    It is that of the first parameter, as the second is excluded.
    """
    model, rule = Pair(), RULES[name]
    spec = OptimizerSpec(name=name, lr=LR, betas=(0.9, beta2), eps=EPS, weight_decay=0.1)
    optimizer = build_optimizer(spec, model)
    expected = torch.stack([model.first, model.second]).detach().numpy()
    m, v = np.zeros_like(expected), np.zeros_like(expected)
    gradients = 0.02 * torch.randn(40, 2, 5)
    for t, gradient in enumerate(gradients, 1):
        model.first.grad, model.second.grad = gradient.clone()
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == LR
        decay = np.array([[0.1], [0.0]]) * expected
        m, v, step = rule(t, m, v, gradient.numpy() + decay, decay, beta2)
        expected = expected - step
        found = torch.stack([model.first, model.second]).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
