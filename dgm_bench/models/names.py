"""The class of each declared model: recipes and records refer to models by name, never by path.

A name is part of a recipe's hash and stands in stored records, so it outlives every move and
renaming of the class behind it. Imports no torch: the catalogue reads it too.
"""

from __future__ import annotations

from dgm_bench.errors import require_choice

#: ``module:Class`` below ``dgm_bench.models``, by the name that a ``ModelSpec`` has.
MODELS: dict[str, str] = {
    "gaussian:Gaussian": "flows.gaussian:Gaussian",
    "glow:TabularGlow": "flows.glow:TabularGlow",
    "glow_images:Glow": "flows.glow_images:Glow",
    "made:MADE": "flows.made:MADE",
    "maf:MAF": "flows.maf:MAF",
    "naf:MAFDDSF": "flows.naf:MAFDDSF",
    "nice:NICE": "flows.nice:NICE",
    "nsf:NSFAutoregressive": "flows.nsf:NSFAutoregressive",
    "nsf:NSFCoupling": "flows.nsf:NSFCoupling",
    "planar:PlanarFlow": "flows.planar:PlanarFlow",
    "realnvp:RealNVP": "flows.realnvp:RealNVP",
    "realnvp_images:MultiScaleRealNVP": "flows.realnvp_images:MultiScaleRealNVP",
    "tan:TAN": "flows.tan:TAN",
    "ffjord:FFJORD": "continuous.ffjord:FFJORD",
    "ffjord_images:EncoderDecoderFFJORD": "continuous.ffjord_images:EncoderDecoderFFJORD",
    "ffjord_images:MultiScaleFFJORD": "continuous.ffjord_images:MultiScaleFFJORD",
    "planar:PlanarCNF": "continuous.planar_cnf:PlanarCNF",
    "classifiers:ODENetwork": "classifiers.ode_network:ODENetwork",
    "classifiers:Perceptron": "classifiers.perceptron:Perceptron",
    "classifiers:ResidualNetwork": "classifiers.ode_network:ResidualNetwork",
    "avb:AVB": "latent.avb:AVB",
    "avb:VAE": "latent.avb:VAE",
    "discrete:DiscreteVAE": "latent.discrete:DiscreteVAE",
    "discrete:LearntPriorDiscreteVAE": "latent.discrete:LearntPriorDiscreteVAE",
    "gated_vae:ContinuousConvVAE": "latent.gated_vae:ContinuousConvVAE",
    "gated_vae:ContinuousDenseVAE": "latent.gated_vae:ContinuousDenseVAE",
    "gated_vae:ConvVAE": "latent.gated_vae:ConvVAE",
    "gated_vae:DenseVAE": "latent.gated_vae:DenseVAE",
    "hierarchical_vae:HierarchicalVAE": "latent.hierarchical_vae:HierarchicalVAE",
    "resnet_vae:ResNetVAE": "latent.resnet_vae:ResNetVAE",
    "structured_prediction:StructuredPrediction": (
        "latent.structured_prediction:StructuredPrediction"
    ),
    "vamp_hvae:ConvHVAE": "latent.vamp_hvae:ConvHVAE",
    "vamp_hvae:PixelHVAE": "latent.vamp_hvae:PixelHVAE",
    "vae:GaussianVAE": "latent.vae:GaussianVAE",
    "dvae:DVAE": "codes.dvae:DVAE",
    "identity:Identity": "codes.identity:Identity",
    "code_transformer:CodeTransformer": "codes.priors.code_transformer:CodeTransformer",
    "joint_transformer:JointTransformer": "codes.priors.joint_transformer:JointTransformer",
    "pixelcnn:PixelCNN": "codes.priors.pixelcnn:PixelCNN",
    "pixelcnnpp:PixelCNNPP": "codes.priors.pixelcnnpp:PixelCNNPP",
    "pixelsnail:PixelSNAIL": "codes.priors.pixelsnail:PixelSNAIL",
    "vqvae:VQVAE": "codes.vqvae:VQVAE",
    "vqvae:VQVAE2": "codes.vqvae:VQVAE2",
    "dcgan:DCGAN": "adversarial.dcgan:DCGAN",
    "pixelcnnpp_images:PixelCNNPP": "pixels.pixelcnnpp_images:PixelCNNPP",
    "vqvae_levels:LevelVQVAE": "pixels.vqvae_levels:LevelVQVAE",
    "pixelsnail_images:PixelSNAIL": "pixels.pixelsnail_images:PixelSNAIL",
    "progan:ProGAN": "adversarial.progan:ProGAN",
    "stylegan:StyleGAN": "adversarial.stylegan:StyleGAN",
    "gan:GAN": "adversarial.gan:GAN",
    "biggan:BigGAN": "adversarial.biggan:BigGAN",
    "biggan_deep:BigGANDeep": "adversarial.biggan_deep:BigGANDeep",
    "sagan:SAGAN": "adversarial.sagan:SAGAN",
}


def locate(name: str) -> tuple[str, str]:
    """Return module (below ``dgm_bench.models``) and class of a declared model.

    Raises:
        DeclarationError: No model has that name.
    """
    require_choice("model", name, MODELS)
    module, _, class_name = MODELS[name].partition(":")
    return module, class_name
