"""Autoregressive densities of the codes of images, and of the images they draw."""
