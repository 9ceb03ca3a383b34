"""What a run takes on several devices of a fleet.

Runs on several devices are data-parallel: the batch is that of the recipe, each device has its
part of it, and all exchange their gradients after every step, which waits for that.
"""

from __future__ import annotations

import math

from dgm_bench.planner.expected import expected_seconds
from dgm_bench.planner.fleet import PER_MACHINE, Fleet
from dgm_bench.planner.machine import Speed
from dgm_bench.spec import Cost, Recipe

#: Bytes of a gradient.
GRADIENT_BYTES = 4
#: Operations of a training step for each weight and example, at least.
PER_WEIGHT = 6


def seconds_on(recipe: Recipe, cost: Cost, fleet: Fleet, devices: int = 1) -> float:
    """Return what a run is expected to take on so many devices of a fleet.

    A step starts its operations once for each part of the batch that fits into the memory. What
    is evaluated is divided where codes are drawn, which is each image for itself.

    Args:
        recipe: What runs.
        cost: Its declared work.
        fleet: Says what a device is; runs on one device share it with others.
        devices: Over which the batch is divided.
    """
    part = part_of(recipe, devices)
    fits = fleet.device.memory_bytes if fleet.device.is_gpu else math.inf
    passes = max(math.ceil(cost.memory_bytes * part / fits), 1)
    changed = cost.model_copy(
        update={
            "flops_per_step": cost.flops_per_step * part,
            "launches_per_step": cost.launches_per_step * passes,
            "evaluation_flops": cost.evaluation_flops / (devices if recipe.stages[1:] else 1),
        }
    )
    speed = fleet.speed(recipe, alone=devices > 1)
    exchange = cost.steps * exchange_seconds(weights_of(recipe, cost), fleet, devices)
    return expected_seconds(changed, speed) + exchange


def exchange_seconds(weights: float, fleet: Fleet, devices: int) -> float:
    """Return the seconds in which devices add up their gradients.

    Each sends nearly twice all gradients, as a ring does it (Patarasuk and Yuan, 2009), over the
    slowest link; it starts as a tree does, twice the logarithm of their number one after the other.
    """
    if devices == 1:
        return 0.0
    link = fleet.device.link if devices <= PER_MACHINE else fleet.device.network
    start = Speed.gpu().seconds_per_launch
    ring = 2 * (devices - 1) / devices * GRADIENT_BYTES * weights / link
    return ring + 2 * math.log2(devices) * start


def part_of(recipe: Recipe, devices: int) -> float:
    """Return the part of the work that the device with most examples does."""
    stages = zip(recipe.stages, recipe.stage_shares, strict=True)
    return sum(
        share * math.ceil(stage.batch_size / devices) / stage.batch_size for stage, share in stages
    )


def weights_of(recipe: Recipe, cost: Cost) -> float:
    """Return how many weights a recipe trains, at most where it does not say."""
    smallest = min(stage.batch_size for stage in recipe.stages)
    return cost.weights or cost.flops_per_step / (PER_WEIGHT * smallest)
