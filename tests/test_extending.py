"""docs/extending.md does what it says: its examples are run and held to the laws."""

import re
from pathlib import Path

import pytest
import torch
from torch.distributions import kl_divergence

import test_laws
import test_objectives
import tiny as small
from midsentence import TextVAE, UserError, assembly, config, pipeline
from midsentence.learning import planning
from midsentence.learning.objectives import OBJECTIVES, Elbo
from midsentence.learning.schedules import schedule
from midsentence.parts.posteriors import POSTERIORS
from test_training import FAST, corpus  # noqa: F401 (a fixture)
from tiny import batch, tiny

TEXT = (Path(__file__).parent.parent / "docs" / "extending.md").read_text("utf-8")
FLAT = [kind for kind in POSTERIORS if kind != "vmf"]


def section(title):
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", TEXT, re.M | re.S).group(1)


def example(title, language="python"):
    """The code blocks of a section."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.S)


@pytest.fixture
def register():
    """Runs the first example of a section; the tables are put back afterwards."""
    tables = config.tables().values()
    held = [dict(table) for table in tables]
    yield lambda title: exec(example(title)[0], {"__name__": "example"})
    for table, before in zip(tables, held, strict=True):
        table.clear()
        table.update(before)


@pytest.fixture
def student(register):
    with pytest.raises(UserError, match="no prior 'student'"):
        config.compose(None, None, ["prior.kind=student"])
    register("A prior in ten lines")


def test_the_prior_is_ten_lines():
    lines = [line for line in example("A prior in ten lines")[0].splitlines() if line.strip()]
    own = [line for line in lines if not re.match(r"import |from ", line)]
    assert 0 < len(own) <= 10


@pytest.mark.parametrize("posterior", FLAT)
def test_the_prior_keeps_the_laws(student, posterior):
    test_laws.test_gradient_reaches_every_parameter_of_every_density(posterior, "student")
    test_laws.test_densities_of_a_pass_are_those_asked_afterwards(posterior, "student")


def test_the_prior_s_samples_lie_where_its_density_says(student):
    test_laws.test_samples_lie_where_the_density_says_in_two_dimensions(
        "prior", "gaussian", "student"
    )
    test_laws.test_a_pair_that_cannot_be_is_refused_by_name("vmf", "student")


def test_a_kl_without_a_closed_form_is_that_of_quadrature(student):
    vae = tiny(prior={"kind": "student"})
    with torch.no_grad():
        run = vae.run(batch(), 20_000)
        with pytest.raises(NotImplementedError):
            kl_divergence(run.q.base_dist, run.p.base_dist)
        side = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None, None]
        log_q, log_p = run.q.base_dist.log_prob(side), run.p.base_dist.log_prob(side)
    exact = (log_q.exp() * (log_q - log_p)).sum((0, 2)) * 0.01
    assert run.kl.shape == (4, 1)
    error = (run.log_qz - run.log_pz).std(0) / 20_000**0.5
    assert ((run.kl[:, 0] - exact).abs() < 5 * error).all()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_prior_goes_with_every_objective_and_with_labels(student, kind):
    vae = tiny(prior={"kind": "student"}, labels={"shares": {"a": 0.5, "b": 0.5}, "size": 3})
    settings = config.compose(None, None, [f"objective.kind={kind}"])
    objective = config.build(OBJECTIVES, settings.objective)
    vae(batch(), 3, objective)["objective"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())
    assert vae.labels.loc.grad.abs().sum() > 0


def test_the_prior_trains_and_is_saved(student, corpus, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    settings = [
        *FAST, "prior.kind=student", "prior.freedom=3", "training.max_steps=10",
        "objective.free_bits=0",
    ]  # fmt: skip
    model = pipeline.train(corpus, out, settings=settings)
    assert model.config.prior == {"kind": "student", "freedom": 3.0}
    assert model.vae.prior.log_scale.abs().sum() > 0
    again = TextVAE.from_pretrained(out)
    assert again.sample(5, seed=1) == model.sample(5, seed=1)
    assert again.score(["anna sees the sea"], 20) == model.score(["anna sees the sea"], 20)
    del config.tables()["prior"]["student"]
    with pytest.raises(UserError, match="no prior 'student'"):
        TextVAE.from_pretrained(out)


def test_the_training_beside_it_runs_as_it_stands(student, corpus, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "poems.txt").write_text(Path(corpus).read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "LEAST_STEPS", 20)
    names = {}
    exec(example("A prior in ten lines")[1], names)
    assert len(names["vae"].sample(3)) == 3
    assert (tmp_path / "runs" / "student" / "model.safetensors").exists()


def test_the_posterior_keeps_the_laws(register, monkeypatch):
    register("A posterior")
    pair = ("laplace", "normal")
    test_laws.test_gradient_reaches_every_parameter_of_every_density(*pair)
    test_laws.test_densities_of_a_pass_are_those_asked_afterwards(*pair)
    test_laws.test_samples_lie_where_the_density_says_in_two_dimensions("posterior", *pair)
    run = tiny(posterior={"kind": "laplace"}).run(batch(), 40_000)
    drawn = run.log_qz - run.log_pz
    assert ((run.kl.sum(1) - drawn.mean(0)).abs() < 5 * drawn.std(0) / 200).all()


def test_the_decoder_keeps_the_laws(register, monkeypatch):
    register("A decoder")
    monkeypatch.setitem(small.SMALL, "bigram", {"embedding": 5, "hidden": 6})
    test_laws.test_padding_changes_nothing("lstm", "bigram")
    test_laws.test_stepping_equals_teacher_forcing("bigram", None)
    test_laws.test_probabilities_of_all_sentences_and_the_open_mass_sum_to_one("bigram", 1)
    test_laws.test_a_language_model_is_the_same_story_without_a_latent("bigram")
    vae = tiny(decoder="bigram")
    vae(batch(), 2, Elbo(free_bits=0))["objective"].sum().backward()
    assert test_laws.silent(vae) == []


def test_the_objective_is_its_formula(register):
    register("An objective")
    settings = config.compose(None, None, ["objective.kind=capacity", "objective.capacity=3"])
    objective = config.build(OBJECTIVES, settings.objective)
    run = tiny().run(batch(), 2)
    expected = run.log_px.mean(0) - 0.5 * (run.kl.sum(1) - 3).abs()
    assert torch.allclose(objective(run, beta=0.5), expected)
    assert assembly.assemble(settings, 20).bow is None


def test_the_schedule_ends_where_schedules_do(register):
    register("A schedule")
    test_objectives.test_every_schedule_ends_near_its_stop("quadratic")
    settings = config.compose(None, None, ["beta.kind=quadratic", "beta.over=0.5"])
    assert schedule(**settings.beta)(0.25) == pytest.approx(0.25)


def test_the_recipe_is_whole(tmp_path):
    (text,) = example("A recipe", "toml")
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    settings = config.compose(None, path)
    assert settings.prior == {"kind": "mog", "components": 50}
    assert len(assembly.assemble(settings, 20).prior.logits) == 50
