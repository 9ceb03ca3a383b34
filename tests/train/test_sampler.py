"""The order of the data: permutations, and what becomes of the rest of an epoch."""

import math

import pytest
import torch

from dgm_bench.train.sampler import ShuffledBatches


def test_every_epoch_is_a_new_permutation_and_seek_finds_its_place():
    batches = ShuffledBatches(10, 5, seed=1)
    epochs = [torch.cat([batches.next(), batches.next()]) for _ in range(3)]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(10))
    assert not torch.equal(epochs[0], epochs[1])
    other = ShuffledBatches(10, 5, seed=1)
    other.seek(1, 1)
    assert torch.equal(other.next(), epochs[1][5:])
    assert torch.equal(other.next(), epochs[2][:5])
    assert ShuffledBatches(10, 64, seed=1).steps_per_epoch == 1


RULES = ("drop", "use", "wrap", "cycle")


def streamed(rule, n, size, seed, steps):
    """Batches by the words: permutations one after the other, cut into batches."""
    orders = [ShuffledBatches(n, n, seed, last_batch="drop") for _ in range(20)]
    for number, order in enumerate(orders):
        order.seek(0 if rule == "cycle" else number, 0)
    parts = [order.next().tolist() for order in orders]
    if rule in ("wrap", "cycle"):
        stream = [i for part in parts for i in part]
        return [stream[k * size : (k + 1) * size] for k in range(steps)]
    batches = [part[k : k + size] for part in parts for k in range(0, n, size)]
    return [b for b in batches if rule == "use" or len(b) == size][:steps]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("n", "size"), [(10, 4), (12, 4), (7, 5), (3, 5), (10, 1)])
def test_rest_of_an_epoch(rule, n, size):
    batches, steps = ShuffledBatches(n, size, 3, last_batch=rule), 12
    per_epoch = n // min(n, size) if rule == "drop" else math.ceil(n / min(n, size))
    assert batches.steps_per_epoch == per_epoch
    expected = streamed(rule, n, min(n, size), 3, steps)
    for step in range(steps):
        assert (batches.epoch, batches.position) == divmod(step, per_epoch)
        elsewhere = ShuffledBatches(n, size, 3, last_batch=rule)
        elsewhere.seek(batches.epoch, batches.position)
        assert elsewhere.next().tolist() == expected[step]
        assert batches.next().tolist() == expected[step]
