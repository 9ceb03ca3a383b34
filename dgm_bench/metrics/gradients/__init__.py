"""Gradients through solvers and through discrete variables: error, memory, variance."""
