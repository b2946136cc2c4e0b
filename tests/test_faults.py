"""The last good checkpoint and model survive every failed write.

The short form takes each kind of trouble in turn and, where it costs, some of the places; with
TORTURE=1 it is every kind at every place, and of a whole training every place (six hundred), the
kinds in turn.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from faults import Disk, failing, watched
from lasting import LASTING
from midsentence import TextVAE, UserError, assembly, fitted, pipeline, writing
from midsentence.cli.sentences import encode
from midsentence.export import export
from midsentence.learning import checkpoint, kinds
from midsentence.text.corpus import Corpus, prepare
from midsentence.writing import clean
from several import FAST, small_text

TROUBLES = [errno.ENOSPC, errno.EIO, errno.EACCES]
KINDS = {"open", "write", "close", "fsync", "os.rename", "os.mkdir"}
LONG = "TORTURE" in os.environ
SHORT = [*FAST, "training.max_steps=6", "training.parts=1", "training.patience=0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    pipeline.train(corpus, out, settings=SHORT)
    return out


def content(folder):
    """A model by its numbers; raises UserError if it is not whole."""
    return TextVAE.from_pretrained(folder).vae.head.bias.tolist()


def failures(folder, act, for_ever=False, most=None):
    """(place, trouble) for everything `act` asks of the disk; of `most` places in the short form.

    Whatever has `most` is costly, and has the troubles in turn in the long form too.

    What `act` does without trouble is done once, to count them.
    """
    disk = Disk(folder)
    watched(disk)
    act()
    watched(None)
    every = 1 if LONG or not most else max(1, disk.count // most)
    places = range(1, disk.count + 1, every)
    for k, place in enumerate(places):
        for number in TROUBLES if LONG and not most else [TROUBLES[k % 3]]:
            yield disk.seen[place - 1], Disk(folder, failing(number), place, for_ever=for_ever)


def in_trouble(act, disk):
    """`act`, which may fail with what the disk says: in one line, or as it comes."""
    watched(disk)
    try:
        act()
    except OSError as error:
        assert error.errno in TROUBLES
    except UserError as error:
        assert "cannot be written" in str(error) and "\n" not in str(error)
    finally:
        watched(None)


def test_all_files_of_a_run_may_be_read_by_whom_the_umask_lets(run):
    kinds = {p.relative_to(run).as_posix(): p.stat().st_mode for p in run.rglob("*") if p.is_file()}
    assert {mode & 0o777 for mode in kinds.values()} == {kinds["config.toml"] & 0o777}, kinds


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_checkpoint_that_fails_leaves_the_one_before(tmp_path, for_ever):
    folder = tmp_path / "run"

    def save(step):
        held = {"x": torch.full((100,), float(step))}
        checkpoint.save(folder, step, held, {"step": step})

    def again():
        shutil.rmtree(folder, ignore_errors=True)
        save(1)
        save(2)

    again()
    kinds = set()
    for what, disk in failures(folder, lambda: save(3), for_ever):
        again()
        kinds.add(what.split()[0])
        in_trouble(lambda: save(3), disk)
        tensors, state = checkpoint.latest(folder)
        assert state["step"] in (2, 3), what
        assert tensors["x"].tolist() == [float(state["step"])] * 100
    assert kinds >= KINDS
    again()
    save(3)
    assert not list(folder.glob(".*"))  # nothing is left lying about
    assert len(list(folder.iterdir())) == checkpoint.KEPT


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_model_that_fails_to_be_replaced_is_the_old_one_or_the_new_one(run, tmp_path, for_ever):
    folder = tmp_path / "run"
    kept = [p for p in run.iterdir() if p.name in (*assembly.FILES, "manifest.json")]

    def again():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in kept:
            shutil.copy(path, folder)

    again()
    old, model = content(folder), TextVAE.from_pretrained(folder)
    model.config.training.threads = None  # the settings as they were
    with torch.no_grad():
        model.vae.head.bias.add_(1.0)
    new, found, kinds = model.vae.head.bias.tolist(), [], set()
    for what, disk in failures(folder, lambda: model.save_pretrained(folder), for_ever):
        again()
        kinds.add(what.split()[0])
        in_trouble(lambda: model.save_pretrained(folder), disk)
        found.append(content(folder))
        assert found[-1] in (old, new), what
    assert kinds >= KINDS - {"os.mkdir"}
    assert found.count(old) > 10
    model.save_pretrained(folder)
    assert content(folder) == new


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_fitted_prior_that_fails_to_be_replaced(run, tmp_path, for_ever):
    """The old one or the new one. Only what fails for ever between two renames leaves none."""
    folder, last = tmp_path / "run", "os.rename .prior"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("c*s"))
    priors = []
    for count in (2, 3):
        settings = kinds.settings_of("mog", [f"components={count}"])
        priors.append(fitted.FittedPrior(settings, kinds.build(settings, 4)))
    old, new = priors

    def write(prior):
        fitted.write(folder, prior, replace=True)

    write(old)
    for what, disk in failures(folder, lambda: write(new), for_ever):
        shutil.rmtree(folder / "prior", ignore_errors=True)
        clean(folder)
        write(old)
        in_trouble(lambda: write(new), disk)
        held = fitted.read(folder, 4)
        if held is None:
            assert for_ever and what.startswith(last), what
        else:
            assert held.settings in (old.settings, new.settings), what
    assert disk.at > 15


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_corpus_that_fails_to_be_prepared_is_prepared_again(corpus, tmp_path, for_ever):
    folder, names = tmp_path / "corpus", set()

    def texts():
        held = Corpus.open(folder)
        stores = held.train, held.valid, held.test
        return [store.text(held.tokenizer, range(len(store))) for store in stores]

    prepare(corpus, folder)
    whole = texts()
    shutil.rmtree(folder)
    for what, disk in failures(folder, lambda: prepare(corpus, folder), for_ever, most=24):
        shutil.rmtree(folder, ignore_errors=True)
        names.add(what)
        in_trouble(lambda: prepare(corpus, folder), disk)
        try:
            assert texts() == whole, what
        except UserError as error:
            assert "\n" not in str(error)
        prepare(corpus, folder)
        assert texts() == whole and not list(folder.glob(".*")), what
    if LONG:
        files = ("tokens.bin", "offsets.bin", "sizes.bin", "meta.json")
        assert {f"write {name}" for name in files} <= names


@pytest.mark.parametrize("for_ever", [False, True])
def test_an_export_that_fails_is_not_there(run, tmp_path, for_ever):
    out = tmp_path / "out" / "published"
    for what, disk in failures(out.parent, lambda: export(run, out), for_ever, most=6):
        shutil.rmtree(out.parent, ignore_errors=True)
        in_trouble(lambda: export(run, out), disk)
        assert not out.exists() or content(out) == content(run), what
    assert disk.at > 15


def same_end(out, run):
    mine, theirs = (checkpoint.latest(r / "checkpoints")[0] for r in (out, run))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert content(out) == content(run)
    assert not list(out.glob(".*")) and not list((out / "checkpoints").glob(".*"))


def begin_or_go_on(corpus, out):
    """What the one line of error says to do."""
    resume = (out / "config.toml").exists()
    pipeline.train(corpus, out, settings=[] if resume else SHORT, resume=resume)


@pytest.mark.parametrize("for_ever", [False, pytest.param(True, marks=LASTING)])
def test_training_ends_with_one_line_and_goes_on_after_it(corpus, run, tmp_path, for_ever):
    """At some places of a whole training: the model that was there is there."""
    out, ended = tmp_path / "run", 0

    def train():
        pipeline.train(corpus, out, settings=SHORT)

    for what, disk in failures(out, train, for_ever, most=3):
        shutil.rmtree(out, ignore_errors=True)
        watched(disk)
        try:
            train()
            continue  # it could do without
        except UserError as error:
            assert "cannot be written" in str(error) and "\n" not in str(error), what
        finally:
            watched(None)
        ended += 1
        begin_or_go_on(corpus, out)
        same_end(out, run)
    assert ended > 1


def test_the_first_model_of_a_run_that_fails_between_its_files(corpus, run, tmp_path):
    """The manifest is there, some of its files never were: the run goes on all the same."""
    out = tmp_path / "run"
    disk = Disk(out)
    watched(disk)
    pipeline.train(corpus, out, settings=SHORT)
    watched(None)
    renamed = [i for i, what in enumerate(disk.seen) if what.startswith("os.rename")]
    first = next(n for n, i in enumerate(renamed) if "model.safetensors" in disk.seen[i])
    for at in renamed[first - 2 : first + 1]:
        shutil.rmtree(out)
        watched(Disk(out, failing(errno.EIO), at + 1))
        with pytest.raises(UserError, match="cannot be written"):
            pipeline.train(corpus, out, settings=SHORT)
        watched(None)
        begin_or_go_on(corpus, out)
        same_end(out, run)


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


def test_a_folder_that_was_moved_aside_is_not_lost(tmp_path):
    """Killed between the two renames of an exchange."""
    nobody = 1 << 23  # no process has so high a number
    for name in (".prior.1.old.part", f".prior.{nobody}.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "held").write_text(name)
    writing.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["prior"]
    assert (tmp_path / "prior" / "held").read_text() == ".prior.1.old.part"


THEIRS = [
    "corpus/train/all.txt", "corpus/manifest.json", "corpus/tokenizer.json", "thesis.doc",
    "corpus/train/tokens.bin/x", ".movie.mkv.part", ".movie.2.part",
]  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_nothing_of_a_persons_is_taken_for_ours(corpus, tmp_path, name):
    """A folder of theirs named as --out: what is in it stays, whatever it is called."""
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    if name == ".movie.2.part":  # ours by its name, but this is no folder of ours
        (tmp_path / "out" / "thesis.doc").write_text("more of it")
    with pytest.raises(UserError, match="choose another --out"):
        pipeline.train(corpus, tmp_path / "out", settings=SHORT)
    assert theirs.read_text() == "years of work"


def test_what_a_killed_process_left_is_no_obstacle(corpus, tmp_path):
    """Preparing was stopped anywhere, or the settings made no model: train again."""
    out = tmp_path / "out"
    prepare(corpus, out / "corpus")
    (out / "corpus" / "manifest.json").unlink()
    (out / "corpus" / ".train.lines").write_text("a")
    (out / "corpus" / ".valid.4194305.part").mkdir()
    (out / ".config.toml.4194305.part").write_text("a")
    with pytest.raises(Exception, match=r"."):
        pipeline.train(corpus, out, settings=[*SHORT, "decoder.inject=[]"])
    assert pipeline.train(corpus, out, settings=SHORT)


def test_an_export_that_was_killed_leaves_nothing_beside_the_next(corpus, run, tmp_path):
    nobody = 1 << 23  # no process has so high a number
    for name in ("out", "other"):
        (tmp_path / f".{name}.{nobody}.part").mkdir()
        (tmp_path / f".{name}.npy.{nobody}.part").write_text("half")
    export(run, tmp_path / "out")
    encode(run, corpus, npy=tmp_path / "out.npy")
    left = {path.name for path in tmp_path.glob(".*")}
    assert left == {f".other.{nobody}.part", f".other.npy.{nobody}.part"}  # not ours to judge


def test_every_file_of_an_export_is_on_the_disk_before_it_has_its_name(run, tmp_path, monkeypatch):
    flushed, flush = set(), writing.flush
    monkeypatch.setattr(writing, "flush", lambda path: flushed.add(path.name) or flush(path))
    out = export(run, tmp_path / "out")
    assert {path.name for path in out.rglob("*")} <= flushed


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    part = tmp_path / f".model.{living.pid}.part"
    part.write_text("half")
    clean(tmp_path)
    assert part.exists()
    living.communicate(b"\n")
    clean(tmp_path)
    assert not part.exists()
