"""Going on with a run checks first what it goes on from, and names what a newer version wrote."""

import json
import os
import shutil
import signal
import sys

import pytest

from midsentence import UserError, assembly, cli, pipeline, resuming
from midsentence import config as configuration
from midsentence.learning import checkpoint, trainer
from midsentence.opening import digest, verify, verify_early
from midsentence.text.corpus import Corpus
from midsentence.writing import write_manifest
from several import FAST, small_text

STEPS = "training.max_steps=4"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was stopped in the middle, and its corpus."""
    folder = tmp_path_factory.mktemp("begun")

    def stop(event, record):
        if event == "valid" and record["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    text = small_text(folder)
    pipeline.train(text, folder / "run", settings=[*FAST, "training.parts=1"], listener=stop)
    return text, folder / "run"


@pytest.fixture
def run(begun, tmp_path):
    text, folder = begun
    return text, shutil.copytree(folder, tmp_path / "run")


def resumed(run, monkeypatch, capsys):
    """(exit code, what was said) of `train --resume`."""
    text, folder = run
    command = ["midsentence", "train", text, "--out", str(folder), "--resume", "--set", STEPS]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


def test_a_flipped_digit_of_the_settings_is_found(run, monkeypatch, capsys):
    path = run[1] / "config.toml"
    text = path.read_text()
    assert "seed = 0" in text
    path.write_text(text.replace("seed = 0", "seed = 1", 1))
    code, said = resumed(run, monkeypatch, capsys)
    assert code == 1 and len(said.splitlines()) == 1, said
    assert "config.toml is damaged" in said


def test_a_flipped_bit_of_the_weights_is_found(run, monkeypatch, capsys):
    path = run[1] / "model.safetensors"
    held = bytearray(path.read_bytes())
    held[-3] ^= 1
    path.write_bytes(held)
    code, said = resumed(run, monkeypatch, capsys)
    assert code == 1 and len(said.splitlines()) == 1, said
    assert "model.safetensors is damaged" in said


def test_files_half_replaced_are_gone_on_from(run, monkeypatch, capsys):
    """Killed between two renames: the checkpoint has what is needed, and all is written again."""
    folder = run[1]
    held = json.loads((folder / "manifest.json").read_text())
    path = folder / "config.toml"
    held["before"] = dict(held["files"])
    path.write_text(path.read_text().replace("max_steps = 12", "max_steps = 11", 1))
    held["files"] = {name: digest(folder / name) for name in held["files"]}
    held["files"]["model.safetensors"] = "0" * 64  # the new one never came
    (folder / "manifest.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match="damaged"):
        verify(folder, assembly.FILES)
    verify_early(folder, assembly.FILES, mixed=True)
    text = run[0]
    config, _ = resuming.resumed(text, folder, None, [])
    assert config.training.max_steps == 11


def test_the_way_back_to_the_best_weights_is_checked(run, monkeypatch):
    """SGD that halves goes back to model.safetensors: damaged since, it is not taken."""
    text, folder = run

    def damaged(self, *rest):
        path = folder / "model.safetensors"
        held = bytearray(path.read_bytes())
        held[-3] ^= 1
        path.write_bytes(held)
        return False

    monkeypatch.setattr(trainer.Trainer, "_look", damaged)
    config, data = resuming.resumed(text, folder, None, [])
    asked = ["optimizer.kind=sgd", "optimizer.halve_after=1", "optimizer.halve_from=0"]
    config = configuration.override(config, asked)
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        trainer.train(config, data, folder)


def newer(path, **more):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2} | more))


def test_a_newer_checkpoint_is_named_and_no_older_one_taken(run, monkeypatch, capsys):
    newest = checkpoint._newest_first(run[1] / "checkpoints")[0]
    newer(newest / "manifest.json")
    code, said = resumed(run, monkeypatch, capsys)
    (said,) = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert code == 1 and f"{newest.name}: format '2' is newer" in said and "upgrade" in said


@pytest.mark.parametrize("part", ["train/manifest.json", "train/meta.json", "tokenizer.json"])
def test_a_newer_corpus_is_named(run, part):
    path = run[1] / "corpus" / part
    newer(path)
    if path.name != "manifest.json":
        held = json.loads((path.parent / "manifest.json").read_text())
        write_manifest(path.parent, list(held["files"]))
    with pytest.raises(UserError, match=r"format '2' is newer .* upgrade"):
        Corpus.open(run[1] / "corpus")
