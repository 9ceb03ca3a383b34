"""Multi-scale Real NVP for images (https://arxiv.org/abs/1605.08803, sections 3.4 to 4.1).

Settings that the paper leaves open are those of the authors' released code
(tensorflow/models, research/real_nvp/real_nvp_multiscale_dataset.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count, Positive
from dgm_bench.errors import DeclarationError
from dgm_bench.models import whole_batch
from dgm_bench.models.flows.flow import Flow
from dgm_bench.models.flows.layers.actnorm import per_channel
from dgm_bench.models.flows.multiscale import (
    FactorOut,
    Flatten,
    ImageShape,
    Logit,
    Squeeze,
    ToImage,
    halved,
    halvings,
    image_shape_of,
    squeezed,
)
from dgm_bench.models.networks.convnets import (
    CentredBatchNorm,
    ResidualNetwork,
    RunningMoments,
    WeightNormConv,
)


class MovedBatchNorm(RunningMoments):
    """Batch normalisation of what a coupling has moved (section 3.7), as the released code has it.

    What is kept passes. A channel that is kept in part, as by a checkerboard, counts as zero where
    it is kept: moved pixels of mean 0 leave with a variance of 2.

    In training mode a batch's own statistics normalise it, and gradients pass through them; in
    evaluation mode running averages do. The released code sets the paper's further averaging over
    recent batches (appendix E) to 0.
    """

    def forward_and_log_det(
        self,
        x: Float[Tensor, "batch channels height width"],
        moved: Float[Tensor, "1 1 height width"] | float = 1.0,
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the batch's statistics count as constants.

        Args:
            x: Outputs of the coupling.
            moved: 1 where they are moved, 0 where they are kept; 1.0 if they all are moved.
        """
        variance, mean = self.variance, self.mean
        if self.training:
            variance, mean = whole_batch.var_mean(x * moved, [0, 2, 3])
            self._average(mean.detach(), variance.detach())
        log_scale = per_channel(-0.5 * (variance + self.eps).log()) * moved
        scale = log_scale.exp()
        u = torch.addcmul(-per_channel(mean) * moved * scale, x, scale)
        return u, log_scale.expand_as(x[:1]).sum().expand(x.shape[0])

    def inverse(
        self,
        u: Float[Tensor, "batch channels height width"],
        moved: Float[Tensor, "1 1 height width"] | float = 1.0,
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``, by the running averages in either mode."""
        scale = (0.5 * per_channel((self.variance + self.eps).log()) * moved).exp()
        return torch.addcmul(per_channel(self.mean) * moved, u, scale)

    @torch.no_grad()
    def _average(
        self, mean: Float[Tensor, " channels"], variance: Float[Tensor, " channels"]
    ) -> None:
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"{len(self.mean)}, momentum={self.momentum}, eps={self.eps}"


class CheckerboardCoupling(nn.Module):
    """``(x + t) exp(s)`` on one colour of a checkerboard, ``s, t`` from the other (section 3.4).

    What is moved is batch-normalised. ``s`` is a learned scale, zero at first, times a hyperbolic
    tangent (section 4.1).

    Args:
        shape: Channels, height and width.
        features: Channels of the residual network.
        blocks: Number of residual blocks.
        keep_even: Whether pixels with an even row + column are kept, or those with an odd one.
    """

    kept: Tensor

    def __init__(self, shape: ImageShape, features: int, blocks: int, keep_even: bool) -> None:
        super().__init__()
        channels, height, width = shape
        position = torch.arange(height).view(-1, 1) + torch.arange(width)
        kept = position % 2 == (0 if keep_even else 1)
        self.register_buffer("kept", kept.to(torch.get_default_dtype())[None, None], False)
        self.norm = CentredBatchNorm(channels)
        self.network = ResidualNetwork(2 * channels + 1, features, 2 * channels, blocks)
        self.scale = nn.Parameter(torch.zeros(()))
        self.norm_moved = MovedBatchNorm(channels)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        shift, log_scale = self._shift_and_log_scale(x)
        u, change = self.norm_moved.forward_and_log_det(
            (x + shift) * log_scale.exp(), 1 - self.kept
        )
        return u, log_scale.sum((1, 2, 3)) + change

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        shift, log_scale = self._shift_and_log_scale(u)
        return self.norm_moved.inverse(u, 1 - self.kept) * (-log_scale).exp() - shift

    def _shift_and_log_scale(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[
        Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]
    ]:
        """Return ``t`` and ``s``, zero where ``x`` is kept."""
        conditioner_input = 2 * self.norm(x * self.kept)
        mask = self.kept.expand(x.shape[0], -1, -1, -1)
        parameters = self.network(
            torch.cat([conditioner_input, -conditioner_input, mask], dim=1).relu()
        )
        shift, unbounded = (parameters * (1 - self.kept)).chunk(2, 1)
        return shift, self.scale * unbounded.tanh()


class ChannelCoupling(nn.Module):
    """``(x + t) exp(s)`` on half of the channels, ``s, t`` from the other half (section 3.4).

    What is moved is batch-normalised.

    Args:
        shape: Channels, height and width; an even number of channels.
        features: Channels of the residual network.
        blocks: Number of residual blocks.
        keep_first: Whether the first half is kept, or the second.
    """

    def __init__(self, shape: ImageShape, features: int, blocks: int, keep_first: bool) -> None:
        super().__init__()
        half = shape[0] // 2
        self.keep_first = keep_first
        self.norm = CentredBatchNorm(half)
        self.network = ResidualNetwork(2 * half, features, 2 * half, blocks)
        self.scale = nn.Parameter(torch.ones(()))
        self.norm_moved = MovedBatchNorm(half)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``."""
        kept, transformed = self._kept_and_transformed(x)
        shift, log_scale = self._shift_and_log_scale(kept)
        transformed = (transformed + shift) * log_scale.exp()
        moved, change = self.norm_moved.forward_and_log_det(transformed)
        return self._join(kept, moved), log_scale.sum((1, 2, 3)) + change

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        kept, transformed = self._kept_and_transformed(u)
        shift, log_scale = self._shift_and_log_scale(kept)
        transformed = self.norm_moved.inverse(transformed)
        return self._join(kept, transformed * (-log_scale).exp() - shift)

    def _kept_and_transformed(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch half height width"], Float[Tensor, "batch half height width"]]:
        first, second = x.chunk(2, 1)
        return (first, second) if self.keep_first else (second, first)

    def _join(
        self,
        kept: Float[Tensor, "batch half height width"],
        transformed: Float[Tensor, "batch half height width"],
    ) -> Float[Tensor, "batch 2*half height width"]:
        return torch.cat([kept, transformed] if self.keep_first else [transformed, kept], dim=1)

    def _shift_and_log_scale(
        self, kept: Float[Tensor, "batch half height width"]
    ) -> tuple[Float[Tensor, "batch half height width"], Float[Tensor, "batch half height width"]]:
        conditioner_input = self.norm(kept)
        shift, unbounded = self.network(
            torch.cat([conditioner_input, -conditioner_input], dim=1).relu()
        ).chunk(2, 1)
        return shift, self.scale * unbounded.tanh()


class DiagonalsFirst(nn.Module):
    """Squeezed channels in another order: the squares' main diagonals, then the other pixels.

    The half that is factored out is then one colour of the checkerboard, for every channel
    (released code, ``squeeze_2x2_ordered``).

    Args:
        channels: Number of squeezed channels.
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        order = torch.arange(channels).view(-1, 4)[:, [0, 3, 1, 2]].T.flatten()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse_order", order.argsort(), persistent=False)

    def forward_and_log_det(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, " batch"]]:
        """Return ``(u, log|det du/dx|)``; the log-determinant is 0."""
        return x[:, self.order], x.new_zeros(x.shape[0])

    def inverse(
        self, u: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return ``x``."""
        return u[:, self.inverse_order]


class MultiScaleRealNVP(Flow):
    """Real NVP with checkerboard and channel-wise couplings and factored out variables.

    The defaults are those of CIFAR-10 (section 4.1: 8 residual blocks, 64 feature maps,
    "downscale only once").

    Dinh, Sohl-Dickstein and Bengio (2016), https://arxiv.org/abs/1605.08803, sections 3.4 to 4.1.

    Args:
        event_shape: Shape of one example.
        features: Channels of the residual networks; twice as many after each squeeze.
        blocks: Residual blocks of each network.
        scales: Number of scales, at most; an odd height or width is not squeezed further.
        alpha: Pixels x in [0, 1) become logit(alpha + (1 - 2 alpha) x) first; None for data that
            are logits already.
        image_shape: [channels, height, width], if examples come flat.

    Raises:
        DeclarationError: If there is no scale.

    Example:
        >>> model = MultiScaleRealNVP((3, 8, 8), features=4, blocks=1).eval()
        >>> model.log_prob(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2])
        >>> model.sample(2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        features: int = 64,
        blocks: Count = 8,
        scales: Count = 2,
        alpha: Positive | None = 0.05,
        image_shape: Sequence[Count] | None = None,
    ) -> None:
        shape = image_shape_of(event_shape, image_shape)
        if scales < 1:
            raise DeclarationError(f"scales {scales}", "nothing is left", "use at least 1")
        pixels = [] if alpha is None else [Logit(alpha)]
        scales = min(scales, 1 + halvings(shape))
        super().__init__(
            event_shape, [ToImage(shape), *pixels, *_scales(shape, scales, features, blocks)]
        )

    def decayed_parameters(self) -> list[nn.Parameter]:
        """Return what section 4.1 regularises: the scales of the weight normalisations.

        The released code adds those of the checkerboard couplings (``rescaling_scale``).
        """
        found: list[nn.Parameter] = []
        for module in self.modules():
            if isinstance(module, WeightNormConv) and module.magnitude is not None:
                found.append(module.magnitude)
            if isinstance(module, CheckerboardCoupling):
                found.append(module.scale)
        return found


def _scales(shape: ImageShape, scales: int, features: int, blocks: int) -> list[nn.Module]:
    """Return the layers for images of ``shape``, which end in vectors (section 3.6)."""
    if scales == 1:
        return [*_checkerboards(shape, 4, features, blocks), Flatten(shape)]
    small = squeezed(shape)
    return [
        *_checkerboards(shape, 3, features, blocks),
        Squeeze(),
        *_channel_couplings(small, 3, 2 * features, blocks),
        DiagonalsFirst(small[0]),
        FactorOut(small, _scales(halved(small), scales - 1, 2 * features, blocks)),
    ]


def _checkerboards(shape: ImageShape, n: int, features: int, blocks: int) -> list[nn.Module]:
    return [CheckerboardCoupling(shape, features, blocks, i % 2 == 0) for i in range(n)]


def _channel_couplings(shape: ImageShape, n: int, features: int, blocks: int) -> list[nn.Module]:
    return [ChannelCoupling(shape, features, blocks, i % 2 == 0) for i in range(n)]
