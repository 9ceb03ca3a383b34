"""Recipes of VQ-VAE-2 (Razavi, van den Oord and Vinyals, NeurIPS 2019) and of what is beside it.

``published.py`` has ImageNet and FFHQ with the papers' settings, ``ours.py`` what fits digits,
MNIST and CIFAR-10. Rows that show other metrics of a run name the same function with the same
arguments.
"""

from __future__ import annotations

from dgm_bench.spec import Recipe

from ..gan.biggan import biggan_deep as _biggan_deep
from ..gan.dcgan import dcgan as _dcgan
from . import ours as _ours
from . import published as _published
from .shared import real_images as _real_images

dcgan = _dcgan


def vqvae2(
    data: str,
    levels: int = 2,
    conditional: bool = True,
    attention: bool = True,
    features: str = "classifier",
    network: _ours.Network = "pixelcnn",
) -> Recipe:
    """VQ-VAE-2: as published on ImageNet and FFHQ, ours on smaller images.

    Args:
        data: The column's data set.
        levels: On small images, two or three.
        conditional: On small images, whether the priors are conditional on the class.
        attention: On small images, whether the upper priors have attention.
        features: Those by which small images are compared.
        network: On small images, the priors without attention: gated PixelCNN or PixelCNN++.
    """
    if data in _published.STRIDES:
        return _published.vqvae2(data)
    return _ours.vqvae(
        data,
        levels=levels,
        conditional=conditional,
        attention=attention,
        features=features,
        network=network,
    )


def vqvae(data: str, features: str = "classifier") -> Recipe:
    """VQ-VAE with one level and a gated PixelCNN (van den Oord et al., 2017), on small images.

    Args:
        data: The column's data set.
        features: Those by which images are compared.
    """
    return _ours.vqvae(data, levels=1, conditional=True, attention=False, features=features)


def dvae(data: str, prefix: str = "class", features: str = "classifier") -> Recipe:
    """DALL-E's discrete VAE with a transformer: its settings on ImageNet, ours on small images.

    Args:
        data: The column's data set.
        prefix: What the transformer is given: ``class``, or ``text``.
        features: Those by which small images are compared.
    """
    if data in _published.STRIDES:
        return _published.dvae(data)
    return _ours.dvae(data, prefix=prefix, features=features)


def biggan_deep(data: str, features: str = "classifier") -> Recipe:
    """BigGAN-deep as in ``gan/images``; on ImageNet with the evaluation of the other rows.

    Args:
        data: The column's data set.
        features: Those by which small images are compared.
    """
    found = _biggan_deep(data, features)
    return _published.compared(found, data) if data in _published.STRIDES else found


def real(data: str, features: str = "classifier") -> Recipe:
    """Real held-out images, measured as reconstructions are.

    Args:
        data: The column's data set.
        features: Those by which small images are compared.
    """
    if data in _published.STRIDES:
        return _real_images(data, _published.IMAGE_EVALUATIONS[data], _published.SOURCE)
    return _real_images(data, _ours.image_evaluation_of(data, features), _ours.SOURCE)
