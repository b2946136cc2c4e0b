"""Objectives, bounded posteriors and refinement against what their papers say, exactly."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from midsentence import TextVAE, config
from midsentence.errors import UserError
from midsentence.fitted import FittedPrior
from midsentence.learning.kinds import build, settings_of
from midsentence.learning.objectives import Elbo, Iwae, Mmd, Rate, mmd
from midsentence.measuring.likelihood import importance_weighted
from midsentence.measuring.survey import posterior_means, survey
from midsentence.parts.posteriors import FixedGamma
from midsentence.text.tokenizer import Tokenizer
from midsentence.vae import Pass
from tiny import TEXT, batch, lines, tiny


def slopes(vae, objective, samples, seed):
    """Gradients by parameter of the mean objective, and its value."""
    torch.manual_seed(seed)
    vae.zero_grad()
    value = objective(vae.run(batch(), samples)).mean()
    value.backward()
    return value.item(), {
        n: p.grad.clone() for n, p in vae.named_parameters() if p.grad is not None
    }


def plain_iwae(run, beta=1.0):
    log_w = run.log_px + beta * (run.log_pz - run.log_qz)
    return log_w.logsumexp(0) - math.log(len(run.z))


def test_iwae_is_the_log_of_the_mean_weight_and_its_decoder_gradient_is_the_plain_one():
    vae = tiny()
    value, found = slopes(vae, Iwae(), 6, seed=2)
    expected, plain = slopes(vae, plain_iwae, 6, seed=2)
    assert value == pytest.approx(expected, abs=1e-10)
    writing = [n for n in plain if not n.startswith(("encoder.", "posterior."))]
    assert len(writing) > 4
    for name in writing:
        assert torch.allclose(found[name], plain[name], atol=1e-10), name


@pytest.mark.parametrize(
    ("posterior", "beta"),
    [("gaussian", 1.0), ("full", 1.0), ("radial", 1.0), ("realnvp", 1.0),
     ("gaussian", 0.0), ("gaussian", 0.3), ("gaussian", 2.0), ("realnvp", 0.3)],
)  # fmt: skip
def test_the_doubly_reparameterised_gradient_has_the_plain_one_s_mean(posterior, beta):
    vae = tiny(posterior={"kind": posterior})
    name = "posterior.project.bias"
    runs = {
        kind: torch.stack(
            [
                slopes(vae, partial(kind, beta=beta), 8, seed)[1][name].flatten()
                for seed in range(80)
            ]
        )
        for kind in (Iwae(), plain_iwae)
    }
    ours, plain = runs.values()
    error = ((ours.var(0) + plain.var(0)) / len(ours)).sqrt()
    assert ((ours.mean(0) - plain.mean(0)).abs() < 5 * error).all()


def test_mmd_is_the_sum_over_pairs():
    torch.manual_seed(0)
    a, b = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64) + 1

    def kernel(x, y):
        apart = ((x - y) ** 2).sum()
        return sum(s * 4 / (s * 4 + apart) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = [kernel(x[i], x[j]) for x in (a, b) for i, j in pairs if i != j]
    across = [kernel(a[i], b[j]) for i, j in pairs]
    expected = sum(within) / 20 - 2 * sum(across) / 25
    assert mmd(a[None], b, apart=4.0).item() == pytest.approx(expected.item(), abs=1e-12)


def test_two_latents_of_one_sentence_are_no_pair():
    """Sentences are independent, their latents together N(0, I), several of each alike."""
    torch.manual_seed(0)
    found = []
    for _ in range(400):
        means = 0.75**0.5 * torch.randn(1, 30, 3)
        z = means + 0.5 * torch.randn(4, 30, 3)
        found.append(mmd(z, torch.randn(120, 3), apart=6.0))
    same = torch.stack(found)
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(400)


def test_the_kernel_is_as_wide_as_the_prior():
    """On the sphere two draws are 2 apart in the mean square, and that is what the kernel has."""
    vae = tiny(posterior={"kind": "vmf"}, prior={"kind": "sphere"}, objective={"kind": "mmd"})
    run = vae.run(batch(), 2)
    torch.manual_seed(1)
    found = Mmd(alpha=1.0, weight=3.0)(run)
    torch.manual_seed(1)
    apart = mmd(run.z, run.p.sample((8,)), apart=2.0)
    assert torch.allclose(found, run.log_px.mean(0) - 3 * apart)
    far = torch.stack([run.p.sample((2,)).diff(dim=0).square().sum() for _ in range(4000)])
    assert far.mean().item() == pytest.approx(2, rel=0.05)


def test_mmd_of_one_law_is_zero_on_average_and_of_two_is_not():
    def gap(shift):
        return mmd(torch.randn(1, 40, 3) + shift, torch.randn(40, 3), apart=6.0)

    torch.manual_seed(0)
    same = torch.stack([gap(0) for _ in range(300)])
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(300)
    assert gap(1) > same.max()


def test_info_vae_is_the_bound_less_alpha_of_its_kl_and_wae_has_none():
    vae = tiny()
    run = vae.run(batch(), 2)
    torch.manual_seed(1)
    info = Mmd(alpha=0.25, weight=3.0)(run, 0.5)
    torch.manual_seed(1)
    apart = mmd(run.z, run.p.sample((8,)), apart=2.0 * run.z.shape[-1])
    expected = run.log_px.mean(0) - 0.5 * 0.75 * run.kl.sum(1) - 2.25 * apart
    assert torch.allclose(info, expected)
    run.__dict__["kl"] = run.kl * 1000
    torch.manual_seed(1)
    assert torch.allclose(Mmd(alpha=1.0, weight=3.0)(run), run.log_px.mean(0) - 3 * apart)
    with pytest.raises(UserError, match="alpha"):
        Mmd(alpha=2.0)


@pytest.mark.parametrize("kind", ["mog", "vamp"])
def test_a_prior_that_could_not_learn_without_a_kl_is_refused(kind):
    tiny(prior={"kind": kind}, objective={"kind": "mmd", "alpha": 0.5})
    with pytest.raises(UserError, match="alpha"):
        tiny(prior={"kind": kind}, objective={"kind": "mmd", "alpha": 1.0})


def with_kl(kl):
    run = tiny().run(batch((2, 3)), 1)
    run.__dict__["kl"] = torch.full((2, 1), kl, dtype=torch.float64)
    return run


def mean_kl(run):
    return run.kl.sum(1).mean().detach()


def test_the_multiplier_moves_by_the_relative_error_and_stays_within_its_bounds():
    rate = Rate(target=8.0, speed=0.1)
    run = with_kl(6.0)
    assert torch.allclose(rate(run), run.log_px[0] - 6.0)  # the multiplier begins at 1
    rate.adapt(mean_kl(run), 1.0)
    assert rate.log_m.item() == pytest.approx(0.1 * (6 / 8 - 1))
    assert torch.allclose(rate(run), run.log_px[0] - 6 * math.exp(-0.025))
    rate.adapt(mean_kl(run), 0.5)
    assert rate.log_m.item() == pytest.approx(0.1 * 1.5 * (6 / 8 - 1))
    much = mean_kl(with_kl(20.0))
    for _ in range(400):
        rate.adapt(much, 1.0)
    assert rate.log_m.item() == 0  # at least 8 nats: more is let be
    exactly = Rate(target=8.0, speed=0.1, exactly=True)
    exactly.adapt(mean_kl(with_kl(12.0)), 1.0)
    assert exactly.log_m.item() == pytest.approx(0.05)
    assert float(exactly.weight(0.5)) == pytest.approx(0.5 * math.exp(0.05))


def test_a_held_rate_is_reached():
    """max over k of 3 ln k - m k: without a multiplier the KL k goes to 3, held at 8 to 8."""
    rate = Rate(target=8.0, speed=0.05, exactly=True)
    log_k = torch.zeros((), requires_grad=True)
    run = tiny().run(batch((2, 3)), 1)
    optimizer = torch.optim.SGD([log_k], lr=0.02)
    for _ in range(3000):
        run.log_px = (3 * log_k).expand(1, 2)
        run.__dict__["kl"] = log_k.exp().expand(2, 1)
        optimizer.zero_grad()
        (-rate(run).mean()).backward()
        optimizer.step()
        rate.adapt(mean_kl(run), 1.0)
    assert log_k.exp().item() == pytest.approx(8, rel=0.02)
    assert float(rate.weight(1.0)) == pytest.approx(3 / 8, rel=0.02)


def test_a_rate_is_held_over_sentences_and_not_over_batches():
    """Long sentences, few in a batch, have the larger KL: their mean over all is what is held."""
    rate, log_k = Rate(target=8.0, speed=0.02, exactly=True), torch.zeros((), requires_grad=True)
    run = tiny().run(batch((2, 3)), 1)
    optimizer = torch.optim.SGD([log_k], lr=0.02)
    means = []
    for step in range(6000):
        count, by = ((30, 0.5), (10, 1.5))[step % 2]  # three of four sentences are short
        run.log_px = (3 * log_k).expand(1, 2)
        run.__dict__["kl"] = by * log_k.exp().expand(2, 1)
        optimizer.zero_grad()
        (-rate(run).mean() * count / 20).backward()
        optimizer.step()
        rate.adapt(mean_kl(run), count / 20)
        means.append((0.75 * 0.5 + 0.25 * 1.5) * log_k.exp().item())
    assert sum(means[-1000:]) / 1000 == pytest.approx(8, rel=0.03)


@pytest.mark.parametrize("tied", [False, True])
def test_fraternal_dropout_is_the_mean_square_between_the_logits(tied):
    vae = tiny(writing={"dropout": 0.5}, head={"tied": tied}, objective={"fraternal": 0.3})
    a, b = torch.randn(2, 7, 6, dtype=torch.float64)
    words = (vae.head.logits(a) - vae.head.logits(b))[:, 2:]
    assert torch.allclose(vae.head.apart(a, b), words.square().mean(1))
    run = vae.train().run(batch(), 2)
    assert (run.apart > 0).all()
    difference = Elbo(free_bits=0)(run) - Elbo(free_bits=0, fraternal=0.3)(run)
    assert torch.allclose(difference, 0.3 * run.apart.mean(0))
    assert vae.eval().run(batch()).apart is None


@pytest.mark.parametrize("delta", [0.5, 5.0, 40.0])
def test_the_committed_rate_is_never_undercut_and_can_be_reached(delta):
    vae = tiny(latent=4, posterior={"delta": delta})
    h = torch.randn(500, 6, dtype=torch.float64) * 5
    q, p = vae.posterior(h), vae.prior()
    assert (kl_divergence(q, p) >= delta - 1e-9).all()
    with torch.no_grad():
        vae.posterior.project.weight.zero_()
        vae.posterior.project.bias.copy_(torch.tensor([0.0] * 4 + [40.0] * 4))
    assert kl_divergence(vae.posterior(h), p)[0].item() == pytest.approx(delta, rel=1e-6)
    with pytest.raises(UserError, match="delta"):
        tiny(posterior={"delta": -1.0})


@pytest.mark.parametrize("posterior", ["gaussian", "full", "planar"])
def test_refinement_raises_the_bound_and_changes_inference_everywhere(posterior):
    plain = tiny(posterior={"kind": posterior})
    refined = tiny(posterior={"kind": posterior}, refine={"steps": 8, "rate": 0.05})
    held = lines(12)
    bounds = [
        sum((s.log_px - s.kl.sum(1)).mean().item() for s in (survey(v, held, k) for k in range(20)))
        for v in (plain, refined)
    ]
    assert bounds[1] > bounds[0] + 1
    assert not torch.allclose(plain.infer(batch()).mean, refined.infer(batch()).mean)
    log_p, error = importance_weighted(refined, held, 400)
    other, more = importance_weighted(plain, held, 400)
    assert abs(log_p - other).mean() < 5 * (error + more).mean() + 0.02  # the same p(x), that is


def test_the_encoder_s_gradient_passes_straight_through_the_refinement():
    vae = tiny(refine={"steps": 2, "rate": 0.1})
    torch.manual_seed(4)
    vae.read(batch()).sum().backward()
    found = {n: p.grad.clone() for n, p in vae.encoder.named_parameters()}
    vae.zero_grad()
    vae.refinement = None
    vae.read(batch()).sum().backward()
    for name, parameter in vae.encoder.named_parameters():
        assert torch.allclose(found[name], parameter.grad), name
    assert all(p.grad is None for n, p in vae.named_parameters() if not n.startswith("encoder."))
    with pytest.raises(UserError, match="refine"):
        tiny(refine={"steps": 3, "rate": 0.0})


@pytest.mark.parametrize("kind", ["mog", "diffusion"])
def test_a_prior_that_is_fitted_afterwards_does_not_refine_otherwise(kind):
    """Encoder and posterior stay as they are; a diffusion has no density to climb at all."""
    vae, held = tiny(refine={"steps": 3, "rate": 0.1}), lines(6)
    before = posterior_means(vae, held)
    chosen = settings_of(kind, [])
    part = build(chosen, vae.latent).double()
    words = Tokenizer.train(TEXT, kind="word")
    model = TextVAE(config.resolve({}), words, vae, FittedPrior(chosen, part))
    assert model.vae.prior is part
    assert torch.equal(posterior_means(vae, held), before)
    vae.refinement.prior = None
    assert not torch.equal(posterior_means(vae, held), before)


def test_batch_norm_does_not_see_the_way_of_a_refinement():
    vae = tiny(refine={"steps": 3, "rate": 0.1}, posterior={"gamma": 0.7}).train()
    before = [buffer.clone() for buffer in vae.posterior.buffers()]
    h = vae.read(batch())
    assert all(map(torch.equal, before, vae.posterior.buffers()))
    vae.posterior(h)
    assert not torch.equal(before[0], next(vae.posterior.buffers()))


def test_a_batch_of_one_has_no_distance_and_its_gradient():
    """Several processes wait for all gradients, though a part has but one sentence."""
    for shape in ((1, 3), (5, 0)):
        a, b = (torch.randn(shape, requires_grad=True) for _ in "ab")
        apart = mmd(a[None], b, apart=6.0)
        apart.backward()
        assert apart == 0
        assert not a.grad.any()
        assert not b.grad.any()


def one_dimension(mean, scale, samples):
    """The pass of p(z) = N(0, 1), p(x|z) = N(z, 1) at x = 1, where p(x) = N(1; 0, 2)."""
    q = Independent(Normal(mean, scale, validate_args=False), 1)
    p = Independent(Normal(torch.zeros(1), 1.0), 1)
    z = q.rsample((samples,))
    log_px = Normal(z[..., 0], 1.0).log_prob(torch.tensor(1.0))
    return Pass(torch.zeros(len(mean), 1), q, p, z, q.log_prob(z), p.log_prob(z), log_px)


def test_at_the_exact_posterior_the_doubly_reparameterised_gradient_has_no_noise():
    slope = {}
    for kind in (Iwae(), plain_iwae):
        torch.manual_seed(0)
        mean = torch.full((50, 1), 0.5, requires_grad=True)
        scale = torch.full((50, 1), math.sqrt(0.5), requires_grad=True)
        kind(one_dimension(mean, scale, 5)).sum().backward()
        slope[kind] = torch.cat([mean.grad, scale.grad])
    ours, plain = slope.values()
    assert ours.abs().max() < 1e-5
    assert plain.std() > 0.1


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_at_any_beta_its_gradient_is_that_of_the_integral(beta):
    """d/dmu E[log (w_1 + w_2) / 2], w = p(x|z) (p(z) / q(z))^beta, over a grid of both noises."""
    grid = torch.linspace(-7, 7, 561, dtype=torch.float64)
    weight = Normal(0.0, 1.0).log_prob(grid).exp()
    weight = (weight[:, None] * weight).flatten() / weight.sum() ** 2
    found = []
    for kind in (Iwae(), plain_iwae):
        mean = torch.full((1,), 0.1, dtype=torch.float64, requires_grad=True)
        scale = torch.full((1,), 0.8, dtype=torch.float64, requires_grad=True)
        noise = torch.stack([grid[:, None].expand(561, 561), grid.expand(561, 561)]).flatten(1)
        q = Independent(Normal(mean.expand(561**2, 1), scale.expand(561**2, 1)), 1)
        z = mean + scale * noise[..., None]
        p = Independent(Normal(torch.zeros(1, dtype=torch.float64), 1.0), 1)
        log_px = Normal(z[..., 0], 1.0).log_prob(torch.tensor(1.0))
        run = Pass(torch.zeros(561**2, 1), q, p, z, q.log_prob(z), p.log_prob(z), log_px)
        (kind(run, beta) * weight).sum().backward()
        found.append(torch.cat([mean.grad, scale.grad]))
    assert torch.allclose(found[0], found[1], atol=1e-6), found


def test_the_words_beside_the_importance_weighted_bound_keep_their_own_gradient():
    vae = tiny(objective={"bow": 1.0})

    def only_bow(run, beta=1.0):
        return Iwae(bow=0.5)(run) - Iwae()(run)

    _, found = slopes(vae, only_bow, 6, seed=2)
    _, plain = slopes(vae, lambda run: 0.5 * run.log_bow.mean(0), 6, seed=2)
    assert found["posterior.project.bias"].abs().max() > 0
    for name, slope in plain.items():
        assert torch.allclose(found[name], slope, atol=1e-10), name
    with pytest.raises(UserError, match="fraternal"):
        Iwae(fraternal=0.1)


def tight(scale, samples, count=4000):
    """Mean importance-weighted bound and its standard error."""
    torch.manual_seed(0)
    found = Iwae()(one_dimension(torch.full((count, 1), 0.5), torch.tensor(scale), samples))
    return found.mean().item(), (found.std() / math.sqrt(count)).item()


def test_iwae_is_tighter_with_every_sample_and_never_above_the_truth():
    exact = Normal(0.0, math.sqrt(2)).log_prob(torch.tensor(1.0)).item()
    found = [tight(1.2, k) for k in (1, 4, 16, 256)]
    for (low, error), (high, more) in itertools.pairwise(found):
        assert high - low > 3 * math.hypot(error, more)
    assert abs(found[-1][0] - exact) < 3 * found[-1][1] + 0.005
    assert tight(math.sqrt(0.5), 1)[0] == pytest.approx(exact, abs=1e-5)  # the exact posterior


def test_batches_of_one_length_are_normalised_by_the_corpus():
    """What a batch of long sentences has in common stays, in training as in evaluation."""
    chance = torch.Generator().manual_seed(0)
    normalise = FixedGamma(3, 0.6).double()
    lengths = torch.randn(200, 3, generator=chance, dtype=torch.double) * torch.tensor([0, 1, 3.0])

    def read(kind):
        own = torch.randn(40, 3, generator=chance, dtype=torch.double)
        return 5 + 2 * (own + lengths[kind])

    seen, again = [], []
    for kind in torch.arange(200).repeat(4)[torch.randperm(800, generator=chance)].tolist():
        means = read(kind)
        seen.append(normalise(means).detach())
        again.append(normalise.eval()(means).detach())
        normalise.train()
    late, same = torch.cat(seen[400:]), torch.cat(again[400:])
    assert torch.allclose(late, same, atol=1e-9)
    assert torch.allclose(late.var(0), torch.full((3,), 0.36, dtype=torch.double), rtol=0.12)
    assert late.mean(0).abs().max() < 0.08
    between = torch.stack([each.mean(0) for each in seen[400:]]).var(0)
    share = torch.tensor([0, 0.5, 0.9], dtype=torch.double)
    assert torch.allclose(between, 0.36 * share, atol=0.05)


def test_a_first_batch_is_normalised_by_itself_in_value_and_gradient():
    mean = torch.randn(30, 4, dtype=torch.double, requires_grad=True)
    weight, plain = torch.randn(30, 4, dtype=torch.double), torch.nn.BatchNorm1d(4, eps=1e-12)
    torch.nn.init.constant_(plain.weight, 0.6)
    found = [each.double().train()(mean) for each in (FixedGamma(4, 0.6), plain)]
    slopes = [torch.autograd.grad((each * weight).sum(), mean)[0] for each in found]
    assert torch.allclose(*found)
    assert torch.allclose(*slopes)


@pytest.mark.parametrize("shrunk", [1.0, 1e-3, 1e-5])
def test_batch_normalised_means_leave_the_encoder_no_way_out(shrunk):
    vae = tiny(latent=4, posterior={"gamma": 0.6}).float().train()
    with torch.no_grad():
        vae.posterior.project.weight.mul_(shrunk)
        vae.posterior.project.bias.zero_()
    for _ in range(400):
        q = vae.posterior(torch.randn(200, 6))
    least = 4 * 0.6**2 / 2
    assert kl_divergence(q, vae.prior()).mean() > 0.99 * least
    kl = kl_divergence(vae.eval().posterior(torch.randn(2000, 6)), vae.prior())
    assert kl.mean() > 0.9 * least
