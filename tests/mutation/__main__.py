"""Which defects the tests notice.

``python tests/mutation planted [WORD ...]`` plants the defects of ``defects``, or those whose
identifier has one of the words. ``python tests/mutation layers [WORD ...]`` plants those of
``layers.toml``, and notes in ``layers.csv`` which kind of check catches them: ``unit``,
``contract``, ``prefix``, ``verdict``; words that are kinds choose among them. ``python
tests/mutation alarms`` trains the first part of cheap cells twenty times without any defect.
``python tests/mutation [OPTION ...]`` makes mutants and needs the extra ``mutation``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["planted"]:
        from planted import plant

        sys.exit(not plant(sys.argv[2:]))
    if sys.argv[1:2] == ["layers"]:
        from layers import try_layers

        sys.exit(not try_layers(sys.argv[2:]))
    if sys.argv[1:2] == ["alarms"]:
        from alarms import count

        sys.exit(count() > 0)
    from sampled import main

    main(sys.argv[1:])
