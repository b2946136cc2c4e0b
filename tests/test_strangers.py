"""Models from strangers: opened or refused within 2 GB and 10 s, and nothing else happens."""

import json
import os
import subprocess
import sys

import pytest

from strangers import CASES, HERE, MOST, SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and counts are Linux's")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    command = [sys.executable, str(HERE), str(tmp_path_factory.mktemp("strangers"))]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, timeout=600)
    assert done.returncode == 0, done.stderr
    return {(held := json.loads(line))["name"]: held for line in done.stdout.splitlines()}


def test_there_are_many():
    assert len(CASES) >= 120


@pytest.mark.parametrize("name", CASES)
def test_a_strangers_model(found, name):
    held = found[name]
    assert held["outcome"] == held["wanted"], held
    assert "\n" not in held["said"] and len(held["said"]) < 600
    assert bool(held["said"]) == (held["outcome"] == "refused")
    assert not held["seen"], "it did what opening a model never does"
    assert not held["ran"]
    assert held["seconds"] < SECONDS
    assert held["megabytes"] < MOST >> 20


def test_the_watcher_sees(found):
    """The same hook, on a model that does what none may: it must be able to fail."""
    seen = found["the_watcher"]["seen"]
    assert seen[0].startswith("os.system")
    outside = [event.split()[1].rpartition("/")[2] for event in seen if event.startswith("open")]
    assert outside == ["secret", "beside", "hostname", "secret"]
