"""Autoencoders of images with discrete codes: VQ-VAE, VQ-VAE-2, DALL-E's dVAE."""
