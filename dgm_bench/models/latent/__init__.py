"""Latent variable models: encoders, posteriors, priors, decoders."""
