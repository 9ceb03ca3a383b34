"""Sylvester flows (https://arxiv.org/abs/1803.05649): orthogonal, Householder and triangular.

``z' = z + Q R1 tanh(R2 Q^T z + b)`` with orthonormal columns in ``Q`` and upper triangular ``R1``
and ``R2``; the map is invertible if all products of their diagonals are above -1 (section 3.1).
All parameters depend on the example.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dgm_bench.annotations import Count
from dgm_bench.errors import DeclarationError
from dgm_bench.models.latent.posteriors.gaussian import Latents

Kind = Literal["orthogonal", "householder", "triangular"]

#: Of the iteration that orthonormalises columns (Sylvester code, VAE.py).
MAX_STEPS, TOLERANCE = 100, 1e-6
#: Steps on a GPU: enough for singular values that differ by a factor of a thousand. A step
#: multiplies small ones by 1.5; close to 1 convergence is quadratic.
GPU_STEPS = 30


class AmortisedSylvester(nn.Module):
    """A sequence of Sylvester maps.

    As in the released code, the diagonals go through tanh, and one matrix gives both strictly
    upper parts: its upper half that of ``R1``, its lower half, transposed, that of ``R2``.

    Van den Berg, Hasenclever, Tomczak and Welling (2018), https://arxiv.org/abs/1803.05649,
    section 3.

    Args:
        features: Number of features.
        latent: Number of latent variables.
        flows: Number of maps.
        kind: Parametrisation of ``Q``: orthonormal columns by iteration, a product of Householder
            reflections, or, for triangular maps, identity and reversal alternately.
        vectors: Columns of an orthogonal ``Q``: the bottleneck.
        reflections: Householder reflections in each ``Q``.

    Example:
        >>> flow = AmortisedSylvester(features=8, latent=2, flows=2, kind="triangular")
        >>> features, z = torch.randn(5, 8), torch.randn(5, 3, 2)
        >>> z, log_det = flow(z, features, torch.Generator().manual_seed(0))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    upper: Float[Tensor, "width width"]

    def __init__(
        self,
        features: int,
        latent: int,
        flows: Count = 16,
        kind: Kind = "orthogonal",
        vectors: Count = 32,
        reflections: Count = 8,
    ) -> None:
        super().__init__()
        if kind == "orthogonal" and not 0 < vectors <= latent:
            reason = f"{vectors} orthonormal vectors in {latent} dimensions"
            raise DeclarationError("vectors", reason, f"use 1 to {latent}")
        self.latent, self.flows, self.kind = latent, flows, kind
        self.width = vectors if kind == "orthogonal" else latent
        self.triangle = nn.Linear(features, flows * self.width**2)
        self.diagonals = nn.Linear(features, 2 * flows * self.width)
        self.offset = nn.Linear(features, flows * self.width)
        vectors_per_q = {"orthogonal": vectors, "householder": reflections, "triangular": 0}[kind]
        self.basis = nn.Linear(features, flows * vectors_per_q * latent) if vectors_per_q else None
        mask = torch.ones(self.width, self.width).triu(1)
        self.register_buffer("upper", mask, persistent=False)

    def forward(
        self, z: Latents, features: Float[Tensor, "batch features"], generator: torch.Generator
    ) -> tuple[Latents, Float[Tensor, "batch samples"]]:
        """Return the transformed latent variables and the log-determinant (equation 10)."""
        r1, r2, diagonal_products = self.triangular_factors(features)
        offset = self.offset(features).unflatten(1, (self.flows, 1, self.width))
        basis = self.orthonormal(features)
        log_det = z.new_zeros(z.shape[:2])
        for k in range(self.flows):
            inner = self._project(z, basis, k) @ r2[:, k].mT
            h = (inner + offset[:, k]).tanh()
            z = z + self._embed(h @ r1[:, k].mT, basis, k)
            log_det = log_det + (1 + diagonal_products[:, None, k] * (1 - h.square())).log().sum(-1)
        return z, log_det

    def triangular_factors(
        self, features: Float[Tensor, "batch features"]
    ) -> tuple[
        Float[Tensor, "batch flows width width"],
        Float[Tensor, "batch flows width width"],
        Float[Tensor, "batch flows width"],
    ]:
        """Return ``R1``, ``R2`` and the products of their diagonals, which are above -1."""
        full = self.triangle(features).unflatten(1, (self.flows, self.width, self.width))
        both = self.diagonals(features).tanh().unflatten(1, (2, self.flows, self.width))
        one, two = both.unbind(1)
        r1 = full * self.upper + one.diag_embed()
        r2 = full.mT * self.upper + two.diag_embed()
        return r1, r2, one * two

    def orthonormal(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch flows latent columns"] | None:
        """Return every ``Q``, the unit normals of its reflections, or None for triangular maps."""
        if self.basis is None:
            return None
        raw: Tensor = self.basis(features).unflatten(1, (self.flows, self.latent, -1))
        if self.kind == "orthogonal":
            return orthonormalised(raw)
        return raw / raw.square().sum(-2, keepdim=True).sqrt()

    def _project(
        self, z: Latents, basis: Float[Tensor, "batch flows latent columns"] | None, k: int
    ) -> Float[Tensor, "batch samples {self.width}"]:
        """Return ``Q^T z``."""
        if basis is None:
            return z.flip(-1) if k % 2 else z
        if self.kind == "orthogonal":
            return z @ basis[:, k]
        for normal in basis[:, k].unbind(-1):
            z = _reflected(z, normal)
        return z

    def _embed(
        self,
        h: Float[Tensor, "batch samples {self.width}"],
        basis: Float[Tensor, "batch flows latent columns"] | None,
        k: int,
    ) -> Float[Tensor, "batch samples {self.latent}"]:
        """Return ``Q h``."""
        if basis is None:
            return h.flip(-1) if k % 2 else h
        if self.kind == "orthogonal":
            return h @ basis[:, k].mT
        for normal in reversed(basis[:, k].unbind(-1)):
            h = _reflected(h, normal)
        return h


def _reflected(z: Latents, normal: Float[Tensor, "batch latent"]) -> Latents:
    """Return ``(I - 2 v v^T) z``."""
    along = torch.einsum("bsl,bl->bs", z, normal)
    return z - 2 * along[..., None] * normal[:, None]


def orthonormalised(
    raw: Float[Tensor, "batch flows latent columns"],
) -> Float[Tensor, "batch flows latent columns"]:
    """Return the nearest matrices with orthonormal columns (the paper's equation 14).

    ``Q <- Q (I + (I - Q^T Q) / 2)`` from a matrix of unit Frobenius norm converges to them, and
    stops at convergence. In training on a GPU there are always :data:`GPU_STEPS`, or
    :data:`MAX_STEPS` for square matrices, as a check of convergence would synchronise.
    """
    checks_convergence = not (raw.is_cuda and torch.is_grad_enabled())
    square = raw.shape[-1] == raw.shape[-2]
    q = raw / raw.square().sum((-2, -1), keepdim=True).sqrt()
    identity = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
    for _ in range(MAX_STEPS if checks_convergence or square else GPU_STEPS):
        residual = identity - q.mT @ q
        if checks_convergence and residual.detach().square().sum((-2, -1)).max() <= TOLERANCE**2:
            break
        q = q + 0.5 * q @ residual
    return q
