"""Which defects the tests notice.

``python tests/mutation planted [WORD ...]`` plants the defects of ``defects``, or those whose
identifier has one of the words. ``python tests/mutation [OPTION ...]`` makes mutants and needs the
extra ``mutation``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["planted"]:
        from planted import plant

        sys.exit(not plant(sys.argv[2:]))
    from sampled import main

    main(sys.argv[1:])
