"""Log-likelihoods, lower bounds on them, and the terms of these bounds, on a split.

The densities themselves are the models'.
"""
