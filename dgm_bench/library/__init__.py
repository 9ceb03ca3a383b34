"""What ``import dgm_bench`` offers: trained models, records and published numbers, plans and runs.

Nothing here imports torch or pandas before it is used.
"""
