"""Active units against the posterior means of a linear model, whose variance is known."""

from pathlib import Path

import torch

from dgm_bench.data.dataset import Dataset
from dgm_bench.metrics.bounds.active_units import active_units_metrics, activity
from dgm_bench.metrics.evaluation import Evaluation
from dgm_bench.models.capabilities import Draws
from dgm_bench.spec import EvaluationSpec


class LinearPosterior(torch.nn.Module):
    """``z ~ N(scale x, spread^2)``, with as many variables as there are pixels."""

    def __init__(self, scale, spread):
        super().__init__()
        self.scale, self.spread, self.latent = torch.tensor(scale), spread, len(scale)

    def draw(self, x, samples, generator):
        noise = torch.empty(len(x), samples, self.latent).normal_(generator=generator)
        z = self.scale * x[:, None] + self.spread * noise
        return Draws(z, *(z.new_zeros(z.shape[:2]) for _ in range(3)))


def test_activity_is_the_variance_of_means_whatever_that_of_the_posterior(generator):
    model, x = LinearPosterior([2.0, 0.3, 0.0], spread=1.5), torch.randn(400, 3)
    found = activity(model, x, generator)
    expected = (model.scale * x).var(0)
    # Of the product of two means of 50 draws each, over 400 examples.
    noise = 1.5 * (expected / 25 + 1.5**2 / 50**2).sqrt() / 20
    assert ((found - expected).abs() < 4.5 * noise).all()
    assert (found - expected).abs().max() > 0


def test_units_are_counted_by_layer():
    model, x = LinearPosterior([2.0, 0.0, 0.15, 0.05, 3.0], spread=0.5), torch.randn(400, 5)
    data = Dataset("toy", "1", {"train": x, "test": x})
    evaluation = Evaluation(model, data, EvaluationSpec(), 1, Path())
    assert [(m.name, m.value) for m in active_units_metrics(evaluation)] == [("active-units-1", 3)]
    model.latents = (2, 3)
    found = {m.name: m.value for m in active_units_metrics(evaluation)}
    assert found == {"active-units-1": 1, "active-units-2": 2}
