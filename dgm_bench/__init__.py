"""Reproduces the published tables of deep generative models, with a verdict for each number."""

__version__ = "0.1.0"
