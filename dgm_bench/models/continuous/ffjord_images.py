"""FFJORD on images: multi-scale, and as one flow with encoder-decoder dynamics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dgm_bench.annotations import Count, Positive
from dgm_bench.errors import DeclarationError
from dgm_bench.models.continuous.conv_dynamics import ConvDynamics
from dgm_bench.models.continuous.flow import ContinuousFlow, SolvedFlow
from dgm_bench.models.continuous.solver import Noise, Solver, SolverName, gradient_of
from dgm_bench.models.flows.multiscale import (
    FactorOut,
    Flatten,
    ImageShape,
    Logit,
    Squeeze,
    ToImage,
    halved,
    image_shape_of,
    squeezed,
)

#: Smallest side of an image at a scale (released code, ``lib/odenvp.py``).
MIN_SIDE = 4


class MultiScaleFFJORD(SolvedFlow):
    """FFJORD with several scales: ``*`` in FFJORD Table 2 (its appendix B.1; ``lib/odenvp.py``).

    Each scale is ``flows`` continuous flows, a squeeze, ``flows`` more, and half of the channels is
    factored out; the last one neither squeezes nor factors out. There are as many scales as leave
    both sides at 4 or more: 3 on MNIST, 4 on CIFAR-10.

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    appendix B.1.

    Args:
        event_shape: Shape of one example.
        flows: Continuous flows before, and after, each squeeze.
        filters: Channels of the hidden layers of the dynamics.
        alpha: Alpha of the logit that pixels in [0, 1) pass first; None for data that are logits.
        image_shape: ``(channels, height, width)``; None where ``event_shape`` is that.
        solver, rtol, atol, step_size, adjoint, noise: As for
            :class:`~dgm_bench.models.continuous.ffjord.FFJORD`; the default tolerances are the
            paper's for images (its appendix C).

    Raises:
        DeclarationError: The image is too small for a single scale.

    Example:
        >>> model = MultiScaleFFJORD((1, 8, 8), flows=1, filters=[4], solver="rk4", step_size=0.5)
        >>> x, generator = torch.rand(2, 1, 8, 8), torch.Generator().manual_seed(0)
        >>> model.log_prob_estimate(x, generator).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        flows: Count = 2,
        filters: Sequence[Count] = (64, 64, 64),
        alpha: Positive | None = 1e-6,
        image_shape: Sequence[Count] | None = None,
        solver: SolverName = "dopri5",
        rtol: Positive = 1e-5,
        atol: Positive = 1e-5,
        step_size: Positive | None = None,
        adjoint: bool = True,
        noise: Noise = "rademacher",
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, gradient_of(adjoint))
        shape = image_shape_of(event_shape, image_shape)
        if min(shape[1:]) < MIN_SIDE:
            raise DeclarationError(f"{shape[1]} x {shape[2]} pixels", "too few", "give 4 x 4")

        def stack(channels: int) -> list[nn.Module]:
            return [ContinuousFlow(ConvDynamics(channels, filters), shared) for _ in range(flows)]

        def scales(shape: ImageShape) -> list[nn.Module]:
            smaller = squeezed(shape)
            if min(smaller[1:]) < MIN_SIDE or shape[1] % 2 or shape[2] % 2:
                return [*stack(shape[0]), Flatten(shape)]
            rest = FactorOut(smaller, scales(halved(smaller)))
            return [*stack(shape[0]), Squeeze(), *stack(smaller[0]), rest]

        layers = [*_to_logits(shape, alpha), *scales(shape)]
        super().__init__(event_shape, layers, shared, noise)


class EncoderDecoderFFJORD(SolvedFlow):
    """FFJORD as a single flow on the whole image: ``†`` in FFJORD Table 2 (its appendix B.1).

    The dynamics are an encoder of convolutions, every second with stride 2, and a decoder of
    transposed ones. The paper gives the filters of the encoder only; the decoder is taken to have
    the same ones in reverse. Hutchinson's noise has the shape of the image, as by default in the
    released code (``train_cnf.py``, ``ODEnet``): with these filters the middle is wider than the
    image, not the bottleneck that would lower the variance (FFJORD, section 3.1.1).

    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2018), https://arxiv.org/abs/1810.01367,
    appendix B.1.

    Args:
        event_shape: Shape of one example; sides that can be halved for every second filter.
        filters: Channels of the encoder's convolutions.
        alpha, image_shape: As for :class:`MultiScaleFFJORD`.
        solver, rtol, atol, step_size, adjoint, noise: Likewise.

    Raises:
        DeclarationError: The sides cannot be halved that often.

    Example:
        >>> model = EncoderDecoderFFJORD((1, 4, 4), filters=[4, 4], solver="rk4", step_size=0.5)
        >>> x, generator = torch.rand(2, 1, 4, 4), torch.Generator().manual_seed(0)
        >>> model.log_prob_estimate(x, generator).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        filters: Sequence[Count] = (64, 64, 128, 128),
        alpha: Positive | None = 1e-6,
        image_shape: Sequence[Count] | None = None,
        solver: SolverName = "dopri5",
        rtol: Positive = 1e-5,
        atol: Positive = 1e-5,
        step_size: Positive | None = None,
        adjoint: bool = True,
        noise: Noise = "rademacher",
    ) -> None:
        shared = Solver(solver, rtol, atol, step_size, gradient_of(adjoint))
        shape = image_shape_of(event_shape, image_shape)
        down = [1 + i % 2 for i in range(len(filters))]
        part = 2 ** down.count(2)
        if shape[1] % part or shape[2] % part:
            size = f"{shape[1]} x {shape[2]} pixels"
            raise DeclarationError(size, f"not divisible by {part}", "use fewer filters")
        up = [-2 if stride == 2 else 1 for stride in reversed(down)]
        network = ConvDynamics(shape[0], [*filters, *reversed(filters[:-1])], [*down, *up])
        flow = ContinuousFlow(network, shared)
        super().__init__(
            event_shape, [*_to_logits(shape, alpha), flow, Flatten(shape)], shared, noise
        )


def _to_logits(shape: ImageShape, alpha: float | None) -> list[nn.Module]:
    return [ToImage(shape), *([] if alpha is None else [Logit(alpha)])]
