"""Shapes are checked while tests run: every annotated call in midsentence goes through beartype."""

from jaxtyping import install_import_hook

install_import_hook("midsentence", "typecheck.check")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(2)
