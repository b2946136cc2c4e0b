"""Not-a-number never reaches what is saved, wherever it comes from."""

import json
import math
import os

import numpy as np
import pytest
import torch

from midsentence import TextVAE, UserError, pipeline, weights
from midsentence.learning import checkpoint, steps, trainer
from several import FAST, small_text

STEPS = 60
WHEN = sorted(np.random.default_rng(0).permutation(STEPS - 1)[:20].tolist())
WHEN = [number + 1 for number in WHEN]  # the first step only warms up
"""Twenty steps, never ten in a row."""
SOME = WHEN if os.environ.get("TORTURE") else WHEN[::5]
"""Of a training each: all twenty by `make torture`."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_text(tmp_path_factory.mktemp("text"))


def run(corpus, out, *more, resume=False):
    asked = (
        []
        if resume
        else [
            *FAST,
            f"training.max_steps={STEPS}",
            "training.epochs=99",
            "training.patience=0",
            "training.parts=2",
            *more,
        ]
    )
    return pipeline.train(corpus, out, settings=asked, resume=resume)


def assert_sound(out):
    tensors, _ = checkpoint.latest(out / "checkpoints")
    saved = [weights.load_tensors(p / "tensors.safetensors")
             for p in (out / "checkpoints").iterdir()]  # fmt: skip
    for held in (tensors, weights.load_tensors(out / "model.safetensors"), *saved):
        assert all(bool(t.isfinite().all()) for t in held.values() if t.is_floating_point())
    TextVAE.from_pretrained(out)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_bad_steps_are_skipped_and_counted(corpus, tmp_path, monkeypatch, where, value):
    inner = steps.Steps.step

    def step(self, number, *rest, **more):
        before = {n: p.detach().clone() for n, p in self.vae.named_parameters()}
        bad = number in WHEN
        hook = None
        if bad and where == "loss":
            hook = self.objective.register_forward_hook(lambda m, a, found: found * value)
        elif bad:
            hook = self.vae.head.bias.register_hook(lambda slope: slope * value)
        inner(self, number, *rest, **more)
        if hook:
            hook.remove()
        after = dict(self.vae.named_parameters())
        same = all(torch.equal(before[n], after[n]) for n in before)
        assert same == bad or number == 0

    monkeypatch.setattr(steps.Steps, "step", step)
    # Batch norm keeps statistics of its own, and 'rate' a multiplier: neither is a parameter.
    run(corpus, tmp_path / "run", "posterior.gamma=0.5", "objective.kind=rate")
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    skipped = [r["skipped"] for r in lines if r["kind"] == "train"]
    assert skipped == [sum(s < done for s in WHEN) for done in (25, 50)]
    assert checkpoint.latest(tmp_path / "run" / "checkpoints")[1]["position"]["skipped"] == 20
    assert_sound(tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "name"), [(n, ("head.table", "encoder.embedding.weight")[n % 2]) for n in SOME]
)
def test_a_broken_weight_ends_training_before_anything_is_saved(
    corpus, tmp_path, monkeypatch, number, name
):
    inner = trainer.Trainer._step

    def step(self, *rest):
        if self.at.step == number:
            with torch.no_grad():
                # The rarest word: it may go unseen.
                self.vae.get_parameter(name)[-1, 0] = math.nan if number % 3 else math.inf
        inner(self, *rest)

    with monkeypatch.context() as m:
        m.setattr(trainer.Trainer, "_step", step)
        m.setattr(pipeline, "write_report", lambda run: None)
        with pytest.raises(UserError, match=r"not finite.*--resume"):
            run(corpus, tmp_path / "run")
    assert_sound(tmp_path / "run")
    held = checkpoint.latest(tmp_path / "run" / "checkpoints")[1]["position"]["step"]
    assert number - 8 < held <= number
    with monkeypatch.context() as m:
        m.setattr(pipeline, "write_report", lambda run: None)
        assert run(corpus, tmp_path / "run", resume=True) is not None


def test_training_stops_after_so_many_bad_steps_in_a_row(corpus, tmp_path, monkeypatch):
    seen = []

    def nothing_finite(self, run, beta):
        seen.append(1)
        return run.log_px.mean(0) * math.nan

    monkeypatch.setattr("midsentence.learning.objectives.Elbo.bound", nothing_finite)
    with pytest.raises(UserError, match="10 gradients in a row"):
        run(corpus, tmp_path / "run", "training.parts=1")
    assert len(seen) == steps.MOST_BAD_STEPS
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        held = weights.load_tensors(path / "tensors.safetensors")
        assert all(bool(t.isfinite().all()) for t in held.values() if t.is_floating_point())


@pytest.mark.parametrize("number", SOME)
def test_a_word_that_there_is_not_is_damage(corpus, tmp_path, monkeypatch, number):
    inner = trainer.Trainer._step

    def step(self, *rest):
        store = self.corpus.train
        if self.at.step == number:
            store.tokens = np.array(store.tokens)
            store.tokens[::3] = 60_000
        inner(self, *rest)

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    with pytest.raises(UserError, match="corpus is damaged: there is no word 60000"):
        run(corpus, tmp_path / "run")
    assert_sound(tmp_path / "run")
