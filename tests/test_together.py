"""K latents of one sentence: what is computed for all of them, beside each alone and all words."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from midsentence.evaluation import evaluations
from midsentence.measuring import likelihood
from midsentence.measuring.likelihood import evaluate, importance_weighted
from midsentence.parts import decoders, together, word_samples
from midsentence.parts.head import Head
from midsentence.parts.injection import WAYS
from midsentence.parts.word_samples import Words, draw_words
from midsentence.vae import VAE
from test_cli import LINES, SMALL, call
from tiny import language_model, lines, tiny

V, H, P, K = 53, 16, 7, 5


def test_words_are_drawn_as_often_as_their_weights_say():
    torch.manual_seed(0)
    mass = torch.rand(40) ** 6
    times, weights = torch.zeros(40), torch.zeros(40)
    for _ in range(4000):
        words, weight = draw_words(mass, 10)
        assert len(set(words.tolist())) == 10
        times[words] += 1
        weights[words] = weight
    drawn = times > 0
    assert drawn[mass > mass.median()].all()
    chance = 1 / weights[drawn]
    error = (chance * (1 - chance) / 4000).sqrt() + 1e-6
    assert ((times[drawn] / 4000 - chance).abs() < 5 * error).all()
    assert (weights[mass.argsort(descending=True)[:3]] == 1).all()  # the heaviest are certain


def test_one_word_that_has_all_the_mass_and_none_are_drawn_from_too():
    for mass in (torch.zeros(20), torch.nn.functional.one_hot(torch.tensor(4), 20).float()):
        words, weights = draw_words(mass, 5)
        assert len(words.unique()) == 5 and weights.isfinite().all()


def test_words_of_many_rows_are_drawn_as_each_row_alone(monkeypatch):
    mass = torch.rand(6, 40) ** 5
    monkeypatch.setattr(torch, "rand", lambda *size, **how: torch.full(size, 0.3))
    words, weights = draw_words(mass, 12)
    for row in range(6):
        alone = draw_words(mass[row], 12)
        assert torch.equal(words[row], alone[0])
        assert torch.allclose(weights[row], alone[1])


INJECTIONS = [["state"], ["input"], ["add"], ["gate"], ["skip"], list(WAYS)]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("inject", INJECTIONS)
def test_an_lstm_reads_the_words_of_many_latents_once(inject, layers, monkeypatch):
    dropped = {"dropout": 0.3, "word_dropout": 0.2, "weight_drop": 0.2}
    decoder = tiny(writing={"inject": inject, "layers": layers, **dropped}).decoder.eval()
    tokens, z = torch.randint(2, 9, (3, 6)), torch.randn(4, 3, 3, dtype=torch.double)
    calls = []
    plainly = decoders.lstm_together
    monkeypatch.setattr(decoders, "lstm_together", lambda *a: calls.append(1) or plainly(*a))
    with torch.no_grad():
        for drawn in (z, z[:, :1].expand(-1, 3, -1)):
            found = decoder.together(tokens, drawn)
            right = decoders.Decoder.together(decoder, tokens, drawn)
            assert torch.allclose(found, right, atol=1e-12)
    assert len(calls) == 2
    # Whatever has a gradient or a dropout is the net's own.
    decoder.together(tokens, z)
    with torch.no_grad():
        decoder.train().together(tokens, z)
    assert len(calls) == 2


def test_other_decoders_read_them_each():
    z = torch.randn(4, 3, 3, dtype=torch.double)
    for vae in (tiny(decoder="gru"), tiny(decoder="transformer")):
        tokens, decoder = torch.randint(2, 9, (3, 6)), vae.decoder.eval()
        with torch.no_grad():
            found = decoder.together(tokens, z).view(4, 3, 6, -1)
            for k in range(4):
                assert torch.allclose(found[k], decoder(tokens, z[k]), atol=1e-12)


def make(tied=False, width=H, **settings):
    """A head in float64, and K states for each of P positions, near one another."""
    torch.manual_seed(1)
    head = Head(H, nn.Embedding(V, width), tied=tied, precision="float32", **settings).double()
    with torch.no_grad():
        head.bias.normal_()
        head.table /= head.table.std()
    middle = torch.randn(P, 1, H, dtype=torch.double) / 2
    hidden = middle + torch.randn(P, K, H, dtype=torch.double) / 8
    return head.eval(), hidden, torch.randint(2, V, (P,))


def few(count, chance=torch.Generator().manual_seed(4)):  # noqa: B008 (one stream for all tests)
    return Words(count, chance)


def exact(head, hidden, targets):
    every = targets[:, None].expand(-1, hidden.shape[1]).flatten()
    return head.log_prob(hidden.flatten(0, 1), every).view(hidden.shape[:2])


@pytest.mark.parametrize(
    ("tied", "width", "room"), [(False, H, 1), (True, 10, 2 * K * 9), (False, H, 1 << 20)]
)
def test_each_states_normaliser_is_right_in_its_mean(monkeypatch, tied, width, room):
    """1 / p is linear in the normaliser: its mean over the draws is exact."""
    monkeypatch.setattr(together, "ROOM", room)
    head, hidden, targets = make(tied, width)
    with torch.no_grad():
        right = 1 / exact(head, hidden, targets).exp()
        found = torch.stack(
            [1 / head.log_prob_together(hidden, targets, few(9)).exp() for _ in range(800)]
        )
    assert (found.std(0) > 0).all()
    off = (found.mean(0) - right) / (found.std(0) / len(found) ** 0.5)
    assert off.abs().max() < 4.5
    assert 0.3 < off.square().mean() < 2


def test_one_state_is_its_own_mean_and_nothing_is_left_to_chance(monkeypatch):
    """Words drawn by their own probabilities add up to the exact sum, whichever they are."""
    monkeypatch.setattr(word_samples, "LEAST", 0.0)
    head, hidden, targets = make()
    one = hidden[:, :1]
    with torch.no_grad():
        right = exact(head, one, targets)
        for count in (3, 20):
            found = head.log_prob_together(one, targets, few(count))
            assert torch.allclose(found, right, atol=1e-10)


def test_more_words_are_nearer_and_as_many_as_there_are_exact():
    head, hidden, targets = make()
    with torch.no_grad():
        right = exact(head, hidden, targets)
        off = [
            float(
                (head.log_prob_together(hidden, targets, few(count)) - right).square().mean().sqrt()
            )
            for count in (4, 16, V - 3)
        ]
        assert off[0] > 2 * off[1] > 4 * off[2]
        assert torch.equal(head.log_prob_together(hidden, targets, few(V - 2)), right)


def test_bfloat16_products_are_of_differences_only():
    head, hidden, targets = make()
    head, hidden = head.float(), hidden.float()
    head.precision = "bfloat16"
    with torch.no_grad():
        found = head.log_prob_together(hidden, targets, few(V - 3))
        head.precision = "float32"
        right = exact(head, hidden, targets)
    assert found.dtype == torch.float32
    assert (found - right).abs().max() < 0.02


def test_a_target_that_all_but_takes_all_and_one_that_has_next_to_nothing():
    head, hidden, targets = make()
    with torch.no_grad():
        head.bias[targets[0] - 2] = 60.0
        head.bias[targets[1] - 2] = -500.0
        found = head.log_prob_together(hidden, targets, few(20))
        right = exact(head, hidden, targets)
    assert found.isfinite().all()
    assert torch.allclose(found[:2], right[:2], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_the_likelihood_by_sampled_words_is_that_by_all_but_for_a_little_noise(decoder):
    vae, held = tiny(decoder=decoder), lines(24)
    right, _ = importance_weighted(vae, held, 8)
    for words, most in (len(vae.head.bias) // 2, 0.6), (len(vae.head.bias) - 1, 0.01):
        for positions in (10, 10**6):
            found, error = importance_weighted(vae, held, 8, words=words, positions=positions)
            assert 0 < np.abs(found - right).mean() < most
            assert np.isfinite(error).all()


@pytest.mark.parametrize("words", [0, 4])
def test_the_latents_are_the_same_whatever_words_are_drawn(monkeypatch, words):
    """Also where they are drawn a few at a time, and in a model with labels."""
    monkeypatch.setattr(likelihood, "TOGETHER", 4)
    vae, held = tiny(labels={"shares": {"a": 0.5, "b": 0.3}, "size": 3}), lines(9)
    held.labels = np.arange(9) % 3 - 1
    seen, plainly = [], VAE.log_px

    def watched(self, batch, z, words=None):
        seen.append(z)
        return plainly(self, batch, z, words)

    monkeypatch.setattr(VAE, "log_px", watched)
    found, _ = importance_weighted(vae, held, 10, words=words)
    again, _ = importance_weighted(vae, held, 10, words=words)
    assert np.array_equal(found, again)
    drawn = torch.cat([z.flatten() for z in seen[: len(seen) // 2]])
    seen.clear()
    importance_weighted(vae, held, 10)
    assert torch.equal(drawn, torch.cat([z.flatten() for z in seen]))


def test_the_table_says_how_far_off_they_are():
    vae, held = tiny(), lines(30)
    exactly = evaluate(vae, held, held.sizes, 6)
    table = evaluate(vae, held, held.sizes, 6, words=len(vae.head.bias) // 2)
    assert "words" not in exactly
    assert table["words"] == len(vae.head.bias) // 2
    assert 0 < abs(table["words_off"]) < 5 * table["words_off_stderr"] < 0.5
    assert table["nll"] == pytest.approx(exactly["nll"] + table["words_off"], abs=0.1)
    for key in ("elbo", "kl", "mi", "active_units"):
        assert table[key] == exactly[key]
    alone = lines(1)
    assert math.isnan(evaluate(vae, alone, alone.sizes, 6, words=3)["words_off_stderr"])
    every = evaluate(vae, held, held.sizes, 6, words=len(vae.head.bias))
    assert every == exactly


def test_a_language_model_needs_none():
    vae, held = language_model(), lines(6)
    assert evaluate(vae, held, held.sizes, 5, words=3) == pytest.approx(
        evaluate(vae, held, held.sizes, 5), nan_ok=True
    )


def test_evaluate_keeps_their_table_beside_the_exact_one(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(LINES) + "\n")
    how = f"--max-steps 5 --set corpus.valid_fraction=0.3 {SMALL}"
    done = call(f"train text.txt --out run {how}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    asked = "evaluate run --samples 3"
    own = json.loads(call(f"{asked} --json", cwd=tmp_path).stdout)
    few = json.loads(call(f"{asked} --sampled-words 4 --json", cwd=tmp_path).stdout)
    held = evaluations(tmp_path / "run")
    done = call("train text.txt --out lm --recipe lm --max-steps 2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    told = call("evaluate lm --sampled-words 4", cwd=tmp_path).stderr.decode()
    assert "likelihood is exact" in told and set(evaluations(tmp_path / "lm")) == {"quick", "test"}
    assert held["test"] == pytest.approx(own, nan_ok=True)
    assert held["test, 4 words"] == pytest.approx(few, nan_ok=True)
    assert own["elbo"] == few["elbo"] and own["nll"] != few["nll"]
    assert "Sampled words" not in call(f"{asked}", cwd=tmp_path).stdout.decode()
    assert "Sampled words" in call(f"{asked} --sampled-words 4", cwd=tmp_path).stdout.decode()
