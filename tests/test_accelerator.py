"""A training step never waits for an accelerator: tried on the device that has no numbers.

Whatever asks a tensor there for a value, or for how many of its elements are true, is an error; so
is a tensor left on the CPU.
"""

from contextlib import nullcontext

import pytest
import torch

from midsentence.learning.objectives import Elbo, Iwae, Mmd, Rate
from midsentence.parts.posteriors import POSTERIORS
from midsentence.parts.priors import PRIORS
from midsentence.vae import VAE
from tiny import PAIRINGS, batch, tiny

WRITING = {"dropout": 0.3, "word_dropout": 0.2, "embedding_dropout": 0.2}


def step(vae, samples=1, objective=None):
    vae = vae.to("meta").train()
    objective = objective or Elbo()
    result = vae(batch().to(torch.device("meta")), samples, lambda run: objective(run, beta=0.5))
    result["objective"].sum().backward()
    gradients = [p.grad for p in vae.parameters() if p.grad is not None]
    assert gradients and {g.device.type for g in gradients} == {"meta"}
    assert result["objective"].shape == (4,)


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """torch has none on the device that has no numbers."""
    monkeypatch.setattr(VAE, "_products", lambda self: nullcontext())


def test_the_device_without_numbers_has_none():
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((torch.ones(2, device="meta") > 0).all())
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(2, device="meta")[torch.ones(2, dtype=torch.bool, device="meta")]


@pytest.mark.parametrize("encoder, decoder", PAIRINGS)
@pytest.mark.parametrize("samples", [1, 3])
def test_no_pairing_asks(encoder, decoder, samples):
    step(tiny(encoder, decoder, writing=WRITING), samples)


@pytest.mark.parametrize(
    "head",
    [
        {"tied": True},
        {"gradient_words": 4},
        {"sampled_words": 4},
        {"softmaxes": 2},
        {"label_smoothing": 0.1},
    ],
    ids=str,
)
def test_no_head_asks(head):
    step(tiny(head=head, writing={"embedding": 6}))


def test_bf16_products_do_not_ask():
    vae = tiny()
    vae.head.precision = "bfloat16"
    step(vae)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_no_summary_asks(pooling):
    step(tiny(reading={"pooling": pooling, "bidirectional": True}))


@pytest.mark.parametrize("kind", sorted(POSTERIORS.keys() - {"vmf"}))
def test_no_posterior_asks(kind):
    step(tiny(posterior={"kind": kind}))


@pytest.mark.parametrize("kind", sorted(PRIORS.keys() - {"mog", "sphere"}))
def test_no_prior_asks(kind):
    step(tiny(prior={"kind": kind}))


@pytest.mark.parametrize(
    "objective",
    [Elbo(free_bits=0.1, bow=0.5, fraternal=0.1), Iwae(), Mmd(), Rate(target=2.0)],
    ids=lambda each: type(each).__name__,
)
def test_no_objective_asks(objective):
    step(tiny(objective={"bow": 0.5, "fraternal": 0.1}), objective.samples, objective)
