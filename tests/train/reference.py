"""The training protocol written once more, as one plain loop in NumPy.

It follows the words of the papers and of ``dgm_bench.spec`` and shares nothing with
``dgm_bench.train``: only the tiny model's formulas, whose gradients autograd takes, are common.
Every step is a row with all that happened in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from train.tiny import DECAYED, NAMES, Traits, divergence, features, log_density, noisy

from dgm_bench.data.dataset import Dataset
from dgm_bench.spec import Stage

Array = NDArray[Any]
Arrays = dict[str, Array]
Row = dict[str, Any]


class Reference:
    """One training of the tiny model.

    Args:
        stage: Its rules.
        traits: Of the model.
        data: Examples with their noise.
        seed: Decides the order of the examples and all noise.
        start: The model's first parameters and statistics.
    """

    def __init__(
        self, stage: Stage, traits: Traits, data: Dataset, seed: int, start: dict[str, Tensor]
    ) -> None:
        self.stage, self.traits, self.data, self.seed = stage, traits, data, seed
        self.type = np.float64 if stage.precision == "float64" else np.float32
        self.train = self.tensor(data.splits["train"].numpy())
        self.weights = {name: start[name].numpy().astype(self.type) for name in NAMES}
        self.centre = start["centre"].numpy().astype(self.type)
        self.noise = torch.Generator().manual_seed(seed)
        if traits.initialises:
            first = self.train[:7]
            if data.augment is not None:
                first = data.augment(first, torch.Generator().manual_seed(seed))
            self.weights["shift"] = first.numpy().mean(0) + 1
        self.average = dict(self.weights)
        self.moments: dict[str, list[Array]] = {
            name: [np.zeros_like(value), np.zeros_like(value)]
            for name, value in self.weights.items()
        }
        self.step = self.bad = self.drops = 0
        self.losses: list[float] = []
        self.best: tuple[float, int] | None = None
        self.best_weights: Arrays = {}

    def run(self) -> list[Row]:
        """Return a row for each step, and one for the end."""
        rows: list[Row] = []
        while (why := self.over()) is None:
            rows.append(self.one_step() | self.after_step())
        validated = self.validate() if self.losses or self.best is None else self.no_validation()
        last = self.averaged() | {"centre": self.centre}
        rows.append({"stop": why, **validated, "best-weights": self.best_weights, "last": last})
        return rows

    def tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.asarray(array, dtype=self.type))

    # -------------------------------------------------------------------- time

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch, and one more for the rest unless it is left out."""
        batches = len(self.train) / self.batch_size
        return math.floor(batches) if self.stage.last_batch == "drop" else math.ceil(batches)

    @property
    def batch_size(self) -> int:
        return min(self.stage.batch_size, len(self.train))

    @property
    def epochs_done(self) -> int:
        return self.step // self.steps_per_epoch

    def over(self) -> str | None:
        """Stop after more than ``patience`` bad validations, or at a maximum."""
        stop = self.stage.stopping
        if stop.patience is not None and self.bad > stop.patience:
            return "patience"
        if stop.max_steps is not None and self.step >= stop.max_steps:
            return "max_steps"
        if stop.max_epochs is not None and self.epochs_done >= stop.max_epochs:
            return "max_epochs"
        return None

    def indices(self) -> list[int]:
        """Every epoch goes through the examples in a new order.

        Where the rest of the examples is neither left out nor a batch of its own, batches go on
        from one order to the next, or in the first one again and again.
        """
        n, size, rule = len(self.train), self.batch_size, self.stage.last_batch
        if rule in ("drop", "use"):
            epoch, place = divmod(self.step, self.steps_per_epoch)
            return self.order(epoch)[place * size : (place + 1) * size]
        places = range(self.step * size, (self.step + 1) * size)
        return [self.order(p // n if rule == "wrap" else 0)[p % n] for p in places]

    def order(self, number: int) -> list[int]:
        """Return an order of the examples, which depends on the seed."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order: list[int] = torch.randperm(len(self.train), generator=generator).tolist()
        return order

    def rate(self, step: int) -> float:
        """The learning rate: ramp, half a cosine, drops by validation and by step, and a decay."""
        rule, rate = self.stage.schedule, self.stage.optimizer.lr
        if step < rule.warmup_steps:
            rate *= (step + 1) / rule.warmup_steps
        if rule.cosine_steps is not None:
            part = min(step, rule.cosine_steps) / rule.cosine_steps
            high = (1 + math.cos(part * math.pi)) / 2
            rate *= high + rule.cosine_floor * (1 - high)
        for _ in range(step + 1):
            rate *= rule.decay
        passed = sum(step >= milestone for milestone in rule.milestones)
        return float(rate * rule.factor ** (self.drops + passed))

    # -------------------------------------------------------------------- the step

    def one_step(self) -> Row:
        indices = self.indices()
        x = self.train[indices]
        if self.data.augment is not None:
            x = self.data.augment(x, self.noise)
        loss, gradients = self.loss_and_gradients(x)
        norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values()))
        shrink = self.shrinkage(norm)
        gradients = {name: g * self.type(shrink) for name, g in gradients.items()}
        rate, decays = self.rate(self.step), self.decays()
        for name in NAMES:
            self.weights[name] = self.updated(name, gradients[name], rate, decays[name])
        self.losses.append(loss)
        self.step += 1
        return {
            "indices": indices,
            "inputs": x.numpy(),
            "loss": loss,
            "gradient norm": norm,
            "clipped norm": norm * shrink,
            "rates": dict.fromkeys(NAMES, rate),
            "decays": decays,
        }

    def after_step(self) -> Row:
        """Polyak averaging, and a validation where it is time for one."""
        decay = self.stage.average_decay
        if decay is not None:
            for name, old in self.average.items():
                self.average[name] = decay * old + (1 - decay) * self.weights[name]
        rule = self.stage.validation
        whole = self.step % self.steps_per_epoch == 0
        due = self.step % rule.every == 0
        if rule.unit == "epochs":
            due = whole and self.epochs_done % rule.every == 0
        weights = {**self.weights}
        validated = self.validate() if due else self.no_validation()
        average = {**self.average} if decay is not None else None
        return {"weights": weights, "average": average, "centre": self.centre, **validated}

    def loss_and_gradients(self, x: Tensor) -> tuple[float, Arrays]:
        """Return both, and move the running statistics."""
        p = {name: self.tensor(value).requires_grad_() for name, value in self.weights.items()}
        f = features(p, x, self.stage.precision == "bfloat16")
        centre = f.detach().mean(0)
        self.centre = (0.9 * self.centre + 0.1 * centre.numpy()).astype(self.type)
        loss = self.objective(p, log_density(p, centre, x, f), f, self.noise, training=True)
        loss.backward()
        gradients = {name: t.grad.numpy() for name, t in p.items() if t.grad is not None}
        return loss.item(), gradients

    def objective(
        self,
        p: dict[str, Tensor],
        log_prob: Tensor,
        f: Tensor,
        generator: torch.Generator,
        training: bool,
    ) -> Tensor:
        """Return the loss of a batch; its noise is drawn after that of the inputs."""
        spec, traits = self.stage.objective, self.traits
        estimated = traits.estimates and spec.args.get("trace", "estimate") == "estimate"
        if spec.name == "nll" and not estimated:
            return -log_prob.mean()
        noise = torch.randn(len(f), 2, dtype=f.dtype, generator=generator)
        estimate = noisy(log_prob, f, noise)
        if spec.name in ("nll", "elbo"):
            return -estimate.mean()
        if spec.name == "warmed-elbo":
            epoch = 1 + self.step // spec.args["steps_per_epoch"]
            weight = min(1.0, epoch / spec.args["warmup_epochs"]) if training else 1.0
            return weight * divergence(p, noise).mean() - estimate.mean()
        assert spec.name == "probe"
        return -estimate.mean() * (1 + 0.1 * self.step if training else 1)

    def shrinkage(self, norm: float) -> float:
        """Return what gradients are multiplied by, so that their norm is at most the limit."""
        limit = self.stage.clip_norm
        # torch divides by the norm plus 1e-6.
        return 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))

    def decays(self) -> dict[str, float]:
        """Weight decay, 0 for the parameters that the model excludes."""
        decay = self.stage.optimizer.weight_decay
        return {n: decay if n in DECAYED or not self.traits.decays else 0.0 for n in NAMES}

    def updated(self, name: str, g: Array, rate: float, decay: float) -> Array:
        """Return a parameter after a step.

        Adam and Adamax: Kingma and Ba (2015), algorithms 1 and 2, with Adamax's epsilon inside the
        maximum as torch documents it; Glow's released code has a further factor sqrt(1 - beta2^t).
        AdamW: Loshchilov and Hutter (2019), algorithm 2. Adam of the
        released MAF code: epsilon inside the root. Momentum: Sutskever et al. (2013), with the rate
        applied to the velocity as torch documents it.
        """
        rule, t, theta = self.stage.optimizer, self.step + 1, self.weights[name]
        b1, b2 = rule.betas
        if rule.name == "adamw":
            theta = theta - rate * decay * theta
        else:
            g = g + decay * theta
        m, v = self.moments[name]
        if rule.name == "sgd-momentum":
            self.moments[name] = [b1 * m + g, v]
            return theta - rate * self.moments[name][0]
        m = b1 * m + (1 - b1) * g
        largest = rule.name in ("adamax", "adamax-glow")
        v = np.maximum(b2 * v, abs(g) + rule.eps) if largest else b2 * v + (1 - b2) * g**2
        self.moments[name] = [m, v]
        size = {
            "adam": np.sqrt(v / (1 - b2**t)) + rule.eps,
            "adamw": np.sqrt(v / (1 - b2**t)) + rule.eps,
            "adam-maf": np.sqrt(v / (1 - b2**t) + rule.eps),
            "adamax": v,
            "adamax-glow": v / np.sqrt(1 - b2**t),
        }[rule.name]
        return np.asarray(theta - rate * m / (1 - b1**t) / size, dtype=self.type)

    # -------------------------------------------------------------------- validation

    def averaged(self) -> Arrays:
        """The parameters that are validated and evaluated."""
        return dict(self.weights if self.stage.average_decay is None else self.average)

    def no_validation(self) -> Row:
        return {"validation": None, "heard": [], **self.standing()}

    def validate(self) -> Row:
        """Measure on the held-out examples; keep the best; count bad ones; drop the rate."""
        p = {name: self.tensor(value) for name, value in self.averaged().items()}
        mixed = self.stage.precision == "bfloat16"
        if self.traits.calibrates:
            self.centre = features(p, self.train, mixed).mean(0).numpy()
        value, heard = self.measured(p, mixed)
        mean = sum(self.losses) / len(self.losses) if self.losses else None
        epoch = self.step / self.steps_per_epoch
        curve = (self.step, epoch, mean, value, self.rate(max(self.step - 1, 0)))
        self.losses = []
        if self.best is None or value < self.best[0]:
            self.best, self.bad = (value, self.step), 0
            self.best_weights = {**self.averaged(), "centre": self.centre}
        elif self.epochs_done >= self.stage.stopping.patience_from:
            self.bad += 1
        thresholds = self.stage.schedule.drops
        if self.drops < len(thresholds) and self.bad > thresholds[self.drops]:
            self.drops += 1
        return {"validation": curve, "heard": heard, **self.standing()}

    def standing(self) -> Row:
        return {"bad": self.bad, "drops": self.drops, "best": self.best}

    def measured(self, p: dict[str, Tensor], mixed: bool) -> tuple[float, list[Arrays]]:
        """Return the mean over held-out examples, and the model's inputs and weights for it.

        A likelihood's noise goes on with that of the training. An objective's is the same in every
        validation, so that validations differ by the weights alone.
        """
        held_out = self.data.splits["val" if "val" in self.data.splits else "test"]
        likely = self.traits.likelihood
        generator = self.noise if likely else torch.Generator().manual_seed(self.seed)
        total, heard = 0.0, []
        size = self.stage.validation.batch_size
        for start in range(0, len(held_out), size):
            x = self.tensor(held_out[start : start + size].numpy())
            if self.data.dequantise is not None:
                x = self.data.dequantise(x, generator)
            total += self.validated_batch(p, x, mixed, generator) * len(x)
            heard.append({"inputs": x.numpy(), **self.averaged(), "centre": self.centre})
        return total / len(held_out), heard

    def validated_batch(
        self, p: dict[str, Tensor], x: Tensor, mixed: bool, generator: torch.Generator
    ) -> float:
        f = features(p, x, mixed)
        log_prob = log_density(p, torch.from_numpy(self.centre), x, f)
        if not self.traits.likelihood:
            return self.objective(p, log_prob, f, generator, training=False).item()
        if self.stage.validation.trace == "estimate" and self.traits.estimates:
            noise = torch.randn(len(x), 2, dtype=x.dtype, generator=generator)
            log_prob = noisy(log_prob, f, noise)
        return -log_prob.double().mean().item()
