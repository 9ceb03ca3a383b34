"""Normalising flows and autoregressive densities: explicit maps between data and noise."""
