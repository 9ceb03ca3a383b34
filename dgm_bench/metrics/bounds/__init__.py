"""Likelihoods and lower bounds of them, and what these are made of."""
