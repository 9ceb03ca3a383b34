"""Autoregressive models of the levels of pixels."""
