import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def float64():
    """Numerics are checked in double precision; a test that wants float32 asks for it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


@pytest.fixture(scope="session")
def data_root():
    root = os.environ.get("DGM_BENCH_DATA")
    if not root:
        pytest.skip("set DGM_BENCH_DATA to the folder that holds the data sets")
    return Path(root)
