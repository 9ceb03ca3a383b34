"""``results/environment.lock``: the versions with which the newest stored record was made.

``python tests/environment_lock.py --write`` writes it anew, where newer records have other ones.
"""

import sys
from pathlib import Path

from dgm_bench.paths import PACKAGE
from dgm_bench.store import Store

RESULTS = PACKAGE.parent / "results"
LOCK = RESULTS / "environment.lock"
HEAD = """\
# The newest stored records were made with these versions, on Python {python}.
#     pip install -c results/environment.lock '.[all]'
"""


def text_of(results: Path = RESULTS) -> str:
    """Return the file as the records of a results folder have it."""
    newest = max(Store(results).records(), key=lambda record: record.created).environment
    # A version such as 2.14.1+cpu says also for which device it was built: no index has them all.
    versions = {name: version.partition("+")[0] for name, version in newest.packages.items()}
    lines = (f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return HEAD.format(python=newest.python) + "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        LOCK.write_text(text_of(), encoding="utf-8")
    print(LOCK.read_text(encoding="utf-8"), end="")
