"""Pictures of what a trained model draws, encodes and reconstructs; they need torch.

Plots and tables that are made from records alone are in ``dgm_bench.report``.
"""
