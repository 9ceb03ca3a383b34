import os
from pathlib import Path

import pytest
import torch
from jaxtyping import config, install_import_hook
from shape_checks import CHECKED, CHECKER

# Commands do their runs in this process, where tests can reach them.
os.environ.setdefault("DGM_BENCH_JOBS", "1")
# A test that wants the results that came with the suite asks for them.
os.environ.setdefault("DGM_BENCH_STORED", "none")
# Before any test imports the package. DGM_BENCH_UNCHECKED=1 shows what the checks cost.
if not os.environ.get("DGM_BENCH_UNCHECKED"):
    install_import_hook(CHECKED, CHECKER)


@pytest.fixture(autouse=True)
def float64():
    """Numerics are checked in double precision; a test that wants float32 asks for it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is kept in the user's cache is kept for the tests alone, and no defaults are his."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def unchecked():
    """For a test that passes what annotations forbid, to see what the code itself says of it."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


@pytest.fixture(scope="session")
def data_root():
    root = os.environ.get("DGM_BENCH_DATA")
    if not root:
        pytest.skip("set DGM_BENCH_DATA to the folder that holds the data sets")
    return Path(root)
