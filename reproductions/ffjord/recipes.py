"""Recipes of the rows of the FFJORD tables, as published.

Each function takes a column's data set and the row's arguments and returns a recipe, or None
where there is none. What the papers leave open is said in the recipe's notes. One file a family:
``feedforward.py`` (the MAF paper's rows), ``discrete.py``, ``continuous.py``, ``images.py``,
``variational.py``, ``approaches.py``, ``neural_ode.py``. How the rows of vectors are trained is in
``protocols.py``.
"""

from dgm_bench.spec import Recipe

from .approaches import approach
from .continuous import ffjord, ffjord_adjoint, ffjord_dto, ffjord_fast, flow_matching, planar_cnf
from .continuous import rnode as _rnode_on_tables
from .discrete import glow, maf_ddsf, nice, nsf, planar, tan
from .feedforward import gaussian, made, maf, real_nvp
from .images import ffjord_multiscale, ffjord_single, glow_multiscale, real_nvp_multiscale
from .images import rnode as _rnode_on_images
from .neural_ode import gradients, residual_network
from .shared import IMAGES
from .variational import ffjord_vae, vae

__all__ = [
    "approach",
    "ffjord",
    "ffjord_adjoint",
    "ffjord_dto",
    "ffjord_fast",
    "ffjord_multiscale",
    "ffjord_single",
    "ffjord_vae",
    "flow_matching",
    "gaussian",
    "glow",
    "glow_multiscale",
    "gradients",
    "made",
    "maf",
    "maf_ddsf",
    "nice",
    "nsf",
    "planar",
    "planar_cnf",
    "real_nvp",
    "real_nvp_multiscale",
    "residual_network",
    "rnode",
    "tan",
    "vae",
]


def rnode(data: str) -> Recipe:
    """RNODE, on tables or on images."""
    return _rnode_on_images(data) if data in IMAGES else _rnode_on_tables(data)
