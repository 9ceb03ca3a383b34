"""Vector quantisers: the nearest code, its gradients, and codebooks that are moving averages."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dgm_bench.errors import DeclarationError
from dgm_bench.models.codes.quantiser import VectorQuantiser, nearest_codes


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, list | tuple) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("limit", [1, 40, 7 * 13, 10**6])
def test_nearest_codes_are_those_of_brute_force_in_chunks_or_not(limit):
    z, codebook = torch.randn(57, 4), torch.randn(13, 4)
    expected = torch.cdist(z, codebook).argmin(1)
    assert torch.equal(nearest_codes(z, codebook, limit), expected)


def test_distances_of_many_vectors_are_never_in_memory_at_once():
    z, codebook = torch.randn(5000, 2), torch.randn(64, 2)
    with LargestTensor() as whole:
        nearest_codes(z, codebook)
    with LargestTensor() as chunked:
        nearest_codes(z, codebook, limit=20_000)
    assert whole.elements == 5000 * 64
    # The vectors themselves are 10,000 numbers.
    assert chunked.elements <= 20_000


def test_gradients_go_straight_through_and_the_commitment_pulls_on_vectors_only():
    quantiser = VectorQuantiser(6, 3, codebook="gradient")
    z = torch.randn(2, 3, 4, 5, requires_grad=True)
    out = quantiser(z)
    assert torch.equal(out.values, quantiser.values_of(out.codes))
    weights = torch.randn_like(z)
    (out.values * weights).sum().backward(retain_graph=True)
    assert torch.equal(z.grad, weights)
    assert quantiser.codebook.grad is None
    z.grad = None
    out.commitment.backward()
    torch.testing.assert_close(z.grad, 2 * (z - out.values).detach() / z.numel())
    assert quantiser.codebook.grad is None


def test_codebook_loss_pulls_codes_to_the_mean_of_their_vectors():
    quantiser = VectorQuantiser(6, 3, codebook="gradient")
    z = torch.randn(2, 3, 4, 5, requires_grad=True)
    out = quantiser(z)
    out.codebook.backward()
    assert z.grad is None
    assert out.codebook.item() == pytest.approx(out.commitment.item(), rel=1e-12)
    rows, codes = z.detach().movedim(1, -1).reshape(-1, 3), out.codes.flatten()
    expected = torch.zeros(6, 3)
    for row, code in zip(rows, codes, strict=True):
        expected[code] += 2 * (quantiser.codebook[code].detach() - row) / z.numel()
    torch.testing.assert_close(quantiser.codebook.grad, expected)
    assert quantiser.train().learn(z, out.codes, torch.Generator()) is None
    assert not list(quantiser.buffers())


class PublishedAverages:
    """The averages of ``VectorQuantizerEMA`` (google-deepmind/sonnet), from its formulas.

    A hidden average starts at zero; the average is it by ``1 - decay^t``. Restarts are ours.
    """

    def __init__(self, codebook, decay, restart):
        self.codebook, self.decay, self.restart, self.t = codebook, decay, restart, 0
        self.counts, self.sums = np.zeros(len(codebook)), np.zeros_like(codebook)

    def learn(self, rows, drawn):
        distances = ((rows[:, None] - self.codebook) ** 2).sum(2)
        one_hot = np.eye(len(self.codebook))[distances.argmin(1)]
        self.t += 1
        self.counts -= (self.counts - one_hot.sum(0)) * (1 - self.decay)
        self.sums -= (self.sums - one_hot.T @ rows) * (1 - self.decay)
        debiasing = 1 - self.decay**self.t
        counts, sums = self.counts / debiasing, self.sums / debiasing
        if self.restart is not None:
            idle = counts < self.restart
            counts[idle], sums[idle] = self.restart, self.restart * rows[drawn][idle]
            self.counts, self.sums = counts * debiasing, sums * debiasing
        total = counts.sum()
        smoothed = (counts + 1e-5) / (total + len(counts) * 1e-5) * total
        self.codebook = sums / smoothed[:, None]


@pytest.mark.parametrize("restart", [None, 0.1])
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_averages_are_the_published_layer_s_over_many_steps(decay, restart, unchecked):
    quantiser = VectorQuantiser(12, 3, decay=decay, restart=restart).train()
    published = PublishedAverages(quantiser.codebook.numpy().copy(), decay, restart)
    own, same, noise = (torch.Generator().manual_seed(seed) for seed in (5, 5, 6))
    for step in range(300):
        # From the 100th step on they are near one point: some codes fall out of use.
        z = torch.randn(20, 3, 1, 1, generator=noise) * (0.5 if step < 100 else 0.01) + 0.3
        quantiser.learn(z, quantiser(z).codes, own)
        published.learn(z.flatten(1).numpy(), torch.randint(20, (12,), generator=same).numpy())
        np.testing.assert_allclose(quantiser.codebook, published.codebook, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(quantiser.counts, published.counts, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(quantiser.sums, published.sums, rtol=1e-9, atol=1e-300)
        if step == 50:  # what a checkpoint holds is enough to go on from
            held, quantiser = quantiser.state_dict(), VectorQuantiser(12, 3, "ema", decay, restart)
            quantiser.train().load_state_dict(held)


def test_first_batch_replaces_the_initial_codes_and_idle_ones_go_to_the_origin(generator):
    quantiser = VectorQuantiser(3, 2).train()
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, 9.0]]))
    z = torch.rand(6, 2, 1, 1)
    quantiser.learn(z, quantiser(z).codes, generator)
    torch.testing.assert_close(quantiser.codebook[0], z.flatten(1).mean(0), rtol=1e-5, atol=0)
    assert not quantiser.codebook[1:].any()


def test_idle_codes_start_anew_at_vectors_of_the_batch(generator):
    quantiser = VectorQuantiser(4, 2, decay=0.5, restart=0.75).train()
    quantiser.codebook.copy_(torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, 9.0], [9.0, -9.0]]))
    z = torch.rand(6, 2, 1, 1)
    out = quantiser(z)
    assert out.codes.unique().tolist() == [0]
    quantiser.learn(z, out.codes, generator)
    # Debiased after one batch: what it has, and no less than the threshold.
    assert (quantiser.counts / 0.5).tolist() == [6.0, 0.75, 0.75, 0.75]
    rows = z.flatten(1)
    torch.testing.assert_close(quantiser.codebook[0], rows.mean(0), rtol=1e-4, atol=0)
    distances = torch.cdist(quantiser.codebook[1:], rows).amin(1)
    assert distances.max() < 1e-4


def test_restarts_are_drawn_from_the_generator_alone():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        quantiser = VectorQuantiser(20, 2, restart=1.0).train()
        z = torch.randn(30, 2, 1, 1)
        torch.manual_seed(seed * 7 + len(states))
        quantiser.learn(z, quantiser(z).codes, torch.Generator().manual_seed(seed))
        states.append(quantiser.codebook)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    "args",
    [
        {"codes": 0},
        {"dim": 0},
        {"decay": 1.0},
        {"restart": 0.0},
        {"restart": 1.0, "codebook": "gradient"},
    ],
)
def test_quantisers_refuse_what_makes_no_sense(args):
    with pytest.raises(DeclarationError, match=r"codebook|decay|restart"):
        VectorQuantiser(**({"codes": 4, "dim": 2} | args))
