"""Tables, plots and pages, made only from declarations and records.

Pictures that need a trained model are in ``dgm_bench.pictures``; verdicts in ``verdict``.
"""
