"""Both stages of a generative model of images: an autoencoder with codes, and priors over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dgm_bench.errors import DeclarationError
from dgm_bench.models.capabilities import HasCodePrior, HasCodes, Levels
from dgm_bench.spec import Stage

REMEDY = "declare one prior a level, top first, for the codes and classes that there are"


def compose(stages: Sequence[Stage], models: Sequence[nn.Module]) -> nn.Module:
    """Return the model of all stages together; of one stage, its model.

    Raises:
        DeclarationError: The later stages are not one prior for each level of codes.
    """
    if not any(stage.data.codes_of for stage in stages):
        return models[-1]
    return TwoStage(models[0], models[1:])


class TwoStage(nn.Module):
    """An autoencoder with a prior for each level of its codes, sampled ancestrally, top first.

    VQ-VAE-2 (https://arxiv.org/abs/1906.00446, section 3.2).

    Args:
        autoencoder: The first stage, with :class:`HasCodes`.
        priors: One for each level, top first, each with :class:`HasCodePrior`.

    Raises:
        DeclarationError: There is not one prior for each level, in this order, or they differ in
            grids, codebooks or number of classes.
    """

    def __init__(self, autoencoder: nn.Module, priors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.priors = nn.ModuleList(priors)
        for model in priors:
            if not isinstance(model, HasCodePrior):
                raise DeclarationError(type(model).__name__, "is no prior over codes", REMEDY)
        self._require_levels()
        for level in range(len(priors)):
            self._require_same(self.prior(level))

    def _require_levels(self) -> None:
        levels = [self.prior(index).level for index in range(len(self.priors))]
        wanted = list(range(len(self.coder.grids)))
        if levels != wanted:
            reason = f"do not fit codes of levels {wanted}"
            raise DeclarationError(f"priors of levels {levels}", reason, REMEDY)

    def _require_same(self, prior: HasCodePrior) -> None:
        coder = self.coder
        for what, theirs, wanted in (
            ("grids", tuple(map(tuple, prior.grids)), tuple(map(tuple, coder.grids))),
            ("codebooks of", prior.codebook_sizes, coder.codebook_sizes),
            ("numbers of classes", prior.classes, self.classes),
        ):
            if theirs != wanted:
                reason = f"has {what} {theirs}, not {wanted}"
                raise DeclarationError(f"the prior of level {prior.level}", reason, REMEDY)

    @property
    def coder(self) -> HasCodes:
        """The autoencoder, typed as having codes."""
        return cast(HasCodes, self.autoencoder)

    @property
    def classes(self) -> int | None:
        """Number of classes that the top prior is conditioned on, or None."""
        return self.prior(0).classes

    def prior(self, level: int) -> HasCodePrior:
        """Return the prior of a level, typed as a prior over codes."""
        return cast(HasCodePrior, self.priors[level])

    @torch.no_grad()
    def draw_codes(
        self,
        labels: Int[Tensor, " n"],
        generator: torch.Generator,
        above: Levels = (),
    ) -> list[Int[Tensor, "n _rows _columns"]]:
        """Return codes of each level, top first, for an image of each class.

        Args:
            labels: The classes; only their number matters without classes.
            generator: Source of the noise, on the model's device.
            above: Given codes of the first levels; the others are sampled.
        """
        codes = list(above)
        for level in range(len(codes), len(self.priors)):
            codes.append(self.prior(level).sample_codes(codes, labels, generator))
        return codes

    @torch.no_grad()
    def draw_images(
        self, labels: Int[Tensor, " n"], generator: torch.Generator
    ) -> Float[Tensor, "n channels height width"]:
        """Return an image of each class, pixels in [0, 1]; only ``n`` matters without classes."""
        return self.coder.decode(self.draw_codes(labels, generator))

    @torch.no_grad()
    def reconstruct(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the reconstructions of images, pixels in [0, 1]."""
        return self.coder.decode(self.coder.encode(x))
