"""A mixture of softmaxes beside what it is by definition, in value, gradient and writing."""

import pytest
import torch
from torch import nn

from midsentence.errors import UserError
from midsentence.generate import Decoding, generate
from midsentence.learning import optimizers
from midsentence.learning.objectives import Elbo
from midsentence.parts.head import Head
from midsentence.parts.mixture import MixtureHead, make_head
from midsentence.parts.word_samples import Words
from midsentence.text.tokenizer import EOS
from test_laws import silent
from tiny import batch, tiny

V, H, M, K = 53, 16, 37, 3
WAYS = [
    Decoding(max_length=9, **how)
    for how in ({"greedy": True}, {"beam": 3}, {}, {"temperature": 0.5, "top_k": 4})
]


def make(tied=False, width=H, **settings):
    settings = {"precision": "float32", **settings}
    head = MixtureHead(H, nn.Embedding(V, width), tied=tied, softmaxes=K, **settings).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return head


def by_definition(head, hidden):
    """(M, V) chances, softmax by softmax."""
    pi, total = head.shares(hidden).softmax(-1), 0
    maps = head.contexts.weight.split(head.table.shape[1])
    for k, (weight, bias) in enumerate(zip(maps, head.contexts.bias.view(K, -1), strict=True)):
        read = torch.tanh(hidden @ weight.t() + bias)
        logits = read @ head.table[2:].t() + head.bias
        total = total + pi[:, k : k + 1] * logits.softmax(-1)
    return nn.functional.pad(total, (2, 0))


@pytest.mark.parametrize(("tied", "width"), [(False, H), (True, H), (True, 10)])
def test_value_gradient_and_logits_are_those_of_the_definition(tied, width):
    head = make(tied, width)
    hidden = torch.randn(M, H, dtype=torch.float64, requires_grad=True)
    targets, weight = torch.randint(2, V, (M,)), torch.rand(M, dtype=torch.float64)
    chances = by_definition(head, hidden)
    exact = chances.gather(1, targets[:, None])[:, 0].log()
    found = head.log_prob(hidden, targets)
    assert torch.allclose(found, exact, atol=1e-12)
    held = [hidden, *head.parameters()]
    ours, theirs = (torch.autograd.grad((x * weight).sum(), held) for x in (found, exact))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    written = head.logits(hidden)
    assert torch.allclose(written.softmax(-1), chances, atol=1e-14)
    assert torch.isneginf(written[:, :2]).all()


def test_it_says_what_no_single_softmax_could():
    """The logarithms of its chances, over many states, have a higher rank than the states."""
    hidden = torch.randn(200, H, dtype=torch.float64)
    ranks = {}
    one = Head(H, nn.Embedding(V, H), precision="float32").double()
    for softmaxes, head in ((1, one), (K, make())):
        log_p = head.logits(hidden)[:, 2:].log_softmax(-1)
        centred = log_p - log_p.mean(1, keepdim=True)
        ranks[softmaxes] = int(torch.linalg.matrix_rank(centred - centred.mean(0), rtol=1e-9))
    assert ranks == {1: H, K: V - 3}  # 51 words, less one by the centring


def test_a_sampled_normaliser_stays_near_and_all_words_but_one_are_nearly_exact():
    head = make(sampled_words=V - 3)
    hidden, targets = torch.randn(M, H, dtype=torch.float64), torch.randint(2, V, (M,))
    exact = head.eval().log_prob(hidden, targets)
    drawn = head.train().log_prob(hidden.requires_grad_(), targets)
    assert not torch.equal(drawn, exact)
    assert (drawn - exact).abs().mean() < 0.02
    assert drawn.requires_grad and (drawn <= 1e-12).all()


def test_many_latents_together_are_each_alone_and_an_estimate_is_right_in_its_mean():
    head = make().eval()
    hidden = torch.randn(7, 1, H, dtype=torch.float64) + 0.1 * torch.randn(7, 5, H).double()
    targets = torch.randint(2, V, (7,))
    with torch.no_grad():
        alone = torch.stack([head.log_prob(hidden[:, k], targets) for k in range(5)], 1)
        every = head.log_prob_together(hidden, targets, Words(V, torch.Generator()))
        assert torch.allclose(every, alone, atol=1e-12)
        chance = torch.Generator().manual_seed(0)
        draws = [head.log_prob_together(hidden, targets, Words(30, chance)) for _ in range(400)]
    drawn = torch.stack(draws)
    assert (drawn.std(0) > 0).any()
    ratio = (-drawn).exp() / (-alone).exp()  # 1 / p of one softmax is linear in what is drawn
    error = ratio.std(0) / 400**0.5
    assert ((ratio.mean(0) - 1).abs() < 5 * error + 3e-3).all()


@pytest.mark.parametrize("how", WAYS)
def test_the_same_text_at_any_batch_size_and_by_small_chunks(monkeypatch, how):
    vae = tiny(vocab=40, head={"softmaxes": K, "tied": True})
    with torch.no_grad():
        vae.head.bias[EOS - 2] -= 2.0
    z = 3 * torch.randn(20, 3, dtype=torch.float64)
    whole = generate(vae, z, how, seed=1)
    assert how.beam or len(set(map(tuple, whole))) > 2
    assert generate(vae, z, how, seed=1, batch=2) == whole
    monkeypatch.setattr("midsentence.parts.mixture.CHUNK", 40 * K * 2)
    assert generate(vae, z, how, seed=1) == whole


def test_the_gradient_reaches_every_parameter():
    vae = tiny(head={"softmaxes": K}, objective={"bow": 0.1})
    vae(batch(), 2, Elbo(free_bits=0, bow=0.1))["objective"].sum().backward()
    assert silent(vae) == []


def test_one_softmax_is_the_plain_head_and_what_does_not_go_with_more_is_refused():
    assert type(make_head(H, nn.Embedding(V, H), softmaxes=1)) is Head
    assert not isinstance(tiny().head, MixtureHead)
    with pytest.raises(UserError, match=r"label_smoothing goes with one softmax"):
        tiny(head={"softmaxes": 2, "label_smoothing": 0.1})
    with pytest.raises(UserError, match=r"fraternal goes with one softmax"):
        tiny(head={"softmaxes": 2}, objective={"fraternal": 0.1})
    with pytest.raises(UserError, match=r"head\.softmaxes"):
        tiny(head={"softmaxes": 0})


def test_rows_that_each_softmax_reaches_are_counted(monkeypatch):
    monkeypatch.setattr(optimizers, "LARGE", 1)
    vae = tiny(vocab=100, head={"softmaxes": K, "sampled_words": 10})
    optimizers.few_rows(vae, words=20)
    assert vae.head.gives_rows  # 3 * 20 + 10
    optimizers.few_rows(vae, words=40)
    assert not vae.head.gives_rows
