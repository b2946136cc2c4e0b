"""Weight averaging: the mean it says, kept through a stop, and what is saved."""

import os
import signal

import pytest
import torch
from torch import nn

from midsentence import UserError, pipeline, weights
from midsentence.learning import checkpoint
from midsentence.learning.averaging import EVERY, Average
from test_training import corpus, run
from tiny import tiny

assert corpus


def test_the_mean_is_that_of_the_steps_after_the_start():
    model = nn.Linear(2, 1)
    average, kept = Average(model, 0.5), []
    for step in range(1, 6 * EVERY + 1):
        with torch.no_grad():
            model.weight.normal_()
        average.add(model, step, step / (6 * EVERY))
        if step % EVERY == 0 and step >= 3 * EVERY:
            kept.append(model.weight.detach().clone())
    assert int(average.count) == 4
    own = model.weight.detach().clone()
    with average.instead(model):
        torch.testing.assert_close(model.weight.detach(), torch.stack(kept).mean(0))
    assert torch.equal(model.weight.detach(), own)


def test_a_run_that_is_extended_has_its_start_before_it_again():
    model = nn.Linear(2, 1)
    average, own = Average(model, 0.5), model.weight.detach().clone()
    average.add(model, EVERY, 0.9)
    assert int(average.count) == 1
    with torch.no_grad():
        model.weight.add_(1)
    average.add(model, EVERY + 1, 0.4)
    with average.instead(model):
        torch.testing.assert_close(model.weight.detach(), own + 1)


def test_before_its_start_and_when_off_nothing_is_changed():
    model = nn.Linear(2, 1)
    for start in (0.5, None):
        average, own = Average(model, start), model.weight.detach().clone()
        average.add(model, EVERY, 0.4)
        with average.instead(model):
            assert torch.equal(model.weight.detach(), own)
    assert Average(model, None).tensors() == {}


def test_what_is_saved_is_the_mean(corpus, tmp_path):
    run(corpus, tmp_path / "run", "training.max_steps=60", "training.average=0.2",
        "optimizer.lr=0.01", "training.epochs=99")  # fmt: skip
    held = checkpoint.latest(tmp_path / "run" / "checkpoints")[0]
    saved = weights.load_tensors(tmp_path / "run" / "model.safetensors")
    name = "decoder.input.embedding.weight"
    assert int(held["average.count"]) > 2
    torch.testing.assert_close(saved[name], held[f"average.{name}"])
    assert not torch.equal(saved[name], held[f"model.{name}"])


def test_stopping_and_going_on_keeps_the_mean(corpus, tmp_path):
    settings = ("training.max_steps=60", "training.average=0.2", "training.epochs=99")
    run(corpus, tmp_path / "whole", *settings)

    def stop(event, record):
        if event == "train" and record["step"] == 25:
            os.kill(os.getpid(), signal.SIGINT)

    run(corpus, tmp_path / "parts", *settings, listener=stop)
    pipeline.train(corpus, tmp_path / "parts", resume=True)
    whole, parts = (checkpoint.latest(tmp_path / n / "checkpoints")[0] for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


@pytest.mark.parametrize("start", [-0.1, 1.0])
def test_it_begins_within_the_run(corpus, tmp_path, start):
    with pytest.raises(UserError, match=r"training\.average"):
        run(corpus, tmp_path / "run", f"training.average={start}")


def test_batch_normalisation_is_refused_by_name(corpus, tmp_path):
    """Its statistics would stay those of weights that are not saved."""
    with pytest.raises(UserError, match=r"training\.average goes without posterior\.gamma"):
        run(corpus, tmp_path / "run", "training.average=0.2", "posterior.gamma=0.5")
    Average(tiny(posterior={"gamma": 0.5}), None)
