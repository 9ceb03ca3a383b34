"""Games of images, each small: what every test of games takes."""

from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec

#: Model, arguments and shape of images.
GAMES = {
    "dcgan": ("dcgan:DCGAN", {"latent": 3, "width": 4}, (2, 16, 16)),
}


def make(case):
    """Return a game as it begins."""
    name, args, shape = GAMES[case]
    return build(ModelSpec(name=name, args=args), shape)
