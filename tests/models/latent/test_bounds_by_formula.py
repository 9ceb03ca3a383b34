"""Bounds of autoencoders in NumPy: each posterior, prior and decoder by its paper's formula.

From the modules' own weights, example by example and draw by draw, in double precision.
"""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import log_softmax, logsumexp

from dgm_bench.models.latent.gated_vae import ContinuousDenseVAE, ConvVAE, DenseVAE

LATENT, HIDDEN, SHAPE = 4, 8, (1, 2, 3)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def softplus(v):
    return np.logaddexp(0, v)


def weights(module):
    return [parameter.detach().numpy() for parameter in module.parameters()]


def linear(module, x):
    matrix, bias = weights(module)
    return x @ matrix.T + bias


def half(v, axis=-1):
    return np.split(v, 2, axis)


def normal(z, mean=0.0, variance=1.0):
    """Return the log density of a diagonal Gaussian."""
    terms = np.log(2 * np.pi) + np.log(variance) + (z - mean) ** 2 / variance
    return -0.5 * terms.sum(-1)


# ---------------------------------------------------------------- posteriors: z and log|det|


def no_flow(flow, z, features):
    return z, 0.0


def planar(flow, z, features):
    """Rezende and Mohamed (2015), equations 10 to 12 and appendix A.1."""
    push, direction, offset = (
        linear(m, features).reshape(flow.shape[0], -1)
        for m in (flow.push, flow.direction, flow.offset)
    )
    total = 0.0
    for u, w, (b,) in zip(push, direction, offset, strict=True):
        u_hat = u + (-1 + softplus(w @ u) - w @ u) * w / (w @ w)
        h = np.tanh(w @ z + b)
        total += np.log(np.abs(1 + u_hat @ ((1 - h**2) * w)))
        z = z + u_hat * h
    return z, total


def inverse_autoregressive(flow, z, features):
    """Kingma et al. (2016), equations 10 to 14, with blocks of units (Sylvester code)."""
    context, total = linear(flow.context, features), 0.0
    units, dims = np.arange(len(context)) // (len(context) // LATENT), np.arange(LATENT)
    for k, gated in enumerate(flow.maps):
        w1, b1, w2, b2, w3, b3 = weights(gated)
        z = z[::-1] if k % 2 else z
        h = _elu((w1 * (dims <= units[:, None])) @ z + b1) + context
        h = _elu(np.tril(w2) @ h + b2)
        mean, raw = half((w3 * (units < np.tile(dims, 2)[:, None])) @ h + b3)
        gate = sigmoid(raw + 1)
        z, total = gate * z + (1 - gate) * mean, total + np.log(gate).sum()
    return z, total


def _elu(v):
    return np.where(v > 0, v, np.expm1(v))


def sylvester(flow, z, features):
    """Van den Berg et al. (2018), equations 13 to 15, with the determinant of the whole matrix."""
    k, m, total = flow.flows, flow.width, 0.0
    full = linear(flow.triangle, features).reshape(k, m, m)
    diagonals = np.tanh(linear(flow.diagonals, features)).reshape(2, k, m)
    offset = linear(flow.offset, features).reshape(k, m)
    raw = linear(flow.basis, features).reshape(k, LATENT, -1) if flow.basis else [None] * k
    for i in range(k):
        q = _basis(flow.kind, raw[i], i)
        r1 = np.triu(full[i], 1) + np.diag(diagonals[0, i])
        r2 = np.triu(full[i].T, 1) + np.diag(diagonals[1, i])
        h = np.tanh(r2 @ q.T @ z + offset[i])
        jacobian = np.eye(LATENT) + q @ r1 @ np.diag(1 - h**2) @ r2 @ q.T
        z, total = z + q @ r1 @ h, total + np.linalg.slogdet(jacobian)[1]
    return z, total


def _basis(kind, raw, i):
    if kind == "triangular":
        return np.eye(LATENT)[::-1] if i % 2 else np.eye(LATENT)
    if kind == "orthogonal":  # the nearest matrix with orthonormal columns
        left, _, right = np.linalg.svd(raw, full_matrices=False)
        return left @ right
    q = np.eye(LATENT)
    for v in raw.T:
        q = q @ (np.eye(LATENT) - 2 * np.outer(v, v) / (v @ v))
    return q


def continuous(flow, z, features):
    """Grathwohl et al. (2018), equation 4 and appendix B.2, by another solver."""
    total = 0.0
    for network, amortised in zip(flow.networks, flow.amortised, strict=True):
        layers = _low_rank(network, linear(amortised, features))

        def slope(t, state, layers=layers):
            h, jacobian = state[:-1], np.eye(LATENT)
            for n, (matrix, by_time, bias) in enumerate(layers):
                if n:
                    h, jacobian = softplus(h), np.diag(sigmoid(h)) @ jacobian
                h, jacobian = matrix @ h + by_time * t + bias, matrix @ jacobian
            return [*h, np.trace(jacobian)]

        end = solve_ivp(slope, (0, 0.5), [*z, 0.0], "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        z, total = end[:-1], total + end[-1]
    return z, total


def _low_rank(network, numbers):
    """Return ``W + U V^T``, the weights of the time, and the bias of each layer."""
    layers = []
    for layer in network.layers:
        matrix, bias = weights(layer)
        outputs, inputs = matrix.shape[0], matrix.shape[1] - 1
        v, u, own, numbers = np.split(
            numbers, np.cumsum([inputs * layer.rank, layer.rank * outputs, outputs])
        )
        update = (v.reshape(inputs, -1) @ u.reshape(-1, outputs)).T
        layers.append((matrix[:, 1:] + update, matrix[:, 0], bias + own))
    return layers


POSTERIORS = {
    "no-flow": ({}, no_flow),
    "planar": ({"flows": 3}, planar),
    "iaf": ({"flows": 3, "width": 12}, inverse_autoregressive),
    "sylvester-orthogonal": ({"flows": 2, "vectors": 3}, sylvester),
    "sylvester-householder": ({"flows": 2, "reflections": 3}, sylvester),
    "sylvester-triangular": ({"flows": 3}, sylvester),
    "ffjord": ({"flows": 2, "hidden": [6, 5], "rank": 2, **TIGHT}, continuous),
}

# ---------------------------------------------------------------- priors


def standard(model, z):
    return normal(z)


def mixture(model, z):
    mean, log_variance = weights(model.prior)
    return _mixture(z, mean, np.exp(log_variance))


def _mixture(z, mean, variance):
    return logsumexp(normal(z[None], mean, variance)) - np.log(len(mean))


def vamp(model, z):
    (inputs,) = weights(model.prior)
    return _mixture(z, *moments(model, np.clip(inputs, 0, 1)))


def aggregated(model, z):
    return _mixture(z, *moments(model, EXAMPLES.numpy()))


def real_nvp(model, z):
    """Papamakarios et al. (2017), appendix: ``u = m x + (1 - m) exp(-s) (x - t)``."""
    total = 0.0
    for i, layer in enumerate(model.prior.layers):
        kept = z[(i + 1) % 2 :: 2]
        log_scale = _network(weights(layer.log_scale), kept, np.tanh)
        shift = _network(weights(layer.shift), kept, lambda v: np.maximum(v, 0))
        z, total = z.copy(), total - log_scale.sum()
        z[i % 2 :: 2] = (z[i % 2 :: 2] - shift) * np.exp(-log_scale)
    return normal(z) + total


def maf(model, z):
    """Papamakarios et al. (2017), equations 2 to 5; masks of Germain et al., equations 12, 13."""
    total = 0.0
    for i, layer in enumerate(model.prior.layers):
        order = np.arange(LATENT)[:: -1 if i % 2 else 1] + 1
        w1, b1, w2, b2 = weights(layer.network)
        degrees = np.arange(len(b1)) % (LATENT - 1) + 1
        h = np.maximum((w1 * (degrees[:, None] >= order)) @ z + b1, 0)
        mean, log_precision = half((w2 * (np.tile(order, 2)[:, None] > degrees)) @ h + b2)
        z, total = (z - mean) * np.exp(0.5 * log_precision), total + 0.5 * log_precision.sum()
    return normal(z) + total


def _network(parameters, x, activation):
    *inner, last = zip(parameters[::2], parameters[1::2], strict=True)
    for matrix, bias in inner:
        x = activation(matrix @ x + bias)
    return last[0] @ x + last[1]


PRIORS = {
    "standard": ({}, standard),
    "mixture": ({"components": 5}, mixture),
    "vamp": ({"components": 5, "init_mean": 0.5, "init_std": 0.6}, vamp),
    "aggregated": ({}, aggregated),
    "real-nvp": ({"layers": 3, "hidden": [7]}, real_nvp),
    "maf": ({"layers": 2, "hidden": [9]}, maf),
}

# ---------------------------------------------------------------- encoders and decoders


def gated_dense(layer, x):
    values, gates = half(linear(layer, x))
    return values * sigmoid(gates)


def convolved(layer, x):
    """Return a convolution of images, channels first, or the transposed one."""
    (matrix, bias), (stride, _), (pad, _) = weights(layer), layer.stride, layer.padding
    rows, columns = matrix.shape[2:]
    if isinstance(layer, torch.nn.ConvTranspose2d):
        n, _, height, width = x.shape
        full = np.zeros(
            (n, len(bias), (height - 1) * stride + rows, (width - 1) * stride + columns)
        )
        for i in range(height):
            for j in range(width):
                at = full[:, :, i * stride : i * stride + rows, j * stride : j * stride + columns]
                at += np.einsum("nc,cohw->nohw", x[:, :, i, j], matrix)
        extra = layer.output_padding[0]
        full = np.pad(full, [(0, 0), (0, 0), (0, extra), (0, extra)])
        return full[:, :, pad : full.shape[2] - pad, pad : full.shape[3] - pad] + _over(bias)
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, matrix) + _over(bias)


def _over(bias):
    return bias[:, None, None]


def gated_convolved(layer, x):
    values, gates = half(convolved(layer, x), 1)
    return values * sigmoid(gates)


def encoded(model, x):
    if isinstance(model, DenseVAE):
        h = x.reshape(len(x), -1)
        for gated in list(model.encoder)[1:]:
            h = gated_dense(gated.layer, h)
        return h
    for gated in model.encoder.layers:
        x = gated_convolved(gated.layer, x)
    return x.reshape(len(x), -1)


def moments(model, x):
    features, posterior = encoded(model, x), model.posterior
    variance = softplus(linear(posterior.raw_variance, features))
    if getattr(model, "levels", False):
        variance = np.clip(variance, 0.01, 7)  # Sylvester code, for Frey Faces
    return linear(posterior.mean, features), variance


def decoded(model, z):
    """Return the outputs for one draw: logits, for grey pixels over 256 levels of each."""
    if isinstance(model, DenseVAE):
        first, second, last = model.decoder
        return linear(last, gated_dense(second.layer, gated_dense(first.layer, z)))
    *deconvolutions, last = list(model.decoder.layers)[: 7 + model.levels]
    h = z[None, :, None, None]
    for gated in deconvolutions[:6]:
        h = gated_convolved(gated.layer, h)
    for plain in (*deconvolutions[6:], last):
        h = convolved(plain, h)
    return h[0].reshape(256, -1).T if model.levels else h.ravel()


def log_likelihood(model, outputs, x):
    x = x.ravel()
    if getattr(model, "levels", False):
        chosen = np.round(255 * x).astype(int)
        return np.take_along_axis(log_softmax(outputs, 1), chosen[:, None], 1).sum()
    one = sigmoid(outputs)
    return (x * np.log(one) + (1 - x) * np.log(1 - one)).sum()


# ---------------------------------------------------------------- equal weights, equal numbers

EXAMPLES = (torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5).double()


def shaken(model):
    """Return a model whose weights make every term count."""
    with torch.no_grad():
        for module in (model.posterior, model.prior):
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        for parameter in model.decoder.parameters():
            parameter.mul_(2)
    model.calibrate(EXAMPLES)
    return model.eval()


def check(model, x, flow=no_flow, prior=standard, atol=1e-10):
    draws = model.draw(x, 2, torch.Generator().manual_seed(2))
    noise = torch.empty(len(x), 2, model.latent).normal_(generator=torch.Generator().manual_seed(2))
    features, (mean, variance) = encoded(model, x.numpy()), moments(model, x.numpy())
    for b, s in np.ndindex(len(x), 2):
        start = mean[b] + np.sqrt(variance[b]) * noise[b, s].numpy()
        z, log_det = flow(model.posterior.flow, start, features[b])
        expected = {
            "z": z,
            "log_posterior": normal(start, mean[b], variance[b]) - log_det,
            "log_prior": prior(model, z),
            "log_likelihood": log_likelihood(model, decoded(model, z), x[b].numpy()),
        }
        for name, value in expected.items():
            found = getattr(draws, name)[b, s].detach().numpy()
            np.testing.assert_allclose(found, value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.usefixtures("unchecked")  # numbers alone
@pytest.mark.parametrize("name", POSTERIORS)
def test_bounds_of_each_posterior(name):
    args, flow = POSTERIORS[name]
    if name == "ffjord":
        model = ContinuousDenseVAE(SHAPE, LATENT, HIDDEN, posterior_args=args)
    else:
        model = DenseVAE(SHAPE, LATENT, HIDDEN, posterior=name, posterior_args=args)
    # The iteration stops where columns are orthonormal up to 1e-6 (Sylvester code).
    atol = {"sylvester-orthogonal": 2e-5, "ffjord": 1e-7}.get(name, 1e-10)
    check(shaken(model), EXAMPLES[:2], flow, atol=atol)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", PRIORS)
def test_bounds_of_each_prior(name):
    args, prior = PRIORS[name]
    model = DenseVAE(SHAPE, LATENT, HIDDEN, prior=name, prior_args=args)
    check(shaken(model), EXAMPLES[:2], prior=prior)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("levels", [False, True])
def test_bounds_of_gated_convolutions(levels):
    model = shaken(ConvVAE((1, 8, 4), LATENT, levels))
    x = torch.rand(2, 1, 8, 4)
    if levels:
        model.posterior.raw_variance.bias.data = torch.tensor([-9.0, 9.0, 0.0, 1.0])
    check(model, x if levels else x.round(), atol=1e-9)


def test_a_bound_is_the_sum_of_its_terms():
    """Kingma and Welling (2013), equation 7, of one draw."""
    model = shaken(DenseVAE(SHAPE, LATENT, HIDDEN))
    draws = model.draw(EXAMPLES, 1, torch.Generator().manual_seed(2))
    expected = draws.log_likelihood + draws.log_prior - draws.log_posterior
    found = model.elbo(EXAMPLES, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(found.detach(), expected[:, 0].detach(), atol=1e-12)
