"""What a gradient of neural ODEs' classifiers holds, over the length of the solution.

    python benchmarks/adjoint_memory.py

prints, for the loss of 32 images of MNIST's size, the most MiB that autograd holds for the backward
pass at once, without parameters and images: of residual networks over their blocks, and of the
RK-Net and the ODE-Net over the solver's tolerance. Networks are as they begin (seed 0), images are
noise; the numbers are counted, and alike on every machine.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dgm_bench.data.class_rows import with_classes
from dgm_bench.data.dataset import Dataset
from dgm_bench.metrics.classification.errors import IMAGES, TOLERANCES
from dgm_bench.metrics.evaluate import evaluate
from dgm_bench.models.classifiers.ode_network import ODENetwork, ResidualNetwork
from dgm_bench.spec import EvaluationSpec

SHAPE, ROW = (1, 28, 28), (28 * 28 + 1,)
BLOCKS = (1, 2, 4, 6, 12, 24)


def measured(model: nn.Module, metric: str) -> dict[str, float | None]:
    """Return a metric's numbers by name, of noise in the place of images."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, *SHAPE), generator=noise, dtype=torch.uint8)
    rows = with_classes(images, torch.arange(IMAGES) % 10)
    data = Dataset("noise", "1", {"train": rows, "test": rows})
    found = evaluate(model.eval(), data, EvaluationSpec(metrics=(metric,)), 0, Path())
    return {metric.name: metric.value for metric in found}


def main() -> None:
    """Print both tables."""
    print("ResNet      blocks", "MiB", sep="\t")
    for blocks in BLOCKS:
        torch.manual_seed(0)
        found = measured(ResidualNetwork(ROW, SHAPE, blocks=blocks), "gradient-costs")
        print(blocks, f"{found['gradient-memory']:.1f}", sep="\t")
    for name, adjoint in (("RK-Net", False), ("ODE-Net", True)):
        torch.manual_seed(0)
        found = measured(ODENetwork(ROW, SHAPE, adjoint=adjoint), "tolerances")
        print(f"{name}\ntolerance", "forward", "backward", "MiB", sep="\t")
        for label in TOLERANCES:
            ways = [f"{found[f'{way}-evaluations-{label}']:.0f}" for way in ("forward", "backward")]
            print(label, *ways, f"{found[f'gradient-memory-{label}']:.1f}", sep="\t")


if __name__ == "__main__":
    main()
