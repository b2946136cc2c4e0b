"""Estimators against exact answers."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from midsentence.measuring import likelihood
from midsentence.measuring.doctor import examine
from midsentence.measuring.likelihood import (
    active_units,
    bound,
    corpus_perplexity,
    evaluate,
    importance_weighted,
    log_aggregate,
    mutual_information,
)
from midsentence.measuring.survey import Survey, groups, measuring, survey
from midsentence.vae import VAE
from tiny import Lines, language_model, lines, tiny

D, X = 2, 3


class LinearGaussian(VAE):
    """p(z) = N(0, I), p(x|z) = N(W z, s^2 I), so p(x) is known. "Sentence" i is the point x_i.

    q(z|x) is the exact posterior with its standard deviation stretched, so the bound is loose.
    """

    labels = None

    def __init__(self, stretch, points=12, w=None):
        nn.Module.__init__(self)
        torch.manual_seed(5)
        drawn = torch.randn(X, D, dtype=torch.float64)
        self.w = nn.Parameter(drawn if w is None else w.double())
        self.s = 0.6
        self.points = torch.randn(points, X, dtype=torch.float64) * 1.5
        self.spread = torch.linalg.inv(
            torch.eye(D, dtype=torch.float64) + self.w.T @ self.w / self.s**2
        ).detach()
        self.stretch = stretch

    def exact(self):
        covariance = self.w @ self.w.T + self.s**2 * torch.eye(X, dtype=torch.float64)
        zero = torch.zeros(X, dtype=torch.float64)
        return MultivariateNormal(zero, covariance).log_prob(self.points).detach()

    def encoder(self, held):
        return self.points[held.tokens[:, 1] - 3]

    def posterior(self, x):
        mean = x @ self.w @ self.spread / self.s**2
        return MultivariateNormal(mean, self.spread * self.stretch**2)

    def infer(self, held):
        return self.posterior(self.encoder(held))

    def prior(self):
        unit = Normal(torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64))
        return Independent(unit, 1)

    def log_px(self, held, z, words=0):
        return Normal(z @ self.w.T, self.s).log_prob(self.encoder(held)).sum(-1)

    def lines(self):
        return Lines([[3 + i] for i in range(len(self.points))])


def test_exact_posterior_gives_the_exact_likelihood_with_one_sample():
    model = LinearGaussian(stretch=1.0)
    log_p, error = importance_weighted(model, model.lines(), 1)
    assert log_p == pytest.approx(model.exact().numpy(), abs=1e-9)
    assert np.isnan(error).all()  # one sample cannot know that it is exact
    _, error = importance_weighted(model, model.lines(), 2)
    assert error == pytest.approx(0, abs=1e-6)


def test_the_importance_weighted_bound_rises_with_k_to_the_exact_value():
    model = LinearGaussian(stretch=1.6)
    exact = model.exact().mean().item()
    means = [
        np.mean([importance_weighted(model, model.lines(), k, seed=s)[0].mean() for s in range(60)])
        for k in (1, 4, 16, 256)
    ]
    assert means[0] < means[1] < means[2] < means[3]
    assert means[0] < exact - 0.2
    assert means[3] == pytest.approx(exact, abs=0.01)


def test_standard_error_is_the_scatter_over_seeds():
    model = LinearGaussian(stretch=1.4)
    runs = [importance_weighted(model, model.lines(), 200, seed=s) for s in range(200)]
    scatter = np.std([log_p for log_p, _ in runs], axis=0)
    stated = np.mean([error for _, error in runs], axis=0)
    assert stated == pytest.approx(scatter, rel=0.25)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_no_memory_setting_changes_the_figure(decoder):
    vae, held = tiny(decoder=decoder), lines()
    whole, _ = importance_weighted(vae, held, 7, positions=10**9)
    for positions in (1, 50, 333):
        parts, _ = importance_weighted(vae, held, 7, positions=positions)
        assert parts == pytest.approx(whole, abs=1e-10)


@pytest.mark.parametrize("together", [1024, 4])
def test_exactly_k_samples_are_used(monkeypatch, together):
    monkeypatch.setattr(likelihood, "TOGETHER", together)
    vae, held = tiny(), lines(5)
    for k in (2, 3, 10):
        log_p, error = importance_weighted(vae, held, k, seed=2, positions=20)
        seen = []
        with measuring(vae, 2):
            for number, (rows, group) in enumerate(groups(vae, held)):
                torch.manual_seed(2 * 1_000_003 + number)
                drawn = [min(together, k - begun) for begun in range(0, k, together)]
                seen.append((rows, torch.cat([vae.run(group, some).log_w for some in drawn])))
        for rows, log_w in seen:
            assert len(log_w) == k
            assert log_p[rows] == pytest.approx(log_w.exp().mean(0).log().numpy(), abs=1e-10)
            scatter = log_w.exp().std(0, correction=0) / log_w.exp().mean(0) / math.sqrt(k)
            assert error[rows] == pytest.approx(scatter.numpy(), abs=1e-7)


def test_a_language_model_is_scored_exactly():
    vae, held = language_model(), lines(6)
    log_p, error = importance_weighted(vae, held, 1)
    for i in range(len(held)):
        one = Lines([held[i]])
        with torch.no_grad():
            ((_, group),) = groups(vae, one)
            expected = vae.log_px(group, torch.zeros(1, 1, 0, dtype=torch.float64))
        assert log_p[i] == pytest.approx(expected.item(), abs=1e-10)
    assert (error == 0).all()
    assert evaluate(vae, held, held.sizes, 500)["samples"] == 1


class Known(VAE):
    """A posterior whose summary is its mean: N(h, s^2 I)."""

    labels = None

    def __init__(self, s):
        nn.Module.__init__(self)
        self.s = s
        self.nothing = nn.Parameter(torch.zeros(1))  # which device it is on

    def posterior(self, h):
        return Independent(Normal(h, self.s), 1)


def found_of(means, s, seed=0):
    torch.manual_seed(seed)
    q = Independent(Normal(means, s), 1)
    z = q.rsample()
    nothing = torch.zeros(len(means))
    return Survey(
        means,
        means,
        z,
        q.log_prob(z),
        nothing,
        nothing,
        torch.zeros_like(means),
        torch.zeros(len(means), dtype=torch.long),
    )


def test_mutual_information_of_far_apart_posteriors_is_the_cap():
    means = torch.arange(16.0)[:, None] * 100
    assert mutual_information(Known(0.1), found_of(means, 0.1)) == pytest.approx(math.log(16))


def test_mutual_information_of_equal_posteriors_is_zero():
    assert mutual_information(Known(1.0), found_of(torch.zeros(50, 3), 1.0)) == pytest.approx(
        0, abs=1e-5
    )


def test_mutual_information_of_a_few_is_of_the_whole_file():
    """Sorted by what tells its sentences apart, its beginning is all alike."""
    means = torch.tensor([0.0, 100.0]).repeat_interleave(200)[:, None]
    found = mutual_information(Known(1.0), found_of(means, 1.0), most=100)
    assert found == pytest.approx(math.log(2), abs=1e-4)


def test_mutual_information_of_two_clusters_is_ln_two():
    means = torch.tensor([0.0, 100.0]).repeat(200)[:, None]
    assert mutual_information(Known(1.0), found_of(means, 1.0)) == pytest.approx(
        math.log(2), abs=1e-4
    )


def test_mutual_information_of_a_gaussian_channel():
    """z = m + s eps with m ~ N(0, 1): I = ln(1 + 1 / s^2) / 2, up to N and one sample each."""
    torch.manual_seed(3)
    means = torch.randn(4000, 1)
    found = mutual_information(Known(0.5), found_of(means, 0.5))
    assert found == pytest.approx(0.5 * math.log(5), abs=0.04)


def test_the_aggregate_posterior_is_the_mean_of_the_posteriors(monkeypatch):
    """One of them next to a point, of which a square would keep no digit."""
    monkeypatch.setattr(likelihood, "PAIRS", 60)
    vae, held = tiny(), lines(20)
    with torch.no_grad():
        vae.posterior.project.bias[3:] += torch.tensor([0.5, -1.0, -3.0])
    found = survey(vae, held)
    plain = vae.posterior(found.summary)
    for scale in (1.0, 1e-9):
        scales = plain.stddev * torch.linspace(0.2, 1, 20)[:, None]
        scales[3] *= scale
        q = Independent(Normal(plain.mean, scales), 1)
        monkeypatch.setattr(vae.posterior, "forward", lambda h, q=q: q)
        z = q.rsample()
        right = q.log_prob(z[:, None]).logsumexp(1) - math.log(20)
        ours = log_aggregate(vae, found, z, found.label)
        assert torch.allclose(ours, right, atol=1e-5)


def test_active_units_counts_the_variance_of_the_means():
    means = torch.stack(
        [torch.zeros(100), torch.tensor([-0.11, 0.11] * 50), torch.tensor([-0.09, 0.09] * 50)], 1
    )
    assert active_units(means) == 1  # variances 0, 0.0121, 0.0081
    assert active_units(means, 0.005) == 2


def test_units_of_the_sphere_are_active_by_its_own_scale():
    vae = tiny(latent=128, posterior={"kind": "vmf", "kappa": 200.0}, prior={"kind": "sphere"})
    held = lines(60)
    found = survey(vae, held)
    assert found.mean.var(0, correction=0).max() < 0.01  # |mean| < 1: D variances make less than 1
    expected = active_units(found.mean * 128**0.5)
    assert expected > 10
    assert bound(vae, held)["active_units"] == expected
    assert evaluate(vae, held, held.sizes, 1)["active_units"] == expected
    assert examine(vae, held).active == expected


def test_survey_keeps_the_sentences_order():
    vae, held = tiny(), lines(30)
    whole = survey(vae, held)
    for i in (0, 7, 29):
        assert torch.allclose(whole.mean[i], survey(vae, Lines([held[i]])).mean[0], atol=1e-10)


def test_summaries_are_kept_only_where_they_are_asked_for():
    vae, held = tiny(), lines(20)
    found, less = survey(vae, held, 3), survey(vae, held, 3, summaries=False)
    assert less.summary.shape == (20, 0)
    for name in ("mean", "z", "log_qz", "log_pz", "log_px", "kl"):
        assert torch.equal(getattr(found, name), getattr(less, name)), name


def test_of_one_sample_the_error_of_the_estimator_is_unknown():
    vae, held = tiny(), lines(20)
    assert math.isnan(evaluate(vae, held, held.sizes, 1)["estimator_stderr"])
    assert math.isfinite(evaluate(vae, held, held.sizes, 1)["nll_stderr"])
    assert evaluate(vae, held, held.sizes, 2)["estimator_stderr"] > 0
    vae = language_model()
    assert evaluate(vae, held, held.sizes, 1)["estimator_stderr"] == 0


def test_measuring_in_training_leaves_batch_normalisation_alone():
    vae, held = tiny(posterior={"gamma": 0.7}), lines(30)
    expected = bound(vae, held)
    before = [b.clone() for b in vae.buffers()]
    assert bound(vae.train(), held) == expected
    assert vae.training
    assert all(map(torch.equal, before, vae.buffers()))


def test_evaluate_divides_sums_by_sums():
    vae, held = tiny(), lines(30)
    table = evaluate(vae, held, held.sizes, 5)
    log_p, _ = importance_weighted(vae, held, 5)
    tokens = sum(len(held[i]) + 1 for i in range(30))
    assert table["tokens"] == tokens
    assert table["nll"] == pytest.approx(-log_p.mean())
    assert table["ppl"] == pytest.approx(math.exp(-log_p.sum() / tokens))
    assert table["bits_per_byte"] == pytest.approx(-log_p.sum() / math.log(2) / held.sizes.sum())
    assert table["elbo"] == pytest.approx(-(table["reconstruction"] + table["kl"]))
    assert table["marginal_kl"] == pytest.approx(table["kl"] - table["mi"])
    assert table["mi_cap"] == pytest.approx(math.log(30))
    assert table["nll"] < -table["elbo"] + 0.5
    wanted = "sentences tokens bytes samples nll nll_stderr elbo reconstruction kl ppl ppl_stderr "
    wanted += "bits_per_byte mi mi_cap active_units latent marginal_kl"
    assert set(wanted.split()) <= set(table)


def test_a_perplexity_s_error_is_that_of_a_ratio():
    chance = np.random.default_rng(0)
    tokens = chance.integers(2, 60, 4000)
    nll = 4.6 * tokens + chance.normal(0, 1.5, 4000) * tokens**0.5
    found, error = corpus_perplexity(nll, tokens)
    assert found == pytest.approx(math.exp(nll.sum() / tokens.sum()))
    again = [chance.integers(0, 4000, 4000) for _ in range(400)]
    seen = [math.exp(nll[rows].sum() / tokens[rows].sum()) for rows in again]
    assert error == pytest.approx(np.std(seen), rel=0.15)
    # What the lengths alone do to the NLL is none of it.
    assert error < 0.2 * found * nll.std() / 4000**0.5 * 4000 / tokens.sum()
    # Of sentences of one length it is that of the mean.
    even, error = corpus_perplexity(nll, np.full(4000, 9))
    assert error == pytest.approx(even * nll.std(ddof=1) / 4000**0.5 / 9)
    assert math.isnan(corpus_perplexity(nll[:1], tokens[:1])[1])


def test_measuring_leaves_the_random_state_and_the_mode_alone():
    vae = tiny().train()
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    survey(vae, lines(4))
    importance_weighted(vae, lines(4), 3)
    assert torch.rand(1) == expected
    assert vae.training
