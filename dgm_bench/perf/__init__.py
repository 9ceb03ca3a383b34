"""Whether a change makes this suite slower: exact counters, base against head, and a history.

``tox -e perf`` runs the first two; CONTRIBUTING.md says what each of them can see.
"""
