"""Gradients through solvers and through discrete variables: error, memory, variance.

The estimators and solvers that are measured are in ``models``.
"""
