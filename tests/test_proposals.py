"""A fitted proposal: a tighter estimate of the same likelihood, of a model that stays as it is."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode

from midsentence import evaluation
from midsentence.errors import UserError
from midsentence.evaluation import evaluations
from midsentence.learning.proposals import Proposal, fit_proposal
from midsentence.measuring.likelihood import evaluate, importance_weighted
from midsentence.parts.posteriors import Gaussian, leaning
from midsentence.parts.priors import Gaussians, mixture
from test_cli import LINES, SMALL, call
from test_fit_prior import build, settings_of
from test_likelihood import D, LinearGaussian, X
from test_tightness import GAP, W
from tiny import language_model, lines, tiny


class Diagonal(LinearGaussian):
    """A linear-Gaussian model under its best diagonal posterior: GAP nats below log p(x)."""

    def __init__(self):
        super().__init__(stretch=1.0, points=300, w=W)
        posterior = Gaussian(X, D).double()
        with torch.no_grad():
            precision = torch.linalg.inv(self.spread)
            posterior.project.weight.zero_()
            posterior.project.weight[:D] = self.spread @ self.w.T / self.s**2
            posterior.project.bias[:D] = 0
            posterior.project.bias[D:] = -precision.diagonal().log()
        # In the instance itself, where a module would be hidden by the class's method.
        self.__dict__ |= {"posterior": posterior, "head": SimpleNamespace(bias=self.w.detach())}

    read = LinearGaussian.encoder

    def infer(self, held):
        return self.posterior(self.read(held))


def test_with_a_gaussian_that_may_lean_one_sample_is_exact():
    model = Diagonal()
    exact = model.exact().numpy()
    own = importance_weighted(model, model.lines(), 1)[0]
    assert (exact - own).mean() == pytest.approx(GAP, abs=0.15)
    proposal = fit_proposal(model, model.lines(), steps=700, rate=0.02)
    log_p, _ = importance_weighted(model, model.lines(), 1, proposal=proposal)
    assert (exact - log_p).mean() == pytest.approx(0, abs=0.02)
    assert (exact - log_p).std() < 0.1 < 0.5 < (exact - own).std()


def test_it_begins_as_the_posterior():
    vae, held = tiny(posterior={"kind": "gaussian", "gamma": 0.7}), lines()
    own, _ = importance_weighted(vae, held, 7)
    begun, _ = importance_weighted(vae, held, 7, proposal=Proposal(vae))
    assert begun == pytest.approx(own, abs=1e-9)


def test_the_model_stays_as_it_is_and_only_the_likelihood_is_another():
    vae, held = tiny(), lines(20)
    vae.train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    state = torch.get_rng_state()
    proposal = fit_proposal(vae, held, steps=40)
    assert vae.training and all(p.requires_grad and p.grad is None for p in vae.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    own = evaluate(vae, held, held.sizes, 4)
    with_it = evaluate(vae, held, held.sizes, 4, proposal=proposal)
    likelihood = {"nll", "nll_stderr", "estimator_stderr", "ppl", "ppl_stderr", "bits_per_byte"}
    assert {key for key, value in own.items() if value != with_it[key]} == likelihood


def test_the_same_seed_makes_the_same_one_and_progress_is_told():
    vae, held, told = tiny(), lines(20), []
    one = fit_proposal(vae, held, steps=5, seed=3, progress=told.append)
    two = fit_proposal(vae, held, steps=5, seed=3)
    assert torch.equal(one.project.weight, two.project.weight)
    assert sum(told) == 5


def test_where_there_is_nothing_to_fit_it_is_said():
    with pytest.raises(UserError, match="its likelihood is exact"):
        Proposal(language_model())
    with pytest.raises(UserError, match=r"posterior\.kind = 'gaussian'"):
        Proposal(tiny(posterior={"kind": "full"}))
    vae = tiny()
    vae.prior = build(settings_of("diffusion", []), vae.latent)
    with pytest.raises(UserError, match="--own-prior"):
        Proposal(vae)


def test_evaluate_keeps_it_beside_the_model_s_own_table(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "fit_proposal", partial(fit_proposal, steps=60))
    (tmp_path / "text.txt").write_text("\n".join(LINES) + "\n")
    more = "--max-steps 30 --set corpus.valid_fraction=0.3"
    done = call(f"train text.txt --out run {more} {SMALL}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    own, with_it = (
        json.loads(call(f"evaluate run --samples 3 --json {more}", cwd=tmp_path).stdout)
        for more in ("", "--proposal")
    )
    assert own["elbo"] == with_it["elbo"] and own["nll"] != with_it["nll"]
    held = evaluations(tmp_path / "run")
    assert held["test"] == pytest.approx(own, nan_ok=True)
    assert held["test, fitted proposal"] == pytest.approx(with_it, nan_ok=True)
    # What cannot be evaluated is told before anything is fitted.
    monkeypatch.setattr(evaluation, "fit_proposal", None)
    done = call("evaluate run none.txt --proposal", cwd=tmp_path)
    assert done.returncode and b"none.txt" in done.stderr and b"Traceback" not in done.stderr


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made under it has."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.most = max(self.most, made.numel() if isinstance(made, torch.Tensor) else 0)
        return made


def test_a_large_draw_of_a_mixture_holds_no_more_than_it_gives():
    mixture = Gaussians(torch.zeros(2000), torch.randn(2000, 32), torch.ones(2000, 32))
    with Largest() as seen:
        assert mixture.sample((3000,)).shape == (3000, 32)
    assert seen.most <= 2000 * 3000  # for each sample the components' chances


def test_a_large_draw_of_a_mixture_of_posteriors_is_made_in_parts(monkeypatch):
    parts = Independent(Normal(torch.randn(20, 3), torch.ones(20, 3)), 1)
    p = mixture(torch.zeros(20), parts)
    whole = p.sample((50,))
    monkeypatch.setattr(Gaussians, "DRAWN", 7 * 20 * 3)
    with Largest() as seen:
        assert p.sample((5, 10)).shape == (5, 10, 3)
    assert whole.shape == (50, 3)
    assert seen.most <= 7 * 20 * 3


def test_a_draw_holds_no_covariance_for_each_sample():
    torch.manual_seed(0)
    q = leaning(torch.randn(5, 8), torch.rand(5, 8) + 1, torch.randn(5, 28))
    torch.manual_seed(3)
    with Largest() as found:
        z = q.rsample((20,))
    assert found.most == z.numel()
    torch.manual_seed(3)
    noise = torch.randn(20, 5, 8)
    assert torch.allclose(z, q.loc + (q.scale_tril @ noise[..., None])[..., 0], atol=1e-5)
    assert q.rsample().shape == (5, 8)
