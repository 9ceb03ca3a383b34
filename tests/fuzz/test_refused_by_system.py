"""A file that the system refuses is told as such by every reader, without a word of its format."""

import errno
import os
import re

import pytest
from fuzz import test_data, test_kept

from dgm_bench.errors import DgmBenchError

#: What may be said of a format, or advised for a file that is another than the published one.
OF_FORMATS = re.compile(r"damaged|truncated|corrupt|not a|delete|is no ")


def is_a_folder(path):
    path.mkdir()


def links_to_itself(path):
    path.symlink_to(path)


def cannot_be_read(path):
    """Opening succeeds, and reading does not, as on a disk that fails."""
    path.symlink_to("/proc/self/mem")


OBSTACLES = {is_a_folder: errno.EISDIR, links_to_itself: errno.ELOOP, cannot_be_read: errno.EIO}
#: Readers that look first at the size, which is 0 of what cannot be read here, and read nothing.
SIZED = {"npz", "pickle 0", "pickle 2", "pickle 4", "pickled frame", "kept tensors"}
TARGETS = [t for t in (*test_data.TARGETS, *test_kept.TARGETS) if t.name != "curve"]


TRIED = [(t, o) for t in TARGETS for o in OBSTACLES if o is is_a_folder or t.name not in SIZED]


@pytest.mark.parametrize(
    ("target", "obstacle"), TRIED, ids=[f"{t.name}: {o.__name__}" for t, o in TRIED]
)
def test_what_the_system_refuses_is_no_fault_of_the_format(target, obstacle, tmp_path):
    path = tmp_path / target.filename
    target.write(path)
    path.unlink()
    obstacle(path)
    with pytest.raises(DgmBenchError) as caught:
        target.read(path)
    assert os.strerror(OBSTACLES[obstacle]) in caught.value.reason
    assert not OF_FORMATS.search(f"{caught.value.reason}; {caught.value.remedy}")
