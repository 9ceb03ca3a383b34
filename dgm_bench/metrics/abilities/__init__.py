"""What a model can do, checked on a trained one (FFJORD Table 1).

The checks, and what they measure: depth, exactness, Jacobians. What a model *offers* is declared
in ``models.capabilities``.
"""
