"""Killed anywhere, and gone on: bit for bit as if nothing had been. Longer: `make torture`."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_training_that_is_killed_goes_on_as_if_it_had_not_been():
    # A process of its own: forking one that has threads may hang.
    found = subprocess.run(
        [sys.executable, str(HERE / "torture.py"), "--kills", "6", "--short"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    said = "6 kills (3 inside saving), 5 in the longest chain, 0 chains that ended otherwise"
    assert said in found.stdout
