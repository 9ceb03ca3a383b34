"""A trained model, and what can be done with it whatever model it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import UsageError
from dgm_bench.library.abilities import ABILITIES, abilities_of
from dgm_bench.metrics.bounds.likelihood import negative_in_unit
from dgm_bench.metrics.bounds.variational import importance_bound
from dgm_bench.metrics.evaluate import evaluate
from dgm_bench.models.capabilities import (
    DrawsImages,
    HasCodes,
    HasDecoder,
    HasElbo,
    HasInverse,
    HasLogProb,
    HasPosteriorDraws,
    HasSample,
    Reconstructs,
)
from dgm_bench.models.codes.two_stage import TwoStage
from dgm_bench.records import Metric, RunRecord
from dgm_bench.spec import Recipe, Split

#: What a tensor can be made from: tensors, arrays, lists of numbers.
Examples = Any
#: Latent variables, or codes of each level, top first.
Latents = Tensor | list[Tensor]


class TrainedModel:
    """A trained model, in the units of its data; :func:`dgm_bench.load` gives it.

    Examples are rows of numbers as the data set has them, and images are pixels in [0, 1] of
    shape ``(n, channels, height, width)``, whatever the model itself computes with. Log
    densities are in nats, and those of images in bits per dimension are log probabilities of
    grey levels: ``-log_prob(x).mean() / (dimensions * ln 2)`` is the cell's number. Gradients are
    not kept; ``module`` is the model itself, for all that is not offered here.

    Attributes:
        cell: Whose model it is: ``paper/table/row/column``.
        recipe: What it was trained by.
        seed: Of its run.
        record: Of its run; None for weights from elsewhere.
        module: The model, in evaluation mode, as it was evaluated.
        data: Its data set, with the splits as the model is trained on them.
    """

    def __init__(
        self,
        cell: str,
        recipe: Recipe,
        seed: int,
        record: RunRecord | None,
        module: nn.Module,
        data: Dataset,
        data_root: Path,
    ) -> None:
        self.cell, self.recipe, self.seed, self.record = cell, recipe, seed, record
        self.module, self.data, self._data_root = module, data, data_root

    def __repr__(self) -> str:
        return f"TrainedModel({self.cell!r}, seed {self.seed}, can {', '.join(self.can)})"

    @property
    def can(self) -> tuple[str, ...]:
        """Names of the methods that this model has, such as ``sample`` and ``log_prob``."""
        return abilities_of(self.module)

    # ------------------------------------------------------------------------- examples

    def examples(
        self, split: Split = "test", n: int | None = None, seed: int | None = None
    ) -> Num[Tensor, "n *event"]:
        """Return examples of the data set, as the methods below take them.

        Args:
            split: ``train``, ``val`` or ``test``.
            n: The first so many; None for all.
            seed: Of the noise of sets that are dequantised for each use; None for the run's, with
                which they are those that the record's numbers are of.

        Raises:
            UsageError: The data set has no such split.
        """
        if split not in self.data.splits:
            known = ", ".join(self.data.splits)
            raise UsageError(split, f"no such split of {self.data.name}", f"use one of {known}")
        noise = self._generator(self.seed if seed is None else seed)
        parts = self.data.splits[split][:n].split(self.recipe.evaluation.batch_size)
        return torch.cat([self._shown(self._dequantised(part, noise)) for part in parts])

    # ------------------------------------------------------------------------- what it can do

    @torch.no_grad()
    def sample(
        self, n: int = 1, seed: int = 0, labels: Sequence[int] | None = None
    ) -> Num[Tensor, "n *event"]:
        """Return ``n`` examples drawn from the model; the same seed gives the same.

        Latent variable models give the means of ``p(x|z)`` for draws ``z`` of their prior.

        Args:
            n: How many.
            seed: Of the noise.
            labels: Class of each, of a class-conditional model; None for each class in turn.

        Raises:
            UsageError: The model cannot be sampled, or is not conditioned on classes.
        """
        self._require("sample")
        model, noise = self.module, self._generator(seed)
        if isinstance(model, DrawsImages):
            return model.draw_images(self._labels(n, labels, model.classes), noise)
        if labels is not None:
            self._labels(n, labels, None)
        return self._shown(cast(HasSample, model).sample(n, noise))

    @torch.no_grad()
    def log_prob(self, x: Examples) -> Float[Tensor, " n"]:
        """Return the log density of each example in nats, in float64.

        Raises:
            UsageError: The model has no density, or the examples have another shape.
        """
        self._require("log_prob")
        model = cast(HasLogProb, self.module)
        return self._batchwise(x, lambda part: self._in_nats(model.log_prob(part).double(), part))

    @torch.no_grad()
    def elbo(self, x: Examples, seed: int = 0, samples: int = 1) -> Float[Tensor, " n"]:
        """Return a draw of the lower bound of each example's log density in nats, in float64.

        Args:
            x: The examples.
            seed: Of the draws from the posterior.
            samples: More than one for the importance-weighted bound, which is tighter (Burda et
                al., 2016, https://arxiv.org/abs/1509.00519, equation 8).

        Raises:
            UsageError: The model has no bound, or the examples have another shape.
        """
        self._require("elbo")
        model, noise = self.module, self._generator(seed)

        def bound(part: Tensor) -> Tensor:
            if samples > 1:
                drawn = importance_bound(cast(HasPosteriorDraws, model), part, samples, noise)
                return self._in_nats(drawn.log_marginal, part)
            return self._in_nats(cast(HasElbo, model).elbo(part, noise).double(), part)

        return self._batchwise(x, bound)

    @torch.no_grad()
    def reconstruct(self, x: Examples, seed: int = 0) -> Num[Tensor, "n *event"]:
        """Return each example as the model decodes its codes or a draw of its posterior.

        Raises:
            UsageError: The model encodes nothing, or the examples have another shape.
        """
        self._require("reconstruct")
        model, noise = self.module, self._generator(seed)
        if isinstance(model, Reconstructs):
            return self._batchwise(x, model.reconstruct)

        def again(part: Tensor) -> Tensor:
            z = cast(HasPosteriorDraws, model).draw(part, 1, noise).z[:, 0]
            return self._shown(cast(HasDecoder, model).decode(z).mean)

        return self._batchwise(x, again)

    @torch.no_grad()
    def encode(self, x: Examples, seed: int = 0) -> Latents:
        """Return what stands for each example inside the model.

        A flow's noise, a draw of the latent variables from the posterior, or codes on their grids
        (indices into the codebook of each level, top first).

        Raises:
            UsageError: The model encodes nothing, or the examples have another shape.
        """
        self._require("encode")
        model, noise = self.module, self._generator(seed)
        if (coder := self._coder) is not None:
            levels = [coder.encode(part) for part in self._parts(x)]
            return [torch.cat(level) for level in zip(*levels, strict=True)]
        if isinstance(model, HasInverse):
            return self._batchwise(x, lambda part: model.forward_and_log_det(part)[0])
        drawing = cast(HasPosteriorDraws, model)
        return self._batchwise(x, lambda part: drawing.draw(part, 1, noise).z[:, 0])

    @torch.no_grad()
    def decode(self, z: Latents) -> Num[Tensor, "n *event"]:
        """Return the examples that :meth:`encode`'s noise, latent variables or codes stand for.

        Of latent variables it is the mean of ``p(x|z)``.

        Raises:
            UsageError: The model decodes nothing.
        """
        self._require("decode")
        model = self.module
        if (coder := self._coder) is not None:
            return coder.decode(cast(Sequence[Tensor], z))
        if isinstance(model, HasInverse):
            return self._shown(model.inverse(cast(Tensor, z)))
        return self._shown(cast(HasDecoder, model).decode(cast(Tensor, z)).mean)

    def evaluate(self) -> list[Metric]:
        """Return the metrics again, by the recipe's own protocol with the run's seed.

        Raises:
            DataError: Weights of a network that judges are missing.
            RunFailure: A number is not finite.
        """
        spec = self.recipe.evaluation
        return evaluate(self.module, self.data, spec, self.seed, self._data_root)

    # ------------------------------------------------------------------------- small things

    def _require(self, ability: str) -> None:
        if ability not in self.can:
            reason = f"{type(self.module).__name__} has no {ABILITIES[ability].words}"
            offers = f"it can {', '.join(self.can)}" if self.can else "use its .module"
            raise UsageError(self.cell, reason, offers)

    @property
    def _coder(self) -> HasCodes | None:
        model = self.module
        if isinstance(model, TwoStage):
            return model.coder
        return model if isinstance(model, HasCodes) else None

    @property
    def _pixels(self) -> bool:
        """Whether examples are images; patches that lost a pixel are not."""
        shape = self.data.image_shape
        return shape is not None and math.prod(shape) == self.data.dim

    @property
    def _like(self) -> Tensor:
        """A tensor of the model's type and device."""
        return next(self.module.parameters(), torch.empty(0))

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self._like.device).manual_seed(seed)

    def _labels(self, n: int, labels: Sequence[int] | None, classes: int | None) -> Tensor:
        if labels is None:
            return torch.arange(n, device=self._like.device) % (classes or 1)
        if len(labels) != n or not all(0 <= label < (classes or 0) for label in labels):
            reason = f"{n} below {classes} are needed" if classes else "there are no classes"
            raise UsageError(f"labels {list(labels)[:5]}", reason, "give others, or none")
        return torch.tensor(labels, device=self._like.device)

    def _dequantised(self, stored: Tensor, noise: torch.Generator) -> Tensor:
        return self.data.dequantised(stored.to(self._like.device), noise)

    def _shown(self, inputs: Tensor) -> Tensor:
        """Return inputs or outputs of the model in the data's own units."""
        if not self._pixels or self.data.image_shape is None or self.data.to_pixels is None:
            return inputs.reshape(-1, *self.data.event_shape)
        # Logits of pixels near 1 would lose digits.
        exact = inputs.double() if self.data.from_pixels is not None else inputs
        return self.data.to_pixels(exact).reshape(-1, *self.data.image_shape)

    def _inputs(self, x: Examples) -> Tensor:
        """Return examples in the data's own units as the model takes them.

        Raises:
            UsageError: They have another shape.
        """
        given = torch.as_tensor(x)
        if len(given.shape) < 2 or math.prod(given.shape[1:]) != self.data.dim:
            own = self.data.image_shape if self._pixels else self.data.event_shape
            wanted = ", ".join(map(str, own or ()))
            reason = f"examples of {self.data.name} have shape ({wanted})"
            raise UsageError(f"x of shape {tuple(given.shape)}", reason, f"give (n, {wanted})")
        back = self.data.from_pixels if self._pixels else None
        inputs = given if back is None else back(given.double())
        return inputs.to(self._like).reshape(-1, *self.data.event_shape)

    def _parts(self, x: Examples) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = self._inputs(x).split(self.recipe.evaluation.batch_size)
        return parts

    def _batchwise(self, x: Examples, function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([function(part) for part in self._parts(x)])

    def _in_nats(self, nats: Tensor, inputs: Tensor) -> Tensor:
        """Return log densities of the model's inputs as those of the data's own units."""
        in_unit = negative_in_unit(self.data, nats, inputs)
        scale = self.data.dim * math.log(2) if self.data.unit == "bits/dim" else 1.0
        return -in_unit * scale
