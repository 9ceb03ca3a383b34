"""Games of images, each small: what every test of games takes."""

from torch import nn

from dgm_bench.models.adversarial.conditional_norm import ClassBatchNorm
from dgm_bench.models.adversarial.layers import SelfAttention
from dgm_bench.models.build import build
from dgm_bench.spec import ModelSpec

#: Of residual networks with classes and attention.
WIDTHS = {"generator_widths": [4, 2, 1], "discriminator_widths": [1, 2, 4], "halvings": 2}
WIDTHS |= {"classes": 3, "width": 8, "generator_attention": 8, "discriminator_attention": 4}
#: Model, arguments and shape of images.
GAMES = {
    "dcgan": ("dcgan:DCGAN", {"latent": 3, "width": 4}, (2, 16, 16)),
    "sagan": ("sagan:SAGAN", {"latent": 6, **WIDTHS}, (2, 8, 12)),
    "biggan": ("biggan:BigGAN", {"latent": 6, "embedding": 5, **WIDTHS}, (2, 8, 12)),
    "biggan-deep": (
        "biggan_deep:BigGANDeep",
        {"latent": 6, "embedding": 5, "unused": 2, **WIDTHS},
        (2, 8, 12),
    ),
    "progan": ("progan:ProGAN", {"latent": 3, "filters": [4]}, (2, 4, 4)),
    "stylegan": ("stylegan:StyleGAN", {"latent": 3, "filters": [4]}, (2, 4, 4)),
}


def make(case):
    """Return a game as it begins, but for what then has no effect: attention, classes in norms."""
    name, args, shape = GAMES[case]
    game = build(ModelSpec(name=name, args=args), shape)
    for module in game.modules():
        if isinstance(module, SelfAttention):
            nn.init.constant_(module.weight, 0.5)
        if isinstance(module, ClassBatchNorm):
            nn.init.normal_(module.bias.weight)
    return game
