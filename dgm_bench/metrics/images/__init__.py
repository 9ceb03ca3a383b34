"""Drawn and reconstructed images against real ones, and the codes that they are drawn from.

``requirements`` imports no torch, and checks before training whether there are enough images.
``features``, ``scores``, ``precision_recall`` and ``fidelity`` import torch-fidelity, and are
therefore imported only where a number is taken.
"""
