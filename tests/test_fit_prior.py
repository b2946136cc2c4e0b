"""Priors fitted after training: against known entropies, on disk, and in every figure."""

import json
import math
import tomllib
from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from typer.testing import CliRunner

from midsentence import cli, config, fitted, writing
from midsentence.assembly import save
from midsentence.bundle import TextVAE
from midsentence.cli import measuring
from midsentence.errors import UserError
from midsentence.evaluation import evaluations
from midsentence.fitted import FittedPrior
from midsentence.learning import fitting
from midsentence.learning.kinds import KINDS, build, settings_of
from midsentence.measuring.doctor import examine
from midsentence.measuring.likelihood import evaluate, log_aggregate
from midsentence.measuring.survey import survey
from midsentence.parts.diffusion import Denoised, Diffusion
from midsentence.parts.priors import Exemplars, Gaussians, log_densities
from midsentence.plain_json import dumps
from midsentence.prior_fitting import fit_prior
from test_cli import LINES, SMALL, call
from tiny import language_model, lines, tiny

QUICK = {
    "mog": ["components=8"],
    "flow": ["flow=maf", "layers=3"],
    "diffusion": ["width=64", "blocks=2", "steps=20"],
    "aggregate": [],
}


LABELS = {"labels": {"shares": {"good": 0.4, "bad": 0.3}, "size": 4}}


def two_modes():
    """A quarter of the mass far from the rest, neither where N(0, I) expects it."""
    means = torch.tensor([[3.0, 1.0], [-1.0, 6.0]])
    scales = torch.tensor([[0.3, 1.0], [0.5, 0.2]])
    parts = Independent(Normal(means, scales), 1)
    return MixtureSameFamily(Categorical(torch.tensor([0.25, 0.75])), parts)


def known(count, seed):
    torch.manual_seed(seed)
    return two_modes().sample((count,))


@pytest.fixture(scope="module")
def made():
    """A prior of every kind, fitted to draws of `two_modes`."""
    points, held = known(20_000, 1), known(4000, 2)
    budget = {"mog": 300, "flow": 600, "diffusion": 600}
    return {
        kind: fitting.fit(settings_of(kind, QUICK[kind]), points, held, steps=budget[kind])
        for kind in KINDS
    }


@torch.no_grad()
@pytest.mark.parametrize(("kind", "excess"), [("mog", 0.01), ("flow", 0.2)])
def test_held_out_density_approaches_the_entropy(made, kind, excess):
    """E[log p_true - log p_fitted] on fresh draws is a KL: never below 0, here hardly above it."""
    fresh = known(20_000, 3)
    lost = two_modes().log_prob(fresh) - made[kind]().log_prob(fresh)
    error = float(lost.std()) / math.sqrt(len(lost))
    assert -4 * error < lost.mean() < excess
    gaussian = Independent(Normal(fresh.mean(0), fresh.std(0)), 1)
    assert (two_modes().log_prob(fresh) - gaussian.log_prob(fresh)).mean() > 2


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_where_the_points_are(made, kind):
    torch.manual_seed(4)
    count, truth = 10_000, known(10_000, 5)
    drawn = made[kind]().sample((count,))
    assert drawn.shape == (count, 2)
    near = drawn[:, 1] < 4  # the mode of a quarter of the mass
    share = near.double().mean()
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / count) + 0.02)
    # A flow is continuous and draws a thread from mode to mode: its modes are not held to theirs.
    for one, centre, scale in ((near, [3.0, 1.0], [0.3, 1.0]), (~near, [-1.0, 6.0], [0.5, 0.2])):
        if kind != "flow":
            assert torch.allclose(drawn[one].mean(0), torch.tensor(centre), atol=0.1)
            assert torch.allclose(drawn[one].std(0), torch.tensor(scale), rtol=0.25)
    normal = torch.randn(count, 2) * truth.std(0) + truth.mean(0)
    distance = [fitting.energy_distance(x[:2000], truth[:2000]) for x in (drawn, normal)]
    assert distance[0] < 0.02 < 0.1 < distance[1]


def test_a_diffusion_begins_as_the_gaussian_of_its_moments():
    torch.manual_seed(6)
    prior = Diffusion(3, nn.Identity(), width=8, blocks=1, steps=7)
    prior.loc.copy_(torch.tensor([1.0, -2.0, 0.0]))
    prior.scale.copy_(torch.tensor([2.0, 0.1, 1.0]))
    drawn = prior().sample((40_000,))
    assert torch.allclose(drawn.mean(0), prior.loc, atol=0.05)
    assert torch.allclose(drawn.std(0), prior.scale, rtol=0.02)


def test_the_sampler_solves_the_flow_of_a_gaussian():
    """Data N(0, s^2): the best velocity is known, and its flow takes N(0, 1) to N(0, s^2)."""
    s = 0.3

    class Known(Diffusion):
        def velocity(self, x, angle):
            cos, sin = angle.cos(), angle.sin()
            return x * cos * sin * (1 - s * s) / (cos**2 * s * s + sin**2)

    errors = []
    for steps in (10, 20, 40):
        prior = Known(1, nn.Identity(), width=1, blocks=1, steps=steps)
        torch.manual_seed(7)
        noise = torch.randn(100, 1)
        torch.manual_seed(7)
        drawn = prior().sample((100,))
        errors.append(float((drawn - s * noise).abs().max()))
    assert errors[2] < 0.002
    assert errors[1] < errors[0] / 3  # of the second order
    assert errors[2] < errors[1] / 3


def test_gradient_reaches_every_parameter_of_a_diffusion():
    torch.manual_seed(8)
    prior = Diffusion(3, nn.Identity(), width=8, blocks=2)
    nn.init.normal_(prior.leave.weight)
    prior.loss(torch.randn(16, 3)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters())


def test_a_diffusion_says_that_it_has_no_density():
    law = Diffusion(2, nn.Identity(), width=8)()
    assert isinstance(law, Denoised)
    with pytest.raises(NotImplementedError, match="no log p"):
        law.log_prob(torch.zeros(2))


@pytest.mark.parametrize("room", [Gaussians.ROOM, 12])
@pytest.mark.parametrize("narrow", [-7.0, -30.0])
def test_the_density_of_a_mixture_is_that_of_its_parts(monkeypatch, room, narrow):
    """Multiplied out in products of matrices where that has the digits; and so is its gradient."""
    monkeypatch.setattr(Gaussians, "ROOM", room)
    torch.manual_seed(9)
    logits, means, log_scales = torch.randn(5), 3 * torch.randn(5, 3), torch.randn(5, 3)
    log_scales[0] = narrow
    z = torch.randn(4, 2, 3)
    inputs = [x.double() for x in (logits, means, log_scales, z)]
    inputs[3][0] = means[0].double() + math.exp(narrow) * torch.randn(2, 3)
    inputs = [x.requires_grad_() for x in inputs]

    def direct(logits, means, log_scales, z):
        parts = Normal(means, log_scales.exp()).log_prob(z[..., None, :]).sum(-1)
        return (logits.log_softmax(0) + parts).logsumexp(-1)

    def ours(logits, means, log_scales, z):
        return Gaussians(logits, means, log_scales.exp()).log_prob(z)

    expected = direct(*inputs)
    assert torch.allclose(ours(*inputs), expected, atol=1e-9)
    single = ours(*(x.detach().float() for x in inputs))
    assert single.dtype == torch.float32
    exact = direct(*(x.detach().float().double() for x in inputs))
    assert torch.allclose(single.double(), exact, rtol=1e-5)
    slopes = [torch.autograd.grad(law(*inputs).sum(), inputs) for law in (ours, direct)]
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(("wide", "kind"), [(0.5, torch.float32), (0.05, torch.float64)])
def test_single_precision_is_for_densities_that_it_has_the_digits_for(wide, kind):
    torch.manual_seed(11)
    means, scales = 5 + torch.randn(300, 16), wide * (1 + torch.rand(300, 16))
    z = means[:100] + scales[:100] * torch.randn(100, 16)
    found = log_densities(means, scales)(z)
    exact = Normal(means.double(), scales.double()).log_prob(z.double()[:, None]).sum(-1)
    near = exact > exact.amax(1, keepdim=True) - 30
    assert found.dtype == kind
    assert near.sum() > 300 or wide < 0.1
    assert (found - exact)[near].abs().max() < 1e-4


@pytest.mark.parametrize("law", [Gaussians, Exemplars])
def test_a_mixture_draws_each_component_as_often_as_it_should(law):
    torch.manual_seed(10)
    means, scales = torch.tensor([[-5.0, 0.0], [5.0, 1.0]]), torch.tensor([[0.1, 1.0], [0.5, 2.0]])
    drawn = law(torch.tensor([0.2, 0.8]).log(), means, scales).sample((100, 200))
    assert drawn.shape == (100, 200, 2)
    first = drawn[..., 0] < 0
    assert first.double().mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 20_000))
    for one, mean, scale in zip((first, ~first), means, scales, strict=True):
        assert torch.allclose(drawn[one].mean(0), mean, atol=0.1)
        assert torch.allclose(drawn[one].std(0), scale, rtol=0.05)


@pytest.mark.parametrize("labels", [False, True])
def test_an_aggregate_is_the_mean_of_the_posteriors(labels):
    """With labels, of u: where all sentences have one label, that is q(z|y) by another way."""
    vae, train, held = tiny(**LABELS if labels else {}), lines(40, seed=1), lines(9, seed=2)
    if labels:
        train.labels, held.labels = np.ones(40, dtype=int), np.ones(9, dtype=int)
    found, others = survey(vae, train), survey(vae, held)
    vae.prior, figures = fitting.fit_prior(vae, settings_of("aggregate", []), train, held)
    assert figures["improvement"] == pytest.approx(figures["log_pz"] - figures["log_pz_own"])
    p = vae.prior_of(others.label, len(held))
    expected = log_aggregate(vae, found, others.z, others.label)
    assert torch.allclose(p.log_prob(others.z), expected)


def test_a_prior_is_not_fitted_to_the_noise_that_it_is_measured_with(monkeypatch):
    """The same sentences, the same seed: the z that it learns from or is chosen by are others."""
    vae, train, held = tiny(), lines(40, seed=1), lines(30, seed=2)
    seen, fit = [], fitting.fit

    def watched(settings, points, held_out, **more):
        seen.extend([points, held_out])
        return fit(settings, points, held_out, **more)

    monkeypatch.setattr(fitting, "fit", watched)
    fitting.fit_prior(vae, settings_of("mog", ["components=4"]), train, held, steps=3)
    for sentences, points in zip((train, held), seen, strict=True):
        for seed in (0, 1):
            measured = survey(vae, sentences, seed).z.to(points)
            assert torch.cdist(points, measured).min() > 1e-6


def test_a_mixture_that_knows_its_points_by_heart_gains_nothing_on_others():
    """Posteriors that are the prior: whatever noise sentences are measured with, KL is not below 0
    but for its own noise, with the seed that the prior was fitted with too."""
    vae, train, held = tiny(latent=6), lines(60, seed=1), lines(60, seed=2)
    with torch.no_grad():
        for parameter in vae.posterior.parameters():
            parameter.zero_()
    asked = settings_of("mog", ["components=60"])
    vae.prior, _ = fitting.fit_prior(vae, asked, train, lines(60, seed=3), steps=300)
    own, *others = (evaluate(vae, held, held.sizes, 5, seed=seed)["kl"] for seed in range(5))
    spread = np.std(others, ddof=1)
    assert abs(own - np.mean(others)) < 4 * spread


def test_training_sentences_have_no_bound_under_an_aggregate_of_themselves():
    vae, train, held = tiny(), lines(40, seed=1), lines(30, seed=2)
    assert math.isfinite(examine(vae, held, train).train_elbo)
    vae.prior, _ = fitting.fit_prior(vae, settings_of("aggregate", []), train, held)
    found = examine(vae, held, train)
    assert math.isnan(found.train_elbo)
    assert math.isfinite(found.elbo) and math.isfinite(found.train_shuffled_gap)


def test_energy_distance_of_two_points_each_by_hand():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    # means: |a - b| = (3 + 5 + 2 + 4) / 4 = 3.5, |a - a'| = 1, |b - b'| = 2
    assert fitting.energy_distance(a, b) == pytest.approx(7 - 1 - 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_prior(kind):
    points, held = known(500, 1), known(100, 2)
    chosen = settings_of(kind, QUICK[kind])
    first, second, other = (
        fitting.fit(chosen, points, held, seed=s, steps=20).state_dict() for s in (5, 5, 6)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_fitting_keeps_the_best_and_stops_where_nothing_gets_better():
    """Eight sentences, 400 steps: the training points can be learned by heart, others not."""
    points, held = known(8, 1), known(200, 2)
    told = []
    prior = fitting.fit(
        settings_of("mog", ["components=8"]), points, held, steps=400, progress=told.append
    )
    over = fitting.fit(settings_of("mog", ["components=8"]), points, points, steps=400)
    with torch.no_grad():
        best = prior().log_prob(held).mean()
        assert over().log_prob(held).mean() < best - 0.1
    assert sum(told) == 400
    assert max(told) > 1  # what was left of the budget when it ended


def hollow(**parts):
    """A model whose posteriors lie in two clumps far from N(0, I): a prior with a hole."""
    vae = tiny(**parts)
    with torch.no_grad():
        vae.posterior.project.weight[:3] *= 6
        vae.posterior.project.bias[:3] += torch.tensor([4.0, -3.0, 2.0])
        vae.posterior.project.bias[3:] -= 2
    return vae


@pytest.mark.parametrize("chosen", ["mog", "aggregate"])
@pytest.mark.parametrize("labels", [False, True])
def test_the_bound_gains_what_held_out_latents_gain(labels, chosen):
    """With labels the prior is fitted to u, and every label moves and stretches it to its z."""
    vae, train, held = hollow(**LABELS if labels else {}), lines(400, seed=1), lines(300, seed=2)
    if labels:
        train.labels, held.labels = (np.arange(len(part)) % 3 - 1 for part in (train, held))
    before = evaluate(vae, held, held.sizes, 20)
    own = vae.prior
    settings = settings_of(chosen, QUICK[chosen])
    prior, found = fitting.fit_prior(vae, settings, train, held, steps=200)
    assert vae.prior is own
    assert found["improvement"] == pytest.approx(found["log_pz"] - found["log_pz_own"])
    assert found["improvement"] > 5
    assert found["distance"] < found["distance_own"] / 10
    vae.prior = prior
    after = evaluate(vae, held, held.sizes, 20)
    noise = 6 * found["improvement_stderr"]
    assert after["elbo"] - before["elbo"] == pytest.approx(found["improvement"], abs=noise)
    assert after["reconstruction"] == pytest.approx(before["reconstruction"])
    assert after["nll"] < before["nll"] - 2
    assert after["mi"] == pytest.approx(before["mi"])


def test_a_diffusion_stays_without_likelihood_under_labels():
    vae, held = hollow(**LABELS), lines(30)
    held.labels = np.arange(30) % 3 - 1
    mi = evaluate(vae, held, held.sizes, 3)["mi"]
    vae.prior = build(settings_of("diffusion", QUICK["diffusion"]), 3).double()
    table = evaluate(vae, held, held.sizes, 3)
    assert math.isnan(table["nll"])
    assert math.isnan(table["kl"])
    assert math.isnan(table["ppl"])
    assert table["mi"] == pytest.approx(mi)
    assert vae.prior_of(torch.tensor([0, 1]), 2).sample((5,)).shape == (5, 2, 3)


def test_latents_are_drawn_without_decoding():
    vae = tiny()

    def forbidden(*_):
        raise AssertionError("decoded")

    vae.decoder.forward = forbidden
    drawn = fitting.posterior_draws(vae, lines(20), 3, seed=0)
    assert drawn.shape == (3, 20, 3)
    assert not torch.equal(drawn[0], drawn[1])


def test_what_has_no_prior_to_fit_is_refused_by_name(home):
    chosen = settings_of("mog", [])
    with pytest.raises(UserError, match="components = 2,000,000: 1,048,576 at most"):
        fit_prior(home / "run", "mog", ["components=2000000"])
    with pytest.raises(UserError, match="latent = 0"):
        fitting.fit_prior(language_model(), chosen, lines(9), lines(9))
    sphere = tiny(posterior={"kind": "vmf"}, prior={"kind": "sphere"})
    with pytest.raises(UserError, match="'vmf' lies on the unit sphere"):
        fitting.fit_prior(sphere, chosen, lines(9), lines(9))
    full = tiny(posterior={"kind": "full"})
    with pytest.raises(UserError, match=r"needs posterior\.kind = 'gaussian'"):
        fitting.fit_prior(full, settings_of("aggregate", []), lines(9), lines(9))
    with pytest.raises(UserError, match="Did you mean 'components'"):
        settings_of("mog", ["component=3"])
    with pytest.raises(UserError, match=r"no prior 'vamp'.* mog, flow, diffusion, aggregate"):
        settings_of("vamp", [])
    with pytest.raises(UserError, match="fit-prior RUN --kind diffusion"):
        config.compose(None, None, ["prior.kind=diffusion"])


def test_json_has_null_for_what_is_not_a_number():
    held = {"a": math.nan, "b": [1.5, math.inf], "c": {"d": "nan"}}
    assert json.loads(dumps(held)) == {"a": None, "b": [1.5, None], "c": {"d": "nan"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, text.txt, and a run made of it."""
    folder = tmp_path_factory.mktemp("fitting")
    (folder / "text.txt").write_text("\n".join(LINES) + "\n")
    more = "--max-steps 30 --set corpus.valid_fraction=0.3"
    done = call(f"train text.txt --out run {more} {SMALL}", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def fit(home, kind, more=""):
    settings = " ".join(f"--set {s}" for s in QUICK[kind])
    done = call(f"fit-prior run --kind {kind} {settings} --steps 30 --force {more}", cwd=home)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("kind", QUICK)
def test_saved_and_opened_it_is_the_same(home, tmp_path, kind):
    found = json.loads(fit(home, kind, "--json"))
    assert found["kind"] == kind
    assert found["sentences"] > found["held_out"] > 0
    held = home / "run" / "prior"
    assert {f.name for f in held.iterdir()} == {
        "about.toml",
        "tensors.safetensors",
        "manifest.json",
    }
    assert tomllib.loads((held / "about.toml").read_text())["prior"]["kind"] == kind
    model = TextVAE.from_pretrained(home / "run")
    assert model.fitted.kind == kind
    again = build(model.fitted.settings, 4)
    again.load_state_dict(model.vae.prior.state_dict())
    for elsewhere in (tmp_path / "copy", tmp_path / "copy"):  # over itself, too
        model.save_pretrained(elsewhere)
    copied = TextVAE.from_pretrained(tmp_path / "copy")
    for prior in (again, copied.vae.prior):
        torch.manual_seed(0)
        expected = model.vae.prior().sample((5,))
        torch.manual_seed(0)
        assert torch.equal(prior().sample((5,)), expected)
    own = [TextVAE.from_pretrained(p, prior="own") for p in (home / "run", tmp_path / "copy")]
    assert own[0].sample(4) == own[1].sample(4)
    assert copied.sample(4) == model.sample(4)
    if kind != "diffusion":
        assert found["improvement"] == pytest.approx(found["log_pz"] - found["log_pz_own"])
        assert copied.score(LINES[:3], 5) == model.score(LINES[:3], 5)


def test_sample_uses_it_and_own_prior_does_not(home):
    fit(home, "mog")
    model = TextVAE.from_pretrained(home / "run", prior="own")
    plain = call("sample run -n 6 --own-prior", cwd=home).stdout.decode().splitlines()
    assert plain == model.sample(6)
    drawn = call("sample run -n 6", cwd=home).stdout.decode().splitlines()
    assert drawn == TextVAE.from_pretrained(home / "run").sample(6)
    z = [m.vae.prior().sample((500,)) for m in (model, TextVAE.from_pretrained(home / "run"))]
    assert (z[0].mean(0) - z[1].mean(0)).abs().max() > 0.05


def test_nothing_is_overwritten_unasked(home):
    fit(home, "mog")
    before = (home / "run" / "prior" / "tensors.safetensors").read_bytes()
    done = call("fit-prior run --kind flow", cwd=home)
    assert done.returncode == 1
    assert b"run/prior holds a fitted prior: add --force to replace it" in done.stderr
    assert (home / "run" / "prior" / "tensors.safetensors").read_bytes() == before
    call("evaluate run --samples 3 --own-prior", cwd=home)
    own = evaluations(home / "run")["test"]
    call("evaluate run --samples 3", cwd=home)
    held = evaluations(home / "run")
    assert held["test"] == own
    assert held["test, mog prior"]["elbo"] != own["elbo"]
    compared = json.loads(call("compare run --json", cwd=home).stdout)
    assert list(compared) == ["run (test)", "run (test, mog prior)"]
    fit(home, "mog")
    assert "test, mog prior" not in evaluations(home / "run")  # it was another prior's


def test_a_diffusion_has_no_likelihood_and_nobody_makes_one_up(home):
    assert "unavailable" in fit(home, "diffusion")
    done = call("evaluate run --samples 3 --json", cwd=home)
    table = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    missing = {key for key, value in table.items() if value is None}
    assert missing >= {"nll", "ppl", "bits_per_byte", "elbo", "kl", "marginal_kl"}
    assert not missing & {"reconstruction", "mi", "mi_cap", "active_units", "latent", "samples"}
    assert table["samples"] == 0
    assert b"no likelihood" in done.stderr
    text = json.loads((home / "run" / "evaluation.json").read_text())
    assert text["test, diffusion prior"]["nll"] is None
    rows = call("evaluate run --samples 3", cwd=home).stdout.decode().splitlines()
    assert next(row for row in rows if row.startswith("Perplexity")).split()[-1] == "–"
    scored = call("score run - --jsonl", "anna sees a book\n", cwd=home)
    row = json.loads(scored.stdout, parse_constant=lambda name: pytest.fail(name))
    assert row["log_px"] is None
    assert row["kl"] is None
    assert row["tokens"] == 5
    assert b"no likelihood" in scored.stderr
    own = call("score run - --jsonl --own-prior", "anna sees a book\n", cwd=home)
    assert json.loads(own.stdout)["log_px"] < 0
    assert call("report run", cwd=home).returncode == 0
    assert "diverged" not in (home / "run" / "report.html").read_text()


def test_a_damaged_prior_is_refused(home):
    fit(home, "flow")
    path = home / "run" / "prior" / "tensors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = call("sample run", cwd=home)
    assert done.returncode == 1
    assert b"tensors.safetensors is damaged" in done.stderr
    assert call("sample run --own-prior", cwd=home).returncode == 0
    assert call("reconstruct run -", "anna sees a book\n", cwd=home).returncode == 0
    path.unlink()
    assert b"missing" in call("sample run", cwd=home).stderr
    fit(home, "flow")  # puts it right
    assert call("sample run", cwd=home).returncode == 0


def test_a_prior_of_other_weights_is_refused(home, tmp_path):
    fit(home, "mog")
    model = TextVAE.from_pretrained(home / "run")
    with torch.no_grad():
        model.vae.head.bias.add_(0.1)
    save(tmp_path / "other", model.config, model.tokenizer, TextVAE.from_pretrained(
        home / "run", prior="own").vae)  # fmt: skip
    fitted.write(tmp_path / "other", model.fitted)
    assert TextVAE.from_pretrained(tmp_path / "other").fitted.kind == "mog"
    model.fitted = None
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"other weights.*--kind KIND --force"):
        TextVAE.from_pretrained(tmp_path / "other")
    assert TextVAE.from_pretrained(tmp_path / "other", prior="own").sample(1)


def test_a_prior_appears_whole_or_not_at_all(home, tmp_path, monkeypatch):
    model = TextVAE.from_pretrained(home / "run", prior="own")
    model.save_pretrained(tmp_path)
    chosen = settings_of("mog", QUICK["mog"])
    monkeypatch.setattr(writing, "write_manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fitted.write(tmp_path, FittedPrior(chosen, build(chosen, 4)))
    assert not [f for f in tmp_path.iterdir() if "prior" in f.name]


def test_python_and_the_command_agree(home):
    told = json.loads(fit(home, "mog", "--json --seed 3"))
    assert fit_prior(home / "run", "mog", QUICK["mog"], seed=3, steps=30, force=True) == told


def test_of_many_sentences_an_aggregate_has_so_many(home):
    found = fit_prior(home / "run", "aggregate", ["components=5"], force=True)
    assert found["sentences"] == 5
    model = TextVAE.from_pretrained(home / "run")
    assert model.fitted.settings == {"kind": "aggregate", "components": 5}
    every = fit_prior(home / "run", "aggregate", force=True)["sentences"]
    assert TextVAE.from_pretrained(home / "run").fitted.settings["components"] == every > 5


def test_help_has_examples():
    assert signature(measuring.fit_prior).parameters["steps"].default == fitting.STEPS
    text = CliRunner().invoke(cli.app, ["fit-prior", "--help"]).stdout
    assert "--kind mog" in text
    assert "--own-prior" in text
