"""What a model can do, checked on a trained one (FFJORD Table 1)."""
