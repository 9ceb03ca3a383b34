"""Metrics of trained models, by kind, and the protocol that evaluates them.

A metric is declared beside its function, under ``registry.metric``. Statistics over runs are in
``dgm_bench.stats`` and ``verdict``, not here.
"""
