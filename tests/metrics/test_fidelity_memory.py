"""Precision and recall of 50,000 images against 50,000, in another process: under 2 GB more.

Whole, with features of 64 dimensions and one thread, the definition by the point asked about took
49 s and 0.23 GB, the published one 208 s and 0.99 GB. Here a few block rows of the same size,
against all 50,000 points, stand for all of them: they are alike, and one is dropped before the
next. (With the 2048 dimensions of Inception two of them took 0.59 and 0.91 GB.)
"""

import re
import subprocess
import sys

import pytest

PRELUDE = """
import torch
from torch_fidelity.metric_prc import calc_cdist_part
from dgm_bench.metrics.images import precision_recall
from dgm_bench.provenance import reset_peak_memory

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20

torch.set_num_threads(1)
n, k = 50_000, 3
generator = torch.Generator().manual_seed(0)
generated, reference = torch.randn(2, n, 64, generator=generator)
rows = precision_recall.block_rows(n, n)
"""

#: What each definition does for a block row: radii within the own set, then the other set.
DEFINITIONS = {
    "reference_radius": """
    radius = calc_cdist_part(block, generated, rows).kthvalue(k + 1).values
    near = calc_cdist_part(block, reference, rows) <= torch.ones(n)
    near.any(dim=1).float()
""",
    "query_radius": """
    precision_recall.in_own_spheres(block, generated, reference, k)
""",
}

MEASURE = """
reset_peak_memory("cpu")
before = status("VmRSS")
for block in generated.split(rows)[:2]:
{body}
print("{name} grew", status("VmHWM") - before, "GB in blocks of", rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_block_rows_of_50_000_points_stay_below_2_gb():
    """Both definitions in one process, whose start takes as long as either."""
    parts = [MEASURE.format(name=name, body=body) for name, body in DEFINITIONS.items()]
    script = "".join([PRELUDE, *parts])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\w+) grew ([\d.]+) GB in blocks of (\d+)\n", done.stdout)
    assert [name for name, *_ in found] == list(DEFINITIONS)
    for _, grew, rows in found:
        assert int(rows) > 500  # large enough for matrix products to be worth it
        assert 0.1 < float(grew) < 2  # at least a block of distances: it was measured
