"""Training: one loop for every model; objectives, optimisers, schedules, checkpoints, validation.

Which stages a run has, and its record, are in ``dgm_bench.execution``.
"""
