"""Shapes are checked while tests run: every annotated call in midsentence goes through beartype."""

import os

# Models here are tiny: a second thread only waits for the first, for ages where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from jaxtyping import install_import_hook

install_import_hook("midsentence", "typecheck.check")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)
