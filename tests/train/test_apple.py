"""Apple's GPUs, none of which is here: what is compared with the CPU before anything is trained."""

import pytest
import torch
from torch import nn

from dgm_bench.errors import UsageError
from dgm_bench.models.precise import precise, widest
from dgm_bench.train import apple
from dgm_bench.train.apple import CPU, TOLERANCE, home_of, is_apple, require_same

MPS = torch.device("mps")
X = torch.linspace(-3, 3, 60).view(20, 3)


class Gaussian(nn.Module):
    """A normal density that learns its mean by calibration, and notes how it was asked."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def calibrate(self, x):
        self.mean.copy_(x.mean(0))

    def log_prob(self, x):
        assert not self.training
        return -0.5 * (x - self.mean).square().sum(1)


@pytest.fixture
def off(monkeypatch):
    """Let the other device be the CPU, and its answers off by as much as a test says."""
    asked, wrong = apple._log_prob, {"by": lambda values: values}

    def log_prob(model, x, device):
        values = asked(model, x, CPU)
        return values if device == CPU else wrong["by"](values)

    monkeypatch.setattr(apple, "_log_prob", log_prob)
    return wrong


@pytest.mark.parametrize(
    ("by", "fine"),
    [
        (lambda values: values, True),
        (lambda values: values * (1 + 0.5 * TOLERANCE), True),
        (lambda values: values * (1 + 2 * TOLERANCE), False),
        (lambda values: values + 0.5 * TOLERANCE, True),
        (lambda values: torch.cat([values[:-1], values[-1:] * (1 + 10 * TOLERANCE)]), False),
        (lambda values: values * torch.nan, False),
    ],
)
def test_another_log_density_than_the_cpus_is_refused(by, fine, off):
    model = Gaussian()
    off["by"] = by
    if fine:
        require_same(model, X, MPS)
    else:
        with pytest.raises(UsageError, match="--device mps: the log density of Gaussian is off by"):
            require_same(model, X, MPS)
    assert model.training
    assert not model.mean.any()


def test_what_cannot_be_compared_or_computed_is_refused():
    """There is no such device here: what torch says of that is an error as of any operation."""
    with pytest.raises(UsageError, match=r"Linear has no log density .*; use --device cpu$"):
        require_same(nn.Linear(3, 1), X, MPS)
    if not torch.backends.mps.is_available():
        with pytest.raises(UsageError, match="--device mps: cannot compute Gaussian"):
            require_same(Gaussian(), X, MPS)


def test_a_run_is_evaluated_on_the_cpu_and_sums_are_as_wide_as_the_device_allows():
    assert is_apple(MPS)
    assert home_of(MPS) == CPU
    assert home_of(torch.device("cuda")) == torch.device("cuda")
    assert (widest(MPS), widest(CPU)) == (torch.float32, torch.float64)
    assert precise(X.float()).dtype == torch.float64
