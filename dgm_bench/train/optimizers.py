"""Optimisers by name, with the differences between papers that change their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import nn

from dgm_bench.errors import require_choice
from dgm_bench.models.capabilities import AdversarialGame, DecaysSomeParameters
from dgm_bench.spec import OptimizerSpec


class AdamInsideRoot(torch.optim.Adam):
    """Adam as the released MAF code has it (``ml/step_strategies.py``): epsilon inside the root.

    The step is ``lr * m_hat / sqrt(v_hat + eps)``, so ``eps = 1e-8`` bounds the denominator below
    by 1e-4, where the usual form bounds it by 1e-8. (There, both means are corrected as of step
    ``t + 1``, which makes the first steps smaller.) ``weight_decay`` is the gradient of
    ``weight_decay / 2`` times the sum of squares (MAF paper, section 4).

    ``v + eps * (1 - beta2^t)`` is the moving average of ``g^2 + eps``. Adding ``eps`` to that
    average ahead of a usual step with no epsilon of its own gives this rule at its full speed.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps=0.0, weight_decay=weight_decay, fused=True)
        self.inner_eps = eps
        for p in (p for group in self.param_groups for p in group["params"]):
            # What Adam itself would make at its first step; here it is needed before that.
            self.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; closures are not supported."""
        for group in self.param_groups:
            beta2 = group["betas"][1]
            squares = [self.state[p]["exp_avg_sq"] for p in group["params"]]
            torch._foreach_add_(squares, self.inner_eps * (1 - beta2) / beta2)
        super().step()


class GlowAdamax(torch.optim.Adamax):
    """Adamax as the released Glow code has it (``optim.py``, ``adamax``).

    Its rate has Adam's factor ``sqrt(1 - beta2^t)`` besides; ``beta2`` averages over one epoch, so
    that this is near 1 after a few. Epsilon is added to each gradient instead of their maximum.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; closures are not supported."""
        done = float(next(iter(self.state.values()), {"step": 0.0})["step"])
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= (1 - group["betas"][1] ** (done + 1)) ** 0.5
        super().step()
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


def _adam(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
    return torch.optim.Adam(_groups(model, spec), fused=True, **options)


def _adamw(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    # Without a default of 0 torch's own would decay what the model says is not to be decayed.
    options: dict[str, Any] = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
    return torch.optim.AdamW(_groups(model, spec), weight_decay=0.0, fused=True, **options)


def _adamax(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
    return torch.optim.Adamax(_groups(model, spec), foreach=True, **options)


def _adamax_glow(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
    return GlowAdamax(_groups(model, spec), foreach=True, **options)


def _adam_maf(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    return AdamInsideRoot(_groups(model, spec), spec.lr, spec.betas, spec.eps)


def _sgd_momentum(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    momentum = spec.betas[0]
    return torch.optim.SGD(_groups(model, spec), lr=spec.lr, momentum=momentum, foreach=True)


def _groups(model: nn.Module, spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return all parameters, those apart that have rules of their own."""
    params = list(model.parameters())
    if not isinstance(model, DecaysSomeParameters):
        return [{"params": params, "weight_decay": spec.weight_decay}]
    decayed = model.decayed_parameters()
    ids = {id(p) for p in decayed}
    others = [p for p in params if id(p) not in ids]
    return [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": others}]


OPTIMIZERS: dict[str, Callable[[nn.Module, OptimizerSpec], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "adamax": _adamax,
    "adamax-glow": _adamax_glow,
    "adam-maf": _adam_maf,
    "sgd-momentum": _sgd_momentum,
}


def build_optimizer(
    spec: OptimizerSpec, model: nn.Module, discriminator: OptimizerSpec | None = None
) -> torch.optim.Optimizer | None:
    """Return the optimiser a recipe names, or None for a model without parameters.

    Args:
        spec: How parameters are stepped.
        model: Has the parameters.
        discriminator: How those of the model's discriminator are, if otherwise.

    Raises:
        DeclarationError: When no optimiser has that name.
    """
    require_choice("optimizer", spec.name, OPTIMIZERS)
    if not any(True for _ in model.parameters()):
        return None
    optimizer = OPTIMIZERS[spec.name](model, spec)
    if discriminator is not None:
        _set_apart(optimizer, cast(AdversarialGame, model).discriminator, spec, discriminator)
    return optimizer


def _set_apart(
    optimizer: torch.optim.Optimizer, player: nn.Module, spec: OptimizerSpec, own: OptimizerSpec
) -> None:
    """Give the parameters of a player a group of their own: one optimiser steps both players."""
    ids = {id(p) for p in player.parameters()}
    (group,) = optimizer.param_groups
    params = [p for p in group["params"] if id(p) in ids]
    group["params"] = [p for p in group["params"] if id(p) not in ids]
    rules = {"betas": own.betas, "weight_decay": own.weight_decay, "relative_lr": own.lr / spec.lr}
    optimizer.add_param_group({**group, "params": params, **rules})
