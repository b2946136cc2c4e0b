"""What takes long and is a variant of a test that is always run."""

import os

import pytest

LASTING = pytest.mark.skipif("TORTURE" not in os.environ, reason="make torture")
