"""Recipes of generative adversarial networks; ``paper.toml`` names the functions."""

from __future__ import annotations

from . import dcgan as _dcgan

dcgan = _dcgan.dcgan
