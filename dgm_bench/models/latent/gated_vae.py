"""Gated variational autoencoders of images, with any posterior and prior of this package.

``ConvVAE`` is the convolutional model of the Sylvester and FFJORD papers, ``DenseVAE`` the fully
connected one of the VampPrior paper (with one layer of latent variables).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from dgm_bench.annotations import ArgumentsOf, Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.latent.latent_variable_model import LatentVariableModel
from dgm_bench.models.latent.likelihoods import BinaryPixels, PixelLevels
from dgm_bench.models.latent.posteriors import FLOWS, build_posterior
from dgm_bench.models.latent.posteriors.ffjord import ContinuousPosteriorMixin
from dgm_bench.models.latent.priors import PRIORS, build_prior
from dgm_bench.models.networks.gated import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder

#: For Frey Faces, with 256 levels per pixel (Sylvester code, ``models/VAE.py``).
LEVELS, VARIANCE_BOUNDS = 256, (0.01, 7.0)

Arguments = Mapping[str, Any] | None
PosteriorArgs = Annotated[Arguments, ArgumentsOf(FLOWS, ("features", "latent"), by="posterior")]
FFJORDArgs = Annotated[Arguments, ArgumentsOf(FLOWS, ("features", "latent"), name="ffjord")]
PriorArgs = Annotated[Arguments, ArgumentsOf(PRIORS, ("dim", "latent", "event_shape"), by="prior")]


class ConvVAE(LatentVariableModel):
    """Gated convolutions, 64 latent variables (Sylvester code, ``models/VAE.py``).

    Van den Berg, Hasenclever, Tomczak and Welling (2018), https://arxiv.org/abs/1803.05649;
    the same in Grathwohl et al. (2018), https://arxiv.org/abs/1810.01367, section 4.3.

    Args:
        event_shape: Channels, height and width, the latter multiples of 4.
        latent: Number of latent variables.
        levels: False for binary pixels; True for 256 levels per pixel, which also bounds the
            posterior's variance.
        posterior: Name of the posterior; see :mod:`dgm_bench.models.latent.posteriors`.
        posterior_args: Arguments of the posterior's flow.
        prior: Name of the prior; see :mod:`dgm_bench.models.latent.priors`.
        prior_args: Arguments of the prior.

    Raises:
        DeclarationError: Examples are not such images, the posterior or prior is not known, or the
            posterior is ``"ffjord"``, for which there is :class:`ContinuousConvVAE`.

    Example:
        >>> model = ConvVAE((1, 8, 8), latent=4, posterior="planar", posterior_args={"flows": 2})
        >>> x, generator = torch.ones(5, 1, 8, 8), torch.Generator().manual_seed(0)
        >>> model.elbo(x, generator).shape
        torch.Size([5])
        >>> model.sample(3, generator).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 64,
        levels: bool = False,
        posterior: str = "no-flow",
        posterior_args: PosteriorArgs = None,
        prior: str = "standard",
        prior_args: PriorArgs = None,
    ) -> None:
        require_solver(self, posterior)
        if len(event_shape) != 3 or event_shape[1] % 4 or event_shape[2] % 4:
            reason = f"examples of shape {tuple(event_shape)} are no images of sides divisible by 4"
            raise DeclarationError("gated_vae:ConvVAE", reason, "use gated_vae:DenseVAE")
        channels, height, width = event_shape
        encoder = ConvEncoder(channels, (height, width))
        super().__init__(
            event_shape,
            latent,
            encoder,
            build_posterior(
                posterior,
                encoder.features,
                latent,
                posterior_args or {},
                VARIANCE_BOUNDS if levels else None,
            ),
            build_prior(prior, latent, prior_args or {}, event_shape),
            ConvDecoder(latent, channels, (height, width), LEVELS if levels else None),
        )
        self.levels = levels

    def likelihood(self, outputs: Float[Tensor, "n *outputs"]) -> Distribution:
        """Return independent pixels with these logits."""
        return PixelLevels(outputs) if self.levels else BinaryPixels(outputs)


class DenseVAE(LatentVariableModel):
    """Two gated layers in encoder and decoder, for binary examples (VampPrior code, models/VAE.py).

    Tomczak and Welling (2017), https://arxiv.org/abs/1705.07120.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables; 40 in the VampPrior paper.
        hidden: Width of the gated layers; 300 in the VampPrior paper.
        posterior: Name of the posterior; see :mod:`dgm_bench.models.latent.posteriors`.
        posterior_args: Arguments of the posterior's flow.
        prior: Name of the prior; see :mod:`dgm_bench.models.latent.priors`.
        prior_args: Arguments of the prior.

    Raises:
        DeclarationError: The posterior or prior is not known, or the posterior is ``"ffjord"``,
            for which there is :class:`ContinuousDenseVAE`.

    Example:
        >>> model = DenseVAE((4,), latent=2, hidden=8, prior="vamp", prior_args={"components": 3})
        >>> x, generator = torch.ones(5, 4), torch.Generator().manual_seed(0)
        >>> model.elbo(x, generator).shape
        torch.Size([5])
        >>> model.sample(3, generator).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 40,
        hidden: Count = 300,
        posterior: str = "no-flow",
        posterior_args: PosteriorArgs = None,
        prior: str = "standard",
        prior_args: PriorArgs = None,
    ) -> None:
        require_solver(self, posterior)
        dim = math.prod(event_shape)
        super().__init__(
            event_shape,
            latent,
            DenseEncoder(dim, hidden),
            build_posterior(posterior, hidden, latent, posterior_args or {}),
            build_prior(prior, latent, prior_args or {}, event_shape),
            DenseDecoder(latent, hidden, dim),
        )

    def likelihood(self, outputs: Float[Tensor, "n *outputs"]) -> Distribution:
        """Return independent binary pixels with these logits."""
        return BinaryPixels(outputs)


def require_solver(model: LatentVariableModel, posterior: str) -> None:
    """Refuse the continuous posterior in a model that does not report function evaluations."""
    if posterior == "ffjord" and not isinstance(model, ContinuousPosteriorMixin):
        name = type(model).__name__
        remedy = f"use gated_vae:Continuous{name}"
        raise DeclarationError("posterior 'ffjord'", f"{name} does not count its solver", remedy)


class ContinuousConvVAE(ContinuousPosteriorMixin, ConvVAE):
    """The :class:`ConvVAE` with posterior ``"ffjord"``, which counts function evaluations.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    section 4.3 and appendix B.2.

    Args:
        event_shape: Channels, height and width, the latter multiples of 4.
        latent: Number of latent variables.
        levels: As for the :class:`ConvVAE`.
        posterior_args: Arguments of ``AmortisedFFJORD``.
        prior: Name of the prior; see :mod:`dgm_bench.models.latent.priors`.
        prior_args: Arguments of the prior.

    Raises:
        DeclarationError: As for the :class:`ConvVAE`.

    Example:
        >>> small = {"flows": 1, "hidden": [4], "rank": 2}
        >>> model = ContinuousConvVAE((1, 8, 8), latent=4, posterior_args=small)
        >>> model.elbo(torch.ones(5, 1, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([5])
        >>> model.function_evaluations > 0
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 64,
        levels: bool = False,
        posterior_args: FFJORDArgs = None,
        prior: str = "standard",
        prior_args: PriorArgs = None,
    ) -> None:
        super().__init__(event_shape, latent, levels, "ffjord", posterior_args, prior, prior_args)
        self.take_solver()


class ContinuousDenseVAE(ContinuousPosteriorMixin, DenseVAE):
    """The :class:`DenseVAE` with posterior ``"ffjord"``, which counts function evaluations.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    section 4.3 and appendix B.2.

    Args:
        event_shape: Shape of one example.
        latent: Number of latent variables.
        hidden: Width of the gated layers.
        posterior_args: Arguments of ``AmortisedFFJORD``.
        prior: Name of the prior; see :mod:`dgm_bench.models.latent.priors`.
        prior_args: Arguments of the prior.

    Raises:
        DeclarationError: An unknown prior.

    Example:
        >>> small = {"flows": 1, "hidden": [4], "rank": 2}
        >>> model = ContinuousDenseVAE((4,), latent=2, hidden=8, posterior_args=small)
        >>> model.elbo(torch.ones(5, 4), torch.Generator().manual_seed(0)).shape
        torch.Size([5])
        >>> model.function_evaluations > 0
        True
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent: Count = 40,
        hidden: Count = 300,
        posterior_args: FFJORDArgs = None,
        prior: str = "standard",
        prior_args: PriorArgs = None,
    ) -> None:
        super().__init__(event_shape, latent, hidden, "ffjord", posterior_args, prior, prior_args)
        self.take_solver()
