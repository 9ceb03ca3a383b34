"""Cells whose trainings take seconds, and of which ten seeds are stored."""

#: A flow, a VAE with a flow, and one with relaxed discrete latents.
CHEAP = (
    "ffjord/density/maf-5/digits",
    "ffjord/vi/planar/digits-binary",
    "discrete/gumbel/gumbel/digits-categorical",
)
