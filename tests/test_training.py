"""Training from text to a model folder, and going on after a stop as if there had been none."""

import copy
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lasting import LASTING
from midsentence import (
    TextVAE,
    UserError,
    assembly,
    config,
    evaluation,
    opening,
    pipeline,
    prior_fitting,
)
from midsentence.config import recipes
from midsentence.learning import checkpoint, optimizers, steps, trainer
from midsentence.learning.optimizers import OPTIMIZERS, SGD, clipped_step
from midsentence.learning.planning import Plan
from midsentence.learning.procedures import Aggressive
from midsentence.parts.head import usual_words
from midsentence.parts.layers import Block
from midsentence.parts.posteriors import POSTERIORS
from midsentence.parts.priors import PRIORS
from midsentence.text.batches import Batches
from midsentence.text.corpus import Corpus
from midsentence.weights import load_tensors
from midsentence.writing import busy

FAST = [
    "latent=4", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=8", "training.batch_tokens=128", "tokenizer.kind=word", "corpus.max_tokens=32",
]  # fmt: skip
PEOPLE = ["anna", "ben", "carla", "dirk", "emma", "finn", "greta", "hugo"]
THINGS = ["a book", "two trees", "the sea", "some bread", "a small house", "their old songs"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.txt"
    lines = [f"{p} {v} {t}" for p in PEOPLE for v in ("sees", "likes", "paints") for t in THINGS]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(corpus, out, *settings, **more):
    return pipeline.train(corpus, out, settings=[*FAST, *settings], **more)


def records(out, kind):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def test_a_run_folder_is_whole_and_learning_happened(corpus, tmp_path):
    out = tmp_path / "run"
    model = run(corpus, out, "training.max_steps=150", "training.epochs=99", "optimizer.lr=0.01")
    expected = {"config.toml", "model.safetensors", "manifest.json", "metrics.jsonl"}
    assert expected | {"report.html", "tokenizer.json"} <= {f.name for f in out.iterdir()}
    valid = records(out, "valid")
    assert valid[-1]["elbo"] > valid[0]["elbo"] + 3
    assert records(out, "train")[-1]["step"] == 150
    assert {"elbo", "kl", "beta", "words_per_second"} <= set(records(out, "train")[0])
    assert len(model.sample(3)) == 3
    held = config.load(out / "config.toml").head.sampled_words  # whatever it is gone on with on
    assert held == usual_words(model.vae.device)
    opening.verify(out, assembly.FILES)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lr=0", "a number above 0"),
        ("beta={kind='cyclical', cycles=0}", "cycle"),
        ("decoder={kind='transformer', heads=7}", "choose a divisor"),
        ("posterior.kind=vmf", "do not go together"),
        ("objective={kind='iwae', samples=0}", "samples"),
        ("training.device=nowhere", "'nowhere' is not on this machine"),
    ],
)
def test_settings_that_make_no_model_are_refused_before_the_text_is_read(
    tmp_path, setting, message
):
    with pytest.raises(UserError, match=message):
        pipeline.train("nowhere.txt", tmp_path / "run", settings=[setting])
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def noting(texts):
    """A listener that adds every note to `texts`."""
    return lambda event, record: texts.append(record["text"]) if event == "note" else None


def test_few_sentences_are_given_a_small_model_that_is_held_back(corpus, tmp_path, monkeypatch):
    """Where nobody says otherwise: a recipe, a file, or so much of it."""
    told = []

    def began(name, **more):
        out = tmp_path / name
        settings = ["training.max_steps=1", *more.pop("settings", ())]
        pipeline.train(corpus, out, settings=settings, **more, listener=noting(told))
        return config.load(out / "config.toml")

    few = began("few", settings=["decoder.dropout=0.1", "corpus.valid_fraction=0.1"])
    assert (few.recipe, few.decoder["hidden"], few.decoder["dropout"]) == ("small", 128, 0.1)
    assert few.corpus.source == corpus and few.corpus.valid_fraction == 0.1
    assert "sentences are few: this is --recipe small" in told.pop() and not told
    usual = began("usual", recipe="default")
    assert (usual.recipe, usual.decoder["hidden"], usual.decoder["dropout"]) == ("default", 256, 0)
    assert began("file", file=tmp_path / "usual" / "config.toml").decoder["hidden"] == 256
    gru = began("gru", settings=["decoder.kind=gru", "latent=5"])
    assert (gru.decoder["kind"], gru.decoder["hidden"], gru.latent) == ("gru", 128, 5)
    monkeypatch.setattr(pipeline, "FEW", 100)
    told.clear()
    assert began("many").recipe == "default" and not told
    monkeypatch.setattr(pipeline, "FEW", 1000)
    assert began("lm", recipe="lm").decoder["hidden"] == 256
    assert "--recipe small --set latent=0 --set encoder.kind=none" in told.pop() and not told


def test_validation_does_not_grow_with_the_corpus(corpus, tmp_path, monkeypatch):
    """The same few sentences each time, drawn by the seed; a part that is no larger stays whole."""
    asked, bound = [], trainer.bound

    def seen(vae, sentences, **more):
        asked.append([sentences[i].tolist() for i in range(len(sentences))])
        return bound(vae, sentences, **more)

    monkeypatch.setattr(trainer, "bound", seen)
    few = ["training.max_steps=6", "training.validations=2", "corpus.valid_fraction=0.2"]
    run(corpus, tmp_path / "few", *few, "training.valid_sentences=5")
    held = pipeline.Corpus.open(tmp_path / "few" / "corpus").valid
    everything = [held[i].tolist() for i in range(len(held))]
    assert len(asked) > 1 and len(asked[0]) == 5 < len(held)
    assert all(found == asked[0] for found in asked)
    assert all(sentence in everything for sentence in asked[0])
    asked.clear()
    run(corpus, tmp_path / "all", *few)
    assert asked[0] == everything


def test_words_a_second_leave_validation_out(corpus, tmp_path, monkeypatch):
    now = [0.0]
    clock = type("clock", (), {"monotonic": staticmethod(lambda: now[0])})
    step, bound = trainer.Trainer._step, trainer.bound

    def slow_step(self, *rest):
        now[0] += 1
        step(self, *rest)

    def slow_bound(*rest, **more):
        now[0] += 1000
        return bound(*rest, **more)

    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setattr(trainer.Trainer, "_step", slow_step)
    monkeypatch.setattr(trainer, "bound", slow_bound)
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=100", "training.epochs=99", "training.patience=0")
    rates = [r["words_per_second"] for r in records(out, "train")]
    assert len(rates) == 4
    assert len(records(out, "valid")) >= 8
    assert all(60 < rate <= 128 for rate in rates)  # a step is a second, a batch 128 positions


@pytest.mark.parametrize("stop", [40, 50])
def test_words_a_second_after_a_stop_count_the_time_before_it(corpus, tmp_path, monkeypatch, stop):
    now = [0.0]
    clock = type("clock", (), {"monotonic": staticmethod(lambda: now[0])})
    step = trainer.Trainer._step

    def slow_step(self, *rest):
        now[0] += 1
        step(self, *rest)
        if self.at.step == stop - 1 and now[0] < 1000:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setattr(trainer.Trainer, "_step", slow_step)
    out, settings = tmp_path / "run", ["training.max_steps=75", "training.epochs=99"]
    assert run(corpus, out, *settings, "training.patience=0") is None
    now[0] += 1000
    pipeline.train(corpus, out, resume=True)
    rates = [r["words_per_second"] for r in records(out, "train")]
    assert len(rates) == 3
    assert all(60 < rate <= 128 for rate in rates)  # a step is a second, a batch 128 positions


def test_stopping_and_going_on_equals_going_through(corpus, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(corpus, whole, "training.max_steps=60", "decoder.dropout=0.3")

    def stop(event, record):
        if event == "train" and record["step"] == 25:
            os.kill(os.getpid(), signal.SIGINT)

    assert run(corpus, parts, "training.max_steps=60", "decoder.dropout=0.3", listener=stop) is None
    stopped, _ = checkpoint.latest(parts / "checkpoints")
    pipeline.train(corpus, parts, resume=True)
    for name, tensor in checkpoint.latest(whole / "checkpoints")[0].items():
        assert torch.equal(tensor, checkpoint.latest(parts / "checkpoints")[0][name]), name
    assert not torch.equal(
        stopped["model.head.bias"],
        checkpoint.latest(parts / "checkpoints")[0]["model.head.bias"],
    )
    for kind in ("train", "valid"):
        held = [
            [{k: v for k, v in r.items() if k not in ("seconds", "words_per_second")} for r in rs]
            for rs in (records(whole, kind), records(parts, kind))
        ]
        assert [r["step"] for r in held[0]] == [r["step"] for r in held[1]]
        if kind == "valid":
            assert held[0] == held[1]


def test_epochs_of_unlike_length_are_planned_as_before_after_a_stop(corpus, tmp_path, monkeypatch):
    """More batches than are sorted together make epochs differ by a few."""
    plain = trainer.shuffled

    def uneven(lengths, budget, seed, epoch, **more):
        found = plain(lengths, budget, seed, epoch, **more)
        end = len(found) - epoch % 3
        return Batches(found.order, found.begins[:end], found.ends[:end])

    monkeypatch.setattr(trainer, "shuffled", uneven)
    settings = ["training.epochs=5", "training.patience=0", "training.batch_tokens=64"]
    whole, parts, plans = tmp_path / "whole", tmp_path / "parts", []

    def stop(event, record):
        if event == "start":
            plans.append(record["steps"])
        if event == "train" and record["step"] == 50 and len(plans) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    run(corpus, whole, *settings, listener=stop)
    assert run(corpus, parts, *settings, listener=stop) is None
    pipeline.train(corpus, parts, resume=True, listener=stop)
    assert plans[0] == plans[1] == plans[2]
    there, here = (checkpoint.latest(f / "checkpoints")[0] for f in (whole, parts))
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_a_run_is_never_overwritten(corpus, tmp_path):
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=2")
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        run(corpus, out, "training.max_steps=2")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not empty"):
        run(corpus, mine)
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "setting", ["objective.kind=rate", "objective.kind=iwae", "training.average=0.5"]
)
def test_a_run_may_go_on_with_another_objective_and_with_averaging(corpus, tmp_path, setting):
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=30", "training.epochs=99")
    more = [setting, "training.max_steps=60"]
    pipeline.train(corpus, out, resume=True, settings=more)
    held, state = checkpoint.latest(out / "checkpoints")
    assert state["position"]["step"] == 60
    if setting == "objective.kind=rate":
        assert held["objective.log_m"] != 0
    if setting == "training.average=0.5":
        assert held["average.count"] == 3  # steps 40, 50 and 60


def test_a_run_can_not_go_on_with_another_optimiser(corpus, tmp_path):
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=4")
    with pytest.raises(UserError, match=r"optimizer\.kind"):
        pipeline.train(corpus, out, resume=True, settings=["optimizer.kind=mixed"])


def test_a_rate_is_not_held_while_an_autoencoder_is_trained(corpus, tmp_path, monkeypatch):
    """Else the new decoder would begin under the largest weight there is."""
    found, begin = [], trainer.Trainer._begin_anew

    def anew(self):
        begin(self)
        found.append(float(self.objective.log_m))

    monkeypatch.setattr(trainer.Trainer, "_begin_anew", anew)
    run(corpus, tmp_path / "run", "training.pretrain=0.5", "training.max_steps=40",
        "training.epochs=99", "objective.kind=rate", "objective.exactly=true",
        "objective.target=0.01", "beta.kind=constant")  # fmt: skip
    assert found == [0.0]
    held = checkpoint.latest(tmp_path / "run" / "checkpoints")[0]
    assert held["objective.log_m"] > 0


def test_alarms_remember_what_was_before_a_stop(corpus, tmp_path):
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=60", "training.epochs=99")
    held = trainer.Trainer(
        config.load(out / "config.toml"), Corpus.open(out / "corpus"), out, print
    )
    held.restore()
    assert len(held.alarms.records) == len(records(out, "valid")) > 3
    assert {r["beta"] for r in held.alarms.records} > {1.0}


def test_a_language_model_has_no_posterior_of_another_kind():
    with pytest.raises(UserError, match=r"leave posterior\.kind out"):
        assembly.assemble(config.compose("lm", None, ["posterior.kind=lowrank"]), 20)


def test_a_few_minutes_are_spent_on_training(corpus, tmp_path, monkeypatch):
    """Where a validation takes long, not every eighth of the time can have one."""
    look, looks = trainer.Trainer._look, []

    def slowly(self, *rest):
        looks.append(self.at.seconds)
        time.sleep(0.3)
        return look(self, *rest)

    monkeypatch.setattr(trainer.Trainer, "_look", slowly)
    run(corpus, tmp_path / "run", "training.max_minutes=0.05", "training.epochs=1e6",
        "training.validations=1e-6")  # fmt: skip
    assert 1 < len(looks) <= 3  # of 0.3 s in 3 s, the last at the end; one an eighth would be 8
    assert all(b - a > 1.2 for a, b in pairwise(looks[:-1]))


def test_resume_needs_the_same_run(corpus, tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        run(corpus, tmp_path / "none", resume=True)
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=2")
    with pytest.raises(UserError, match="trained on"):
        pipeline.train("builtin:grammar", out, resume=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"valid": "another.txt"}, "leave --valid out"),
        ({"settings": ["corpus.max_tokens=3"]}, r"leave corpus\.max_tokens out"),
        ({"settings": ["tokenizer.kind=char"]}, r"leave tokenizer\.kind out"),
    ],
)
def test_resume_takes_no_other_text(corpus, tmp_path, asked, message):
    """It would be written down as if it had been so."""
    run(corpus, tmp_path / "run", "training.max_steps=2")
    with pytest.raises(UserError, match=message):
        pipeline.train(corpus, tmp_path / "run", resume=True, **asked)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["latent=5"], "latent"),
        (["decoder.hidden=12", "decoder.dropout=0.1"], r"decoder\.hidden"),
        (["latent=0", "encoder.kind=none", "objective.free_bits=1"], r"encoder\.kind, latent"),
        (
            ["head.gradient_words=9", "head.sampled_words=0", "decoder.hidden=12", "latent=5"],
            r"decoder\.hidden, latent",
        ),
        (["head.softmaxes=2"], r"head\.softmaxes"),
        (["objective.bow=1.0"], r"objective\.bow"),
        (["decoder.kind=gru"], r"decoder\.kind"),
    ],
)
def test_resume_takes_no_other_model(corpus, tmp_path, asked, named):
    run(corpus, tmp_path / "run", "training.max_steps=2")
    with pytest.raises(UserError, match=f"another model: leave {named} out, or train afresh"):
        pipeline.train(corpus, tmp_path / "run", resume=True, settings=asked)
    with pytest.raises(UserError, match=r"set head\.gradient_words or it to 0"):
        pipeline.train(corpus, tmp_path / "run", resume=True, settings=["head.gradient_words=9"])
    more = ["decoder.dropout=0.1", "objective.free_bits=0.5", "training.max_steps=3"]
    assert pipeline.train(corpus, tmp_path / "run", resume=True, settings=more) is not None


def test_going_on_says_that_the_text_is_another_by_now(corpus, tmp_path):
    notes, out = [], tmp_path / "run"

    def go_on():
        notes.clear()
        run(corpus, out, "training.max_steps=3", resume=True, listener=noting(notes))
        return [text for text in notes if "was written since" in text]

    run(corpus, out, "training.max_steps=2")
    assert not go_on()
    text = Path(corpus)
    later = time.time() + 10
    os.utime(text, (later, later))
    assert go_on() == [
        f"{corpus} was written since: {out} goes on with the text that it was begun with"
    ]
    text.unlink()
    assert not go_on() and not notes
    text.mkdir()  # of a folder it says nothing
    os.utime(text, (later, later))
    assert not go_on()


def test_going_on_says_when_a_fitted_prior_is_of_the_model_before(corpus, tmp_path):
    notes, out = [], tmp_path / "run"

    def go_on(steps):
        notes.clear()
        run(corpus, out, f"training.max_steps={steps}", resume=True, listener=noting(notes))
        return [text for text in notes if str(out / "prior") in text]

    run(corpus, out, "training.max_steps=2")
    prior_fitting.fit_prior(out, kind="mog", steps=2)
    assert not go_on(2)
    (said,) = go_on(40)
    assert "made with other weights than the model's: fit it again" in said


def test_resume_takes_the_same_command(corpus, tmp_path):
    """With the file that the run was begun with, but not with one that says something else."""
    file = tmp_path / "mine.toml"
    file.write_text("latent = 5\n[decoder]\nkind = 'lstm'\nhidden = 12\n")
    begun = {"file": file, "settings": ["latent=6", "training.max_steps=2"]}
    pipeline.train(corpus, tmp_path / "run", **begun)
    pipeline.train(corpus, tmp_path / "run", **begun, resume=True)
    with pytest.raises(UserError, match=r"other settings than .*mine\.toml has: leave --config"):
        pipeline.train(corpus, tmp_path / "run", file=file, resume=True)
    with pytest.raises(UserError, match="no such configuration"):
        pipeline.train(corpus, tmp_path / "run", file=tmp_path / "none.toml", resume=True)


def test_another_runs_settings_are_no_other_text(corpus, tmp_path):
    """`doctor` says --config RUN/config.toml, for a run on whatever corpus."""
    first = tmp_path / "first"
    run(corpus, first, "training.max_steps=2", "corpus.valid_fraction=0.25")
    other = tmp_path / "other.txt"
    other.write_text("a book\nmany books\n" * 30)
    begun = {"file": first / "config.toml", "recipe": "plain", "settings": ["latent=6"]}
    pipeline.train(str(other), tmp_path / "second", **begun)
    pipeline.train(str(other), tmp_path / "second", **begun, resume=True)
    held = config.load(tmp_path / "second" / "config.toml")
    assert (held.corpus.source, held.latent, held.recipe) == (str(other), 6, "plain")


def test_files_to_validate_on_may_be_settings(corpus, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("a book\nmany books\n")
    asked = ["training.max_steps=2", f"corpus.valid={other}", f"corpus.test={corpus}"]
    run(corpus, tmp_path / "run", *asked)
    assert len(Corpus.open(tmp_path / "run" / "corpus").valid) == 2
    held = config.load(tmp_path / "run" / "config.toml")
    assert (held.corpus.valid, held.corpus.test) == (str(other), str(corpus))
    run(corpus, tmp_path / "run", *asked, resume=True)
    file = tmp_path / "a.toml"
    file.write_text("[corpus]\nsource = 'another.txt'\nvalid = 'none.txt'\n")
    pipeline.train(corpus, tmp_path / "third", file=file, settings=["training.max_steps=2"])
    said = [" corpus.test = " + str(other), "training.max_steps=2"]  # not the file's: it stays
    held = pipeline._begin(corpus, tmp_path / "fourth", None, file, said, None, None)[0].corpus
    assert (held.source, held.valid, held.test) == (corpus, None, str(other))


def test_a_folder_that_cannot_be_made_is_said(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run .*: choose another --out$"):
        run(corpus, tmp_path / "file" / "run")
    with pytest.raises(
        UserError, match=r"^/proc/none cannot be written \(.*: choose another --out$"
    ):
        run(corpus, "/proc/none/of/these")


def test_a_file_system_without_locks_is_trained_in(corpus, tmp_path, monkeypatch):
    def flock(handle, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("midsentence.writing.fcntl.flock", flock)
    assert run(corpus, tmp_path / "run", "training.max_steps=2")
    assert not busy(tmp_path / "run")


def test_saved_and_loaded_gives_the_same_numbers(corpus, tmp_path):
    model = run(corpus, tmp_path / "run", "training.max_steps=20", "head.tied=true")
    model.save_pretrained(tmp_path / "copy")
    copy = TextVAE.from_pretrained(tmp_path / "copy")
    lines = ["anna sees the sea", "hugo paints a book"]
    assert torch.equal(model.encode(lines), copy.encode(lines))
    assert model.sample(5, seed=2) == copy.sample(5, seed=2)
    assert [s.log_px for s in model.score(lines, 20)] == [s.log_px for s in copy.score(lines, 20)]
    assert copy.decode(copy.encode(lines)) == copy.reconstruct(lines)
    assert copy.decode(copy.draw(5, seed=2)[0], seed=2, temperature=1.0) == copy.sample(5, seed=2)
    assert copy.interpolate(*lines, steps=3)[0] == copy.reconstruct(lines)[0]


def test_damage_is_found(corpus, tmp_path):
    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=2")
    path = out / "model.safetensors"
    held = bytearray(path.read_bytes())
    held[-3] ^= 4
    path.write_bytes(held)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        TextVAE.from_pretrained(out)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        TextVAE.from_pretrained(out)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"x": torch.full((2,), float(step))}, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    (tmp_path / "step-000003" / "tensors.safetensors").write_bytes(b"broken")
    tensors, state = checkpoint.latest(tmp_path)
    assert state == {"step": 2}
    assert tensors["x"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("posterior", ["gaussian", "full", "lowrank"])
def test_divergence_stops_with_one_line_and_keeps_the_last_good(corpus, tmp_path, posterior):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"Lower optimizer\.lr"):
        run(corpus, out, "optimizer.kind=sgd", "optimizer.lr=1e8", "training.max_steps=200",
            f"posterior.kind={posterior}")  # fmt: skip


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_a_clipped_step_is_clip_grad_norm_and_a_step(kind, clip):
    torch.manual_seed(0)
    start = {"encoder.a": torch.randn(5, 3), "decoder.b": torch.randn(7)}
    sides = []
    for _ in range(2):
        named = [(k, torch.nn.Parameter(v.clone())) for k, v in start.items()]
        sides.append((named, OPTIMIZERS[kind](named)))
    for _ in range(3):
        for at, (named, optimizer) in enumerate(sides):
            loss = sum((p * torch.arange(p.numel()).view_as(p)).sum() for _, p in named)
            optimizer.each[0].zero_grad()
            optimizer.each[-1].zero_grad()
            loss.backward()
            if at:
                clipped_step(optimizer.each, clip)
                continue
            for each in optimizer.each:
                held = [p for group in each.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(held, clip)
                each.step()
    for (name, a), (_, b) in zip(sides[0][0], sides[1][0], strict=True):
        assert not torch.equal(a, start[name])
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind, tied, words", [
    ("sgd", False, "sampled_words"), ("sgd", True, "sampled_words"), ("sgd", True, None),
    ("mixed", False, "gradient_words"), ("mixed", False, None), ("mixed", True, "sampled_words"),
    ("adamw", False, "sampled_words"), ("adamw", True, "gradient_words"), ("adamw", True, None),
])  # fmt: skip
def test_gradients_of_a_few_rows_train_as_whole_ones_do(
    corpus, tmp_path, monkeypatch, kind, tied, words
):
    """Same weights, and clipped by the same norm, though rows come twice and in two parts."""
    settings = [f"optimizer.kind={kind}", f"head.tied={tied}", "training.max_steps=12",
                "training.parts=2", "training.clip=0.5"]  # fmt: skip
    settings += ["optimizer.sgd_decay=0.05"] if kind == "mixed" else []
    settings += [f"head.{words}=6" if words else "head.sampled_words=0"]
    found = []

    def seen(vae, *rest):
        optimizers.few_rows(vae, *rest)
        tables = vae.encoder.embedding, vae.decoder.input.embedding
        found.append([*(table.sparse for table in tables), vae.head.gives_rows])

    monkeypatch.setattr(steps, "few_rows", seen)
    for large in (0, math.inf):
        monkeypatch.setattr(optimizers, "LARGE", large)
        out = tmp_path / str(large)
        run(corpus, out, *settings)
        found += [load_tensors(out / "model.safetensors"), records(out, "valid")[-1]["elbo"]]
    sparse, rows, bound, dense, whole, other = found
    assert sparse == [True, bool(words) or not tied, bool(words)]
    assert dense == [False] * 3
    assert bound == pytest.approx(other, abs=1e-4)
    for name, value in rows.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rows_step_as_the_table_does_also_after_one_that_was_skipped(kind):
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(9, 3, generator=draw)
    rows, whole = (
        [(n, torch.nn.Parameter(table.clone())) for n in ("encoder.a", "decoder.b")] for _ in "ab"
    )
    decay = {"sgd_decay": 0.1} if kind == "mixed" else {}
    optimizers = [OPTIMIZERS[kind](named, **decay) for named in (rows, whole)]
    for wrong in (None, None, math.nan, math.inf, None):
        places = torch.randint(9, (4,), generator=draw)  # some come twice
        for (_, few), (_, every) in zip(rows, whole, strict=True):
            values = torch.randn(4, 3, generator=draw)
            values[1, 1] = values[1, 1] if wrong is None else wrong
            few.grad = torch.sparse_coo_tensor(
                places[None], values, few.shape, check_invariants=True
            )
            every.grad = torch.zeros_like(every).index_add_(0, places, values)
        before = [every.detach().clone() for _, every in whole]
        for optimizer in optimizers:
            clipped_step(optimizer.each, 1.0)
        for old, (_, few), (_, every) in zip(before, rows, whole, strict=True):
            assert torch.equal(old, every) == (wrong is not None)
            torch.testing.assert_close(few, every, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(kind, wrong):
    named = [(n, torch.nn.Parameter(torch.ones(4))) for n in ("encoder.a", "decoder.b")]
    optimizer = OPTIMIZERS[kind](named)
    for value in (1.0, wrong):
        before = [p.detach().clone() for _, p in named]
        states = [copy.deepcopy(each.state_dict()) for each in optimizer.each]
        for _, parameter in named:
            parameter.grad = torch.full((4,), 0.5)
        named[1][1].grad[2] = value
        norm = clipped_step(optimizer.each, 5.0)
    assert not norm.isfinite()
    for old, (_, parameter) in zip(before, named, strict=True):
        assert torch.equal(old, parameter)
    for old, each in zip(states, optimizer.each, strict=True):
        for key, state in each.state_dict()["state"].items():
            for name, held in (state or {}).items():
                assert held is None or torch.equal(held, old["state"][key][name])


def test_without_a_compiler_training_goes_on_and_says_so(corpus, tmp_path, monkeypatch):
    def compile(module, **settings):
        def call(*arguments):
            raise RuntimeError("no working C++ compiler\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", compile)
    heard = []
    run(corpus, tmp_path / "a", "training.compile=true", "training.max_steps=5",
        listener=lambda event, record: heard.append((event, record)))  # fmt: skip
    notes = [r["text"] for event, r in heard if event == "note" and "compile" in r["text"]]
    assert len(notes) == 2  # encoder and decoder
    assert "no working C++ compiler); going on without" in notes[0]


COMPILED = """
import sys, torch
from midsentence.learning.compiling import compile_in_place
from midsentence.parts.decoders import DECODERS

plain = torch.compile
torch.compile = lambda f, **settings: plain(f, backend="aot_eager", **settings)
torch.manual_seed(0)
layered = {"layers": 2, "locked_dropout": True, "dropout": 1e-9}  # layer by layer, nothing dropped
for kind, settings in ("lstm", {}), ("lstm", layered), ("gru", layered), ("transformer", {}):
    decoder = DECODERS[kind](11, 3, hidden=8, **settings)
    compiled = DECODERS[kind](11, 3, hidden=8, **settings)
    compiled.load_state_dict(decoder.state_dict())
    compile_in_place(compiled, sys.exit)
    for length in (3, 5):
        tokens, z = torch.randint(11, (4, length)), torch.randn(4, 3)
        for module in (decoder, compiled):
            module.zero_grad()
            module(tokens, z).square().sum().backward()
        for a, b in zip(decoder.parameters(), compiled.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-6), kind
"""


@LASTING  # half a minute
def test_a_compiled_decoder_has_the_same_gradients():
    # By itself: the shape checks of this suite are not made to be traced.
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


RICHER = [
    ["posterior.kind=full", "prior.kind=mog", "prior.components=3"],
    ["posterior.kind=lowrank", "posterior.rank=2", "prior.kind=vamp", "prior.components=3"],
    ["posterior.kind=iaf", "posterior.layers=2", "posterior.width=8"],
    ["posterior.kind=planar", "prior.kind=flow", "prior.flow=maf", "prior.width=8"],
    ["posterior.kind=vmf", "prior.kind=sphere"],
    ["posterior.gamma=0.5"],
]


@pytest.mark.parametrize("parts", RICHER)
def test_richer_densities_train_save_and_measure(corpus, tmp_path, parts):
    out = tmp_path / "run"
    model = run(corpus, out, *parts, "training.max_steps=30")
    again = TextVAE.from_pretrained(out)
    assert again.sample(3, seed=1) == model.sample(3, seed=1)
    held = pipeline.Corpus.open(out / "corpus")
    found = [evaluation.evaluate_store(m, held.test, 20) for m in (model, again)]
    assert found[0] == found[1]
    assert found[0]["nll"] <= -found[0]["elbo"] + 1.0
    assert math.isfinite(found[0]["mi"])
    per_dimension = "KL per dimension" in (out / "report.html").read_text("utf-8")
    assert per_dimension == (parts == ["posterior.gamma=0.5"])


def test_batch_normalised_means_keep_the_kl_up():
    posterior = POSTERIORS["gaussian"](6, 4, gamma=0.7)
    with torch.no_grad():
        q = posterior(torch.randn(500, 6))
    spread = q.mean.std(0, correction=0)
    assert torch.allclose(spread, torch.full((4,), 0.7), rtol=0.01)
    kl = torch.distributions.kl_divergence(q.base_dist, PRIORS["normal"](4, posterior)().base_dist)
    assert kl.sum(1).mean() > 4 * 0.7**2 / 2 - 0.02
    assert posterior(torch.randn(1, 6)).mean.isfinite().all()


def test_vamp_refuses_batch_normalised_means(corpus, tmp_path):
    with pytest.raises(UserError, match="pseudo-inputs"):
        run(corpus, tmp_path / "run", "posterior.gamma=0.5", "prior.kind=vamp")


@pytest.mark.parametrize(
    "setting",
    ["objective.kind=rate", "training.aggressive=10", "training.pretrain=0.4", *(
        pytest.param(stateless, marks=LASTING) for stateless in (
            "objective.kind=iwae", "objective.kind=mmd", "objective.fraternal=0.1",
            "posterior.delta=2.0", "refine.steps=2",
        )
    )],
)  # fmt: skip
def test_every_remedy_trains_and_goes_on_after_a_stop_as_if_there_had_been_none(
    corpus, tmp_path, setting
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = [setting, "training.max_steps=40", "decoder.dropout=0.3", "training.epochs=99"]

    def stop(event, record):
        if event == "train" and record["step"] == 25:
            os.kill(os.getpid(), signal.SIGINT)

    model = run(corpus, whole, *settings)
    assert run(corpus, parts, *settings, listener=stop) is None
    pipeline.train(corpus, parts, resume=True)
    there, here = (checkpoint.latest(f / "checkpoints")[0] for f in (whole, parts))
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert len(there) == len(here)
    assert model.score(["anna sees the sea"], 20)[0].log_px < 0
    if setting == "objective.kind=rate":
        assert here["objective.log_m"] != 0
        assert records(whole, "train")[-1]["beta"] != 1


def test_the_aggressive_encoder_trains_alone_between_the_decoder_s_steps(corpus, tmp_path):
    config, data = pipeline._begin(
        corpus, tmp_path / "run", None, None, [*FAST, "training.aggressive=10"], None, None
    )
    held = trainer.Trainer(config, data, tmp_path / "run", lambda event, record: None)
    moved: list[set[str]] = []
    inner = held.steps._update

    def update(*arguments):
        before = {n: p.detach().clone() for n, p in held.vae.named_parameters()}
        found = inner(*arguments)
        after = dict(held.vae.named_parameters())
        changed = {n for n in before if not torch.equal(before[n], after[n])}
        moved.append({n.split(".")[0] for n in changed})
        return found

    held.steps._update = update
    held._step(held._batches(0), 0.5)
    assert moved[:10] == [{"encoder", "posterior"}] * 10
    assert moved[10:] == [{"decoder", "head"}]
    assert all(p.requires_grad for p in held.vae.parameters())
    held.at.aggressive = False
    held._step(held._batches(0), 0.5)
    assert moved[11:] == [{"encoder", "posterior", "decoder", "head"}]


def test_the_encoder_catches_up_until_fifteen_steps_are_worse():
    values = [*range(45), *[10] * 200]
    asked = []

    def step():
        asked.append(1)
        return torch.tensor(float(values[len(asked) - 1])), 1

    Aggressive(100).catch_up(step)
    assert len(asked) == 60  # 10 is worse than the mean of 30 to 44
    asked.clear()
    Aggressive(20).catch_up(step)
    assert len(asked) == 20
    asked[:] = [1] * 45  # always the same from here
    Aggressive(99).catch_up(step)
    assert len(asked) == 45 + 99


def test_pre_training_ends_with_a_new_decoder_and_the_encoder_as_it_was(corpus, tmp_path):
    config, data = pipeline._begin(
        corpus, tmp_path / "run", None, None, [*FAST, "training.pretrain=0.4"], None, None
    )
    held = trainer.Trainer(config, data, tmp_path / "run", lambda event, record: None)
    assert [held._beta(p) for p in (0, 0.39, 0.4, 0.49, 1.0)] == pytest.approx(
        [0, 0, 0, 0.5, 1.0], abs=1e-9
    )
    held.plan = Plan(per_epoch=10, steps=100, every=10)
    held._step(held._batches(0), 0.1)
    held._validate()
    before = {n: p.detach().clone() for n, p in held.vae.named_parameters()}
    assert held.at.best == records(tmp_path / "run", "valid")[0]["log_px"]
    held._step(held._batches(0), 0.1)
    held.at.aggressive, held.at.information = False, 3.0
    held._begin_anew()  # from the weights that were best
    assert held.at.reset and held.at.aggressive and held.at.information == -math.inf
    for name, parameter in held.vae.named_parameters():
        new = name.startswith(("decoder.", "head."))
        same = torch.equal(parameter, before[name])
        assert same != new or not parameter.any(), name
        assert (parameter in held.optimizer.each[0].state) != new
    held._step(held._batches(0), 0.5)


def test_a_run_that_is_extended_is_not_pre_trained_again(corpus, tmp_path, capsys):
    out, asked = tmp_path / "run", ["training.pretrain=0.4", "training.epochs=99"]
    run(corpus, out, *asked, "training.max_steps=50")
    done = records(out, "valid")[-1]["step"]
    pipeline.train(corpus, out, resume=True, settings=["training.max_steps=200"])
    later = [r["beta"] for r in records(out, "train") if done < r["step"] < 80]
    assert later and all(beta == later[0] for beta in later)  # where annealing begins again
    assert records(out, "train")[-1]["beta"] == 1
    with pytest.raises(UserError, match=r"was begun with training.pretrain=0\.4"):
        pipeline.train(corpus, out, resume=True, settings=["training.pretrain=0"])


def test_the_end_is_saved_once(corpus, tmp_path):
    run(corpus, tmp_path / "run", "training.max_steps=16", "training.epochs=99")
    held = [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(held) == ["step-000014", "step-000016"]


def test_a_language_model_is_trained_as_one_whatever_is_said_of_a_latent(corpus, tmp_path):
    small = [s for s in FAST if s.startswith(("decoder", "training", "tokenizer"))]
    asked = [*small, "training.max_steps=20", "training.epochs=99"]
    latent = ["training.aggressive=10", "training.pretrain=0.5", "refine.steps=2",
              "objective.bow=0.5", "objective.free_bits=1.0"]  # fmt: skip
    for name, more in ("plain", []), ("said", latent):
        pipeline.train(corpus, tmp_path / name, recipe="lm", settings=[*asked, *more])
    plain, said = (checkpoint.latest(tmp_path / f / "checkpoints")[0] for f in ("plain", "said"))
    assert plain.keys() == said.keys()
    assert all(torch.equal(plain[name], said[name]) for name in plain)


def test_the_published_initialisation_leaves_what_begins_on_purpose():
    more = ["decoder.kind=transformer", "decoder.inject=['add', 'gate', 'skip']", "latent=4",
            "posterior.kind=iaf", "prior.kind=mog", "training.init=0.01"]  # fmt: skip
    settings = config.compose(None, None, more)
    vae = assembly.assemble(settings, 50)
    settings.training.init = None
    there = dict(assembly.assemble(settings, 50).named_parameters())
    same = {n for n, p in vae.named_parameters() if torch.equal(p, there[n])}
    assert {n for n in same if not n.startswith(("prior.", "posterior.flow"))} == {
        n for n in there if "norm" in n or n == "decoder.gate.weight"
    }
    assert {n for n in there if n.startswith(("prior.", "posterior.flow"))} <= same
    assert vae.decoder.input.embedding.weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)
    assert vae.decoder.skip.weight.std().item() == pytest.approx(0.01 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_kill_after_the_first_model_of_the_new_decoder_is_gone_on_from(
    corpus, tmp_path, monkeypatch, kind
):
    """The autoencoder's best weights are overwritten then, and no checkpoint knows it yet."""
    settings = ["training.pretrain=0.4", "training.max_steps=40", "training.epochs=99",
                f"optimizer.kind={kind}", "optimizer.lr=0.02"]  # fmt: skip
    if kind == "sgd":
        settings += ["optimizer.halve_from=0", "optimizer.halve_after=1"]
    save = trainer.Trainer._save

    def killed(self):
        if self.at.reset and self.at.step > self.at.begun:
            raise RuntimeError
        save(self)

    run(corpus, tmp_path / "whole", *settings)
    monkeypatch.setattr(trainer.Trainer, "_save", killed)
    with pytest.raises(RuntimeError):
        run(corpus, tmp_path / "parts", *settings)
    monkeypatch.undo()
    pipeline.train(corpus, tmp_path / "parts", resume=True)
    there, here = (checkpoint.latest(tmp_path / f / "checkpoints")[0] for f in ("whole", "parts"))
    assert all(torch.equal(there[name], here[name]) for name in there)


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_trains(corpus, tmp_path, recipe):
    small = [s for s in FAST if recipe != "lm" or not s.startswith(("latent", "encoder"))]
    parts = {"iaf": ["posterior.layers=1"], "vamp": ["prior.components=5"]}.get(recipe, [])
    model = pipeline.train(
        corpus, tmp_path / "run", recipe=recipe, settings=[*small, *parts, "training.max_steps=3"]
    )
    assert len(model.sample(2)) == 2


def test_early_stopping_keeps_the_best(corpus, tmp_path):
    out = tmp_path / "run"
    run(corpus, out, "training.epochs=200", "training.patience=2", "optimizer.lr=0.05",
        "beta.kind=constant", "training.validations=2")  # fmt: skip
    valid = [r["elbo"] for r in records(out, "valid")]
    assert len(valid) < 400
    best = TextVAE.from_pretrained(out)
    held = pipeline.Corpus.open(out / "corpus").valid
    found = pipeline.trainer.bound(best.vae, held, seed=0)
    assert found["elbo"] == pytest.approx(max(valid), abs=1e-4)


def test_a_language_model_trains_by_the_same_door(corpus, tmp_path):
    model = pipeline.train(
        corpus, tmp_path / "lm", recipe="lm",
        settings=["decoder.hidden=8", "tokenizer.kind=word", "training.max_steps=30"],
    )  # fmt: skip
    assert model.latent == 0
    score = model.score(["anna sees the sea"])[0]
    assert score.stderr == 0
    assert score.kl == 0
    assert score.log_px < 0


def test_published_sgd_halves_and_stops():
    sgd = SGD([("w", torch.nn.Parameter(torch.zeros(1)))], lr=1.0, halve_from=2, halvings=2)
    # After the first halving -11.5 is better than the -12 that brought it, if worse than the -10.
    bounds = [-10, -11, -12, -11.5, -11.6, -11.7]
    said = [sgd.validated(bound, epoch) for epoch, bound in enumerate(bounds)]
    assert said == [False, False, True, False, False, True]
    assert sgd.over and sgd.rates(0.5) == [0.25]
    sgd.begin_anew()
    assert not sgd.over and sgd.rates(0.5) == [1.0]


def test_a_run_that_was_halved_to_its_end_does_not_go_on(corpus, tmp_path):
    """As after a kill between training and evaluation."""
    out, asked = tmp_path / "run", ["kind=sgd", "lr=1e-9", "halve_from=0", "halve_after=1"]
    more = ["training.validations=1"]
    run(corpus, out, *(f"optimizer.{s}" for s in [*asked, "halvings=1"]), *more)
    before = records(out, "valid")
    assert len(before) == 2
    pipeline.train(corpus, out, resume=True)
    assert records(out, "valid") == before
    more = ["optimizer.halvings=2", "training.epochs=3"]  # unless it is asked to
    pipeline.train(corpus, out, resume=True, settings=more)
    assert len(records(out, "valid")) == 3


@pytest.mark.parametrize("kind", ["constant", "logistic"])
def test_a_run_that_ended_early_does_not_go_on(corpus, tmp_path, kind):
    out = tmp_path / "run"
    settings = ["optimizer.lr=1e-9", "training.patience=1", "training.epochs=20"]
    run(corpus, out, *settings, f"beta.kind={kind}")
    before = records(out, "valid")
    assert before[-1]["progress"] < 1
    pipeline.train(corpus, out, resume=True)
    assert records(out, "valid") == before


def test_what_is_still_counts_in_the_norm_and_does_not_move():
    moves, still = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    moves.grad, still.grad = torch.tensor([3.0]), torch.tensor([4.0])
    each = [torch.optim.SGD([moves, still], lr=1.0, fused=True)]
    assert float(clipped_step(each, 1.0, [still])) == pytest.approx(5)
    assert moves.tolist() == pytest.approx([-3 / 5])
    assert still.tolist() == [0]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_our_optimisers_are_torch_s(kind):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(5, 4)) for _ in range(2))
    made = OPTIMIZERS[kind]([("w", ours)], lr=0.1)
    own = {"weight_decay": 0.01, "betas": (0.9, 0.99)} if kind == "adamw" else {}
    other = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]([theirs], lr=0.1, **own)
    for _ in range(5):
        gradient = torch.randn(5, 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        clipped_step(made.each, 2.0)
        torch.nn.utils.clip_grad_norm_([theirs], 2.0)
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_without_biases_head_and_posterior_are_linear(corpus, tmp_path):
    model = run(
        corpus, tmp_path / "run", "head.bias=false", "posterior.bias=false", "training.max_steps=5",
        "optimizer.lr=0.05", "training.init=0.1",
    )  # fmt: skip
    assert not model.vae.head.bias.any() and model.vae.head.table.std() > 0.01
    h = torch.randn(3, model.vae.encoder.summary)
    ahead, back = (model.vae.posterior(x).mean for x in (h, -h))
    torch.testing.assert_close(ahead, -back)
    assert ahead.std() > 0


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_named(corpus, tmp_path, device):
    with pytest.raises(UserError, match="not on this machine"):
        run(corpus, tmp_path / "run", f"training.device={device}")


def test_tensorboard_is_an_option(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    run(corpus, out, "training.max_steps=50", "training.tensorboard=true")
    held = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [e.step for e in held.Scalars("train/elbo")] == [25, 50]
    written = [r["kl"] for r in records(out, "valid")]
    assert [e.value for e in held.Scalars("valid/kl")] == pytest.approx(written)


@pytest.mark.parametrize("installed", [True, False])
def test_settings_that_make_no_model_leave_room_with_tensorboard(
    corpus, tmp_path, monkeypatch, installed
):
    if not installed:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    def refused(*rest, **more):
        raise UserError("that cannot be trained")

    monkeypatch.setattr(trainer, "train", refused)
    with pytest.raises(UserError, match="cannot be trained" if installed else "tensorboard"):
        run(corpus, tmp_path / "run", "training.tensorboard=true")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["corpus"]


def test_layers_computed_once_more_give_the_same_training(corpus, tmp_path, monkeypatch):
    """Down to the dropout: the second computation must draw what the first drew."""
    narrow = ["encoder.hidden=8", "decoder.hidden=8", "encoder.heads=2", "decoder.heads=2"]
    kinds = ["encoder.kind=transformer", "decoder.kind=transformer", "encoder.dropout=0.3"]
    calls, held = [0, 0], []
    computed = Block._forward

    def counted(*given):
        calls[len(held)] += 1
        return computed(*given)

    monkeypatch.setattr(Block, "_forward", counted)
    for recompute in ("false", "true"):
        more = ["decoder.dropout=0.3", f"training.recompute={recompute}", "training.max_steps=8"]
        out = tmp_path / recompute
        short = [s for s in FAST if "embedding" not in s]
        pipeline.train(corpus, out, settings=[*short, *kinds, *narrow, *more])
        held.append(checkpoint.latest(out / "checkpoints")[0])
    assert calls[1] >= calls[0] + 8 * 2
    assert held[0].keys() == held[1].keys()
    for name, tensor in held[0].items():
        assert torch.equal(tensor, held[1][name]), name
