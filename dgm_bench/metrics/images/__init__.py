"""Drawn and reconstructed images against real ones, and the codes that they are drawn from.

``requirements`` imports no torch, and tells before training whether there are too few images.
``features``, ``scores``, ``precision_recall`` and ``fidelity`` import torch-fidelity, and are
therefore imported only where a number is taken.
"""
