"""A disk that is really full, of several sizes: the last good one is whole, the error one line."""

import os
import shutil
import subprocess

import pytest
import torch

from midsentence import TextVAE, UserError, pipeline
from midsentence.learning import checkpoint
from several import small_text
from test_faults import LONG, SHORT, begin_or_go_on, content, same_end


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(corpus, its run)"""
    folder = tmp_path_factory.mktemp("trained")
    corpus = small_text(folder)
    pipeline.train(corpus, folder / "run", settings=SHORT)
    return corpus, folder / "run"


@pytest.fixture
def disk(tmp_path):
    """A disk and what sets its size in kB, as large as it is asked to be."""
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root only")
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(kilobytes, how="remount,"):
        asked = f"{how}size={kilobytes}k"
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", asked, "tmpfs", str(folder)], capture_output=True
        ).returncode

    if size(4, ""):
        pytest.skip("tmpfs can't be mounted here")
    yield folder, size
    subprocess.run(["umount", "-l", str(folder)], check=True)


def rising(folder, size, most):
    """The disk with ever more room than what it holds; yields whether that is the last size."""
    used = shutil.disk_usage(folder).used >> 10
    for more in range(4, most, 4 if LONG else most // 6):
        size(used + more)
        yield False
    size(used + 4 * most)
    yield True


def test_a_full_disk_and_a_checkpoint(disk):
    folder, size = disk
    size(1024)

    def save(step, length):
        held = {"x": torch.full((length,), float(step))}
        checkpoint.save(folder, step, held, {"step": step})

    save(1, 10_000)
    save(2, 10_000)
    for last in rising(folder, size, 170):
        try:
            save(3, 40_000)
            there = 3
        except OSError as error:
            assert "space" in str(error).lower()
            there = 2
        assert there == 3 or not last
        tensors, state = checkpoint.latest(folder)
        assert state["step"] == there and tensors["x"][0] == there
        assert not list(folder.glob(".*"))
        if there == 3:
            break


def test_a_full_disk_and_a_model(trained, disk):
    (_, run), (folder, size) = trained, disk
    size(1024)
    model = TextVAE.from_pretrained(run)
    model.save_pretrained(folder)
    old = content(folder)
    with torch.no_grad():
        model.vae.head.bias.add_(1.0)
    found = []
    for _ in rising(folder, size, 40):
        try:
            model.save_pretrained(folder)
        except OSError as error:
            assert "space" in str(error).lower()
        found.append(content(folder))
        assert found[-1] in (old, model.vae.head.bias.tolist())
    assert found[0] == old != found[-1]


def test_a_full_disk_and_a_training_on_it(trained, disk):
    """From too small for the corpus to large enough: it goes on from wherever it was stopped."""
    (corpus, run), (folder, size) = trained, disk
    said = []
    for kilobytes in (8, 24, *(range(40, 500, 12) if LONG else (80, 120)), 2048):
        size(kilobytes)
        try:
            begin_or_go_on(corpus, folder / "run")
        except UserError as error:
            said.append(str(error))
            assert "cannot be written" in said[-1] and "\n" not in said[-1]
    same_end(folder / "run", run)
    assert len(said) > 2
