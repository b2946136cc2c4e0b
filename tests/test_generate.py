"""Writing: every way of choosing words against what it should choose, at any batch size."""

import itertools
import math
import os

import pytest
import torch

from midsentence import directions, latent
from midsentence.errors import UserError
from midsentence.generate import Chances, Decoding, draw, generate, prior_sample, top, truncate
from midsentence.parts.decoders import DECODERS
from midsentence.seeds import LABELS, seed_of
from midsentence.text.batches import collate
from midsentence.text.tokenizer import BOS, EOS, PAD, UNK
from tiny import tiny


def latents(count, size=3):
    return torch.randn(count, size, dtype=torch.float64)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "how",
    [
        Decoding(max_length=12),
        Decoding(greedy=True, max_length=12),
        Decoding(beam=3, max_length=8),
        Decoding(top_k=3, top_p=0.8, temperature=0.7, max_length=12),
        Decoding(typical=0.6, max_length=12),
    ],
)
def test_the_same_text_at_any_batch_size(decoder, how):
    vae, z = tiny(decoder=decoder), latents(23)
    whole = generate(vae, z, how, seed=4, batch=64)
    assert len(whole) == 23
    for size in (1, 2, 7):
        assert generate(vae, z, how, seed=4, batch=size) == whole


@pytest.mark.parametrize("decoder", DECODERS)
def test_latents_at_any_batch_size_and_in_any_order(decoder):
    """Sixty of them; five hundred in `make torture`."""
    count = 500 if "TORTURE" in os.environ else 60
    vae, z, how = tiny(decoder=decoder), latents(count), Decoding(max_length=6)
    chance = Chances(how, seed=3).next(count)
    whole = generate(vae, z, how, chance=chance, batch=count)
    for size in (1, 2, 3, 7, 16, 64):
        assert generate(vae, z, how, chance=chance, batch=size) == whole, size
    turned = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    other = generate(vae, z[turned], how, chance=chance[turned], batch=64)
    assert other == [whole[i] for i in turned.tolist()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("how", [Decoding(max_length=6), Decoding(beam=3, max_length=6)])
def test_in_single_precision_too(decoder, how, precision):
    """Rounding may depend on the batch, so equality is as likely as no draw at a word's border."""
    vae, z = tiny(decoder=decoder).float(), latents(60).float()
    vae.head.precision = precision
    chance = Chances(how, seed=3).next(60)
    whole = generate(vae, z, how, chance=chance, batch=60)
    for size in (1, 7, 64):
        assert generate(vae, z, how, chance=chance, batch=size) == whole, size


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_words_of_a_seed_are_drawn_by_other_numbers_than_its_latents(count):
    """What one generator gives is the same wherever it is asked first."""
    vae = tiny(latent=32).float()
    z = torch.cat([prior_sample(vae, count, seed).flatten() for seed in range(40)])
    words = [Chances(Decoding(max_length=32), seed).next(count).flatten() for seed in range(40)]
    labels = [torch.rand(count * 32, generator=torch.Generator().manual_seed(seed_of(seed, LABELS)))
              for seed in range(40)]  # fmt: skip
    ranks = torch.stack([z, torch.cat(words), torch.cat(labels)]).argsort(1).argsort(1).double()
    together = torch.corrcoef(ranks)
    assert (together - torch.eye(3)).abs().max() < 5 / len(z) ** 0.5


def test_seeds_differ_and_repeat():
    vae, z = tiny(), latents(20)
    how = Decoding(max_length=10)
    assert generate(vae, z, how, seed=1) == generate(vae, z, how, seed=1)
    assert generate(vae, z, how, seed=1) != generate(vae, z, how, seed=2)
    assert torch.equal(prior_sample(vae, 5, 3), prior_sample(vae, 5, 3))


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    ("decoder", "vocab", "softmaxes"),
    # Eleven blocks, the last not full.
    [*((decoder, 9, 1) for decoder in DECODERS), ("gru", 1300, 1), ("gru", 1300, 3)],
)
def test_every_word_is_the_likeliest_or_where_its_chance_falls(decoder, vocab, softmaxes, greedy):
    vae, z = tiny(decoder=decoder, vocab=vocab, head={"softmaxes": softmaxes}), latents(6)
    how, chance = Decoding(greedy=greedy, max_length=9), torch.rand(6, 9)
    for row, line in enumerate(generate(vae, z, how, chance=chance)):
        read = torch.tensor([[BOS, *line]])
        logits = vae.head.logits(vae.decoder(read, z[row : row + 1]))[0]
        mass = logits[:9].softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(mass, chance[row, : len(mass), None].double(), right=True)
        expected = (logits.argmax(-1) if greedy else drawn[:, 0]).tolist()
        assert expected[: len(line)] == line
        assert len(line) == 9 or expected[len(line)] == EOS


@pytest.mark.parametrize(("decoder", "softmaxes"), [*((d, 1) for d in DECODERS), ("gru", 3)])
def test_a_wide_beam_finds_the_likeliest_sentence(decoder, softmaxes):
    vae, z = tiny(decoder=decoder, vocab=UNK + 3, head={"softmaxes": softmaxes}), latents(5)
    with torch.no_grad():
        vae.head.bias[EOS - 2] += 1.0  # so that short sentences hold most of the mass
    words = [UNK, UNK + 1, UNK + 2]
    every = [list(s) for n in range(5) for s in itertools.product(words, repeat=n)]
    held = collate(every)
    found = generate(vae, z, Decoding(beam=81, max_length=5))
    for row, line in enumerate(found):
        log_px = vae.log_px(held, z[row].expand(1, len(every), 3))[0]
        best = every[int(log_px.argmax())]
        if len(line) < 5:
            assert line == best
    assert any(len(line) < 5 for line in found)


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("longest", [1, 2, 3])
def test_a_wide_beam_finds_the_likeliest_sentence_of_at_most_so_many_words(decoder, longest):
    vae = tiny(decoder=decoder, vocab=UNK + 3)
    words = [UNK, UNK + 1, UNK + 2]
    every = [list(s) for n in range(longest + 1) for s in itertools.product(words, repeat=n)]
    held, lengths = collate(every), set()
    for seed in range(10):
        torch.manual_seed(seed)
        for parameter in vae.parameters():
            parameter.copy_(1.5 * torch.randn_like(parameter))
        z = 2 * latents(4)
        found = generate(vae, z, Decoding(beam=100, max_length=longest))
        for row, line in enumerate(found):
            log_px = vae.log_px(held, z[row].expand(1, len(every), 3))[0]
            assert line == every[int(log_px.argmax())]
            lengths.add(len(line))
    assert longest in lengths  # the longest that are allowed are among them


@pytest.mark.parametrize("how", [Decoding(), Decoding(greedy=True), Decoding(beam=3)])
def test_nothing_is_written_of_no_latents(how):
    """As a process gets that has no share of a few samples."""
    assert generate(tiny(), latents(0), how) == []


def test_a_beam_is_never_worse_than_greedy():
    vae, z = tiny(), latents(30)

    def log_prob(lines):
        held = collate(lines)
        return vae.log_px(held, z[None])[0]

    beam = generate(vae, z, Decoding(beam=8, max_length=30))
    greedy = generate(vae, z, Decoding(greedy=True, max_length=30))
    both = [i for i in range(30) if len(beam[i]) < 30 and len(greedy[i]) < 30]
    better, plain = log_prob(beam)[both], log_prob(greedy)[both]
    assert (better >= plain - 1e-9).float().mean() > 0.9
    assert better.mean() >= plain.mean() - 1e-9


def test_sampling_follows_the_probabilities():
    p = torch.tensor([0.0, 0.0, 0.5, 0.2, 0.0, 0.3])
    n = 40_000
    drawn = draw(p.expand(n, -1), torch.rand(n))
    counts = torch.bincount(drawn, minlength=6) / n
    assert (counts[p == 0] == 0).all()
    assert ((counts - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-12).all()
    ends = draw(p.expand(2, -1), torch.tensor([0.0, 1 - 2**-24]))
    assert ends.tolist() == [2, 5]


@pytest.mark.parametrize("vocab", [3, 127, 128, 129, 1000, 2048])
def test_drawing_by_blocks_equals_one_walk_over_all_words(vocab):
    torch.manual_seed(vocab)
    weights = torch.randint(0, 4, (500, vocab)).float()  # sums of integers are exact
    weights[:, torch.randint(vocab, (1,))] += 1
    chance = torch.rand(500)
    mass = weights.double().cumsum(1)
    walked = torch.searchsorted(mass, chance.double()[:, None] * mass[:, -1:], right=True)
    assert torch.equal(draw(weights, chance), walked[:, 0])


def test_a_word_without_probability_is_never_drawn():
    torch.manual_seed(0)
    weights = torch.rand(20_000, 700) * 10.0 ** torch.randint(-30, 1, (20_000, 700))
    weights[torch.rand(20_000, 700) < 0.9] = 0
    weights[:, 3] += 1e-20
    drawn = draw(weights, torch.rand(20_000).where(torch.rand(20_000) < 0.9, 1 - 2**-24))
    assert (weights.gather(1, drawn[:, None]) > 0).all()


@pytest.mark.parametrize("vocab", [5, 128, 1000, 1024, 5003])
@pytest.mark.parametrize("k", [1, 5])
def test_top_is_topk(vocab, k):
    torch.manual_seed(vocab)
    values = torch.randn(64, vocab)
    found, expected = top(values, k), values.topk(k)
    assert torch.equal(found[0], expected.values)
    assert torch.equal(found[1], expected.indices)


LOGITS = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        (Decoding(top_k=2), [0, 1]),
        (Decoding(top_p=0.7), [0, 1]),
        (Decoding(top_p=0.76), [0, 1, 2]),
        (Decoding(top_p=0.01), [0]),
        # Entropy 1.21 nats; surprises 0.69, 1.39, 1.90, 2.30: the second word is nearest.
        (Decoding(typical=0.2), [1]),
        (Decoding(typical=0.5), [0, 1]),
        (Decoding(), [0, 1, 2, 3]),
    ],
)
def test_truncation_keeps_what_it_says(how, kept):
    weights = truncate(LOGITS.clone(), how)[0]
    assert weights.nonzero().flatten().tolist() == kept
    expected = LOGITS.exp()[0, kept]
    assert torch.allclose(weights[kept] / weights.sum(), expected / expected.sum())


def test_temperature_sharpens():
    cold = truncate(LOGITS.clone(), Decoding(temperature=0.5))[0]
    expected = LOGITS.exp()[0] ** 2
    assert torch.allclose(cold / cold.sum(), expected / expected.sum())


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"max_length": 0}]
)
def test_meaningless_settings_are_refused(wrong):
    with pytest.raises(UserError):
        Decoding(**wrong)


def test_control_ids_are_never_written():
    vae = tiny()
    written = generate(vae, latents(200), Decoding(max_length=20, temperature=5.0))
    assert not {PAD, BOS, EOS} & {word for line in written for word in line}


def test_paths_end_where_they_should():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    straight, round_ = latent.path("linear", a, b, 3), latent.path("spherical", a, b, 3)
    assert torch.allclose(straight[1], torch.tensor([1.5, 0.5]))
    half = math.sqrt(0.5) * 2  # half-way round, of the mean length
    assert torch.allclose(round_[1], torch.tensor([half, half]))
    for points in (straight, round_):
        assert torch.allclose(points[[0, -1]], torch.stack([a, b]), atol=1e-6)
    assert torch.allclose(latent.path("spherical", a, 2 * a, 3)[1], 1.5 * a)
    with pytest.raises(UserError, match="2 steps"):
        latent.path("linear", a, b, 1)
    with pytest.raises(UserError, match="spherical"):
        latent.path("curved", a, b, 3)


def test_the_way_toward_nothing_is_refused():
    with pytest.raises(UserError, match="at least one direction"):
        directions.toward(torch.zeros(3), [], torch.ones(3))


@pytest.mark.parametrize("k", [1, 3])
def test_of_equally_likely_words_no_more_than_k_are_kept(k):
    kept = truncate(torch.zeros(4, 500), Decoding(top_k=k))
    assert ((kept > 0).sum(1) == k).all()


@pytest.mark.parametrize("how", [{"temperature": 1e-40}, {"temperature": float("inf")},
                                 {"max_length": 10**12}])  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(how):
    with pytest.raises(UserError, match=next(iter(how)).replace("_", "-")):
        Decoding(**how)
