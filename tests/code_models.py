"""What tests of models of codes share."""

import torch


def positions_seen(prior):
    """For each position of a convolutional prior which others its logits depend on, by gradients.

    The prior has 4 codes, and embeds them in 6 dimensions.
    """
    positions = prior.grid[0] * prior.grid[1]
    embedded = torch.randn(1, *prior.grid, 6, requires_grad=True)
    logits = prior.network(embedded, None).flatten(0, 2)
    gradients = [
        torch.autograd.grad((row * torch.randn(4)).sum(), embedded, retain_graph=True)[0]
        for row in logits
    ]
    return torch.stack(gradients).abs().sum(-1).view(positions, positions) > 0


def train_briefly(model, objective, optimizer, examples, steps, generator):
    """Take steps on random batches of 64 examples, then leave the model in evaluation mode."""
    for step in range(steps):
        batch = examples[torch.randint(len(examples), (64,), generator=generator)]
        objective(model, batch, step, generator).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
