"""The last good checkpoint and model survive every failed write."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from faults import Disk, failing, watched
from midsentence import TextVAE, UserError, pipeline
from midsentence.learning import checkpoint
from several import FAST, small_text

TROUBLES = [errno.ENOSPC, errno.EIO, errno.EACCES]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    asked = [*FAST, "training.max_steps=6", "training.parts=1", "training.patience=0"]
    pipeline.train(corpus, out, settings=asked)
    return out


def content(folder):
    """A model by its numbers; raises UserError if it is not whole."""
    return TextVAE.from_pretrained(folder).vae.head.bias.tolist()


def after_each_failure(folder, act, number, for_ever):
    """`act` with the k-th call failing, for every k until none fails; yields what was asked."""
    k = 0
    while True:
        k += 1
        disk = Disk(folder, failing(number), k, for_ever)
        watched(disk)
        try:
            act()
        except OSError as error:
            assert error.errno == number
        finally:
            watched(None)
        if disk.count < k:
            return
        yield disk.seen


def test_all_files_of_a_run_may_be_read_by_whom_the_umask_lets(run):
    kinds = {p.relative_to(run).as_posix(): p.stat().st_mode for p in run.rglob("*") if p.is_file()}
    assert {mode & 0o777 for mode in kinds.values()} == {kinds["config.toml"] & 0o777}, kinds


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("number", TROUBLES)
def test_a_checkpoint_that_fails_leaves_the_one_before(tmp_path, number, for_ever):
    def save(step):
        held = {"x": torch.full((100,), float(step))}
        checkpoint.save(tmp_path, step, held, {"step": step})

    save(1)
    save(2)
    places = []
    for seen in after_each_failure(tmp_path, lambda: save(3), number, for_ever):
        places.append(seen[-1].split()[0] if for_ever else seen[len(places)].split()[0])
        tensors, state = checkpoint.latest(tmp_path)
        assert state["step"] in (2, 3), seen
        assert tensors["x"].tolist() == [float(state["step"])] * 100
        for path in tmp_path.glob("step-000003*"):
            shutil.rmtree(path)
        save(2)
    assert len(places) > 10
    assert for_ever or {*places} >= {"open", "fsync", "write", "os.rename", "os.mkdir"}
    save(3)
    assert not list(tmp_path.glob(".*"))  # nothing is left lying about
    assert len(list(tmp_path.iterdir())) == checkpoint.KEPT


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("number", TROUBLES)
def test_a_model_that_fails_to_be_replaced_is_the_old_one_or_the_new_one(
    run, tmp_path, number, for_ever
):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    old, model = content(folder), TextVAE.from_pretrained(folder)
    model.save_pretrained(folder)  # the settings as they are written now
    shutil.copytree(folder, tmp_path / "old")
    with torch.no_grad():
        model.vae.head.bias.add_(1.0)
    new = model.vae.head.bias.tolist()
    found = []
    for seen in after_each_failure(folder, lambda: model.save_pretrained(folder), number, for_ever):
        found.append(content(folder))
        assert found[-1] in (old, new), seen
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "old", folder)
    assert len(found) > 15
    assert found.count(old) > 10
    assert content(folder) == new


def test_a_folder_of_two_models_is_refused(run, tmp_path):
    """Where more than one file has changed, and only one of them got there."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    model = TextVAE.from_pretrained(folder)
    model.config.recipe = "another"
    with torch.no_grad():
        model.vae.head.bias.add_(1.0)
    disk = Disk(folder, failing(errno.EIO), 0)
    watched(disk)
    model.save_pretrained(folder)
    watched(None)
    renames = [i for i, what in enumerate(disk.seen, 1) if what.startswith("os.rename")]
    shutil.rmtree(folder)
    shutil.copytree(run, folder)
    watched(Disk(folder, failing(errno.EIO), renames[-1]))
    with pytest.raises(OSError):
        model.save_pretrained(folder)
    watched(None)
    with pytest.raises(UserError, match="damaged"):
        TextVAE.from_pretrained(folder)


@pytest.mark.parametrize("number", TROUBLES)
def test_training_ends_with_one_line_and_goes_on_after_it(corpus, run, tmp_path, number):
    """At a few places of a whole training: the model that was there is there."""
    asked = [*FAST, "training.max_steps=6", "training.parts=1", "training.patience=0"]
    count = 0
    for k in range(20, 180, 40):
        out = tmp_path / str(k)
        disk = Disk(out, failing(number), k)
        watched(disk)
        try:
            pipeline.train(corpus, out, settings=asked)
            continue  # it was over before, or could do without
        except UserError as error:
            said = str(error)
            assert "cannot be written" in said and "\n" not in said
        finally:
            watched(None)
        count += 1
        resume = said.endswith("--resume")
        pipeline.train(corpus, out, settings=[] if resume else asked, resume=resume)
        mine, theirs = (checkpoint.latest(r / "checkpoints")[0] for r in (out, run))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert not list(out.glob(".*")) and not list((out / "checkpoints").glob(".*"))
    assert count > 2


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can be mounted by root only")
def test_a_full_disk(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("tmpfs can't be mounted here")
    try:
        for step in (1, 2):
            checkpoint.save(disk, step, {"x": torch.full((10_000,), float(step))}, {"step": step})
        with pytest.raises(OSError, match=r"(?i)no space|space left"):
            checkpoint.save(disk, 3, {"x": torch.zeros(100_000)}, {"step": 3})
        tensors, state = checkpoint.latest(disk)
        assert state["step"] == 2 and tensors["x"].tolist() == [2.0] * 10_000
        assert not list(disk.glob(".*"))
        checkpoint.save(disk, 3, {"x": torch.full((10_000,), 3.0)}, {"step": 3})
        assert checkpoint.latest(disk)[1]["step"] == 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_two_trainings_into_one_folder_are_refused(corpus, tmp_path):
    out = tmp_path / "run"

    def another(event, record):
        if event == "corpus":
            with pytest.raises(UserError, match="another process is training into"):
                pipeline.train(corpus, out, resume=True)

    asked = [*FAST, "training.max_steps=2", "training.parts=1"]
    pipeline.train(corpus, out, settings=asked, listener=another)
    assert Path(out, "report.html").exists()


def test_two_that_prepare_one_corpus_at_once_do_not_collide(corpus, tmp_path):
    """The second is refused while the first is still reading, and harms nothing."""
    pipe, out = tmp_path / "pipe", tmp_path / "run"
    os.mkfifo(pipe)
    asked = [part for s in [*FAST, "training.max_steps=2"] for part in ("--set", s)]
    command = [sys.executable, "-m", "midsentence", "train"]
    first = subprocess.Popen([*command, pipe, "--out", out, *asked])
    with pipe.open("w") as file:  # opens as soon as the first one reads
        file.write("anna likes bread\n" * 50)
        file.flush()
        second = subprocess.run(
            [*command, corpus, "--out", out, *asked], capture_output=True, text=True, check=False
        )
        file.write(Path(corpus).read_text())
    assert second.returncode == 1
    assert "another process is training into" in second.stderr
    assert second.stderr.count("\n") == 1
    assert first.wait(60) == 0
    assert len(TextVAE.from_pretrained(out).sample(2)) == 2


def test_records_cut_in_their_middle_are_no_obstacle(corpus, run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    path = folder / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1][:37])
    pipeline.write_report(folder)
    pipeline.train(corpus, folder, settings=[], resume=True)
    assert path.read_text() == whole
