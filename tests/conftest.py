"""Shapes are checked while tests run: by beartype, in every module that names one."""

import os
from pathlib import Path

# Models here are tiny: a second thread only waits for the first, for ages where cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from jaxtyping import install_import_hook

SOURCE = Path(__file__).parent.parent / "src"
CHECKED = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if "jaxtyping" in path.read_text("utf-8")
]
install_import_hook(CHECKED, "typecheck.check")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)
