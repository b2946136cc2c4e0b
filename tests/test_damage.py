"""Damage to a run is found, whatever and wherever it is: one kind of error, one line, or no harm.

Manifests hold the SHA-256 of every file of a model, a checkpoint, a corpus and a fitted prior: the
formats themselves do not notice a flipped bit.
"""

import os
import random
import shutil
import sys
from itertools import pairwise

import pytest
import torch

from midsentence import TextVAE, UserError, cli, evaluation, pipeline
from midsentence.learning import checkpoint, records
from midsentence.opening import verify
from midsentence.prior_fitting import fit_prior
from midsentence.text.corpus import Corpus
from several import FAST

EVERY = 97
LONG = "TORTURE" in os.environ
FLIPS = 2000 if LONG else 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    corpus = folder / "text.txt"
    chosen, words = random.Random(0), ["a", "big", "cat", "sat", "on", "my", "red", "hat"]
    corpus.write_text("\n".join(" ".join(chosen.choices(words, k=4)) for _ in range(300)))
    asked = [*FAST, "training.max_steps=4", "training.parts=1"]
    pipeline.train(str(corpus), folder / "run", settings=asked)
    fit_prior(folder / "run", "mog", ["components=2"], steps=2)
    return folder / "run"


def opened(run):
    """All that is read of a run, as numbers; raises UserError."""
    model = TextVAE.from_pretrained(run, "cpu")
    for folder in sorted((run / "checkpoints").glob("step-*")):
        verify(folder, checkpoint.FILES)
    tensors, state = checkpoint.latest(run / "checkpoints")
    corpus = Corpus.open(run / "corpus")
    stores = [corpus.train, corpus.valid, corpus.test]
    return (
        {name: t.tolist() for name, t in model.vae.state_dict().items()},
        model.config.model_dump(),
        model.tokenizer.encode(["a big cat sat on my red hat"]),
        {name: t.tolist() for name, t in tensors.items()},
        state,
        [store.text(corpus.tokenizer, range(len(store))) for store in stores],
        None if model.fitted is None else model.fitted.settings,
    )


def told(run, honest):
    """Whether damage was refused; what opens in spite of it is what was there before."""
    try:
        found = opened(run)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return True
    assert found == honest, "damaged, but opened as another"
    return False


def kept(run):
    """The files that models and trainings are made of; curves, tables and pages are only shown."""
    shown = ("metrics.jsonl", "report.html", "evaluation.json")
    return sorted(p for p in run.rglob("*") if p.is_file() and p.name not in shown)


@pytest.fixture(scope="module")
def honest(run):
    return opened(run)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_every_file_cut_short_anywhere(copy, honest):
    cuts = 0
    for path in kept(copy):
        whole = path.read_bytes()
        step = EVERY if LONG else EVERY * max(1, len(whole) // (EVERY * 60))
        for length in range(0, len(whole), step):
            path.write_bytes(whole[:length])
            assert told(copy, honest), f"{path.name} of {length} bytes for {len(whole)}"
            cuts += 1
        path.write_bytes(whole)
    assert opened(copy) == honest
    assert cuts > 300


def test_bits_flipped_anywhere(copy, honest):
    """Only a manifest may have bits that change nothing: of what it says of earlier files."""
    chosen, found = random.Random(1), 0
    files = kept(copy)
    for _ in range(FLIPS):
        path = chosen.choice(files)
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(changed)
        refused = told(copy, honest)
        assert refused or path.name == "manifest.json", path
        found += refused
        path.write_bytes(whole)
    assert found > 0.97 * FLIPS


def test_files_missing_empty_or_exchanged(copy, honest):
    files = kept(copy)
    whole = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
        # A corpus without a manifest is an early one, and is taken as it is.
        early = path.name == "manifest.json" and "corpus" in path.parts
        assert told(copy, honest) or early, path
        path.write_bytes(b"")
        assert told(copy, honest), path
        path.write_bytes(whole[path])
    for path, other in pairwise(files):
        if whole[path] != whole[other]:
            path.write_bytes(whole[other])
            assert told(copy, honest), (path, other)
            path.write_bytes(whole[path])


def test_two_models_mixed(copy, tmp_path):
    model = TextVAE.from_pretrained(copy, "cpu", prior="own")
    with torch.no_grad():
        model.vae.head.bias.add_(1)
    model.save_pretrained(tmp_path / "other")
    for name in ("model.safetensors", "manifest.json"):
        mixed = shutil.copytree(copy, tmp_path / name)
        shutil.copy(tmp_path / "other" / name, mixed / name)
        with pytest.raises(UserError, match="damaged"):
            TextVAE.from_pretrained(mixed)


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json"])
def test_what_is_only_shown_is_refused_or_read(copy, name):
    path = copy / name
    whole = path.read_bytes()
    chosen = random.Random(2)
    for _ in range(200):
        changed = bytearray(whole)
        if chosen.random() < 0.5:
            changed[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        else:
            del changed[chosen.randrange(len(whole)) :]
        path.write_bytes(changed)
        try:
            records.read(copy / "metrics.jsonl")
            evaluation.evaluations(copy)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("command", ["sample", "evaluate", "report", "doctor"])
def test_a_command_says_it_in_one_line(copy, command, monkeypatch, capsys):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    monkeypatch.setattr(sys, "argv", ["midsentence", command, str(copy)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "damaged" in said and len(said.splitlines()) == 1, said


def test_names_in_a_stranger_s_tables_move_no_cursor(copy):
    (copy / "evaluation.json").write_text('{"test\\u001b[2J": {"nll": 1.5}}')
    with pytest.raises(UserError, match="damaged"):
        evaluation.evaluations(copy)
