"""Recipes of generative adversarial networks; ``paper.toml`` names the functions."""

from __future__ import annotations

from . import biggan as _biggan
from . import dcgan as _dcgan
from . import growing as _growing

dcgan = _dcgan.dcgan
sagan, biggan, biggan_deep = _biggan.sagan, _biggan.biggan, _biggan.biggan_deep
progan, stylegan = _growing.progan, _growing.stylegan
