"""The conditional VAE: labels reach encoder, prior and decoder, and only where they should."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from midsentence import TextVAE, UserError, evaluation, pipeline
from midsentence.learning.objectives import Elbo, Mmd
from midsentence.measuring import doctor
from midsentence.measuring.alarms import alarms
from midsentence.measuring.likelihood import (
    bound,
    evaluate,
    most_information,
    mutual_information,
)
from midsentence.measuring.survey import survey
from midsentence.parts.labels import Moved
from midsentence.text.batches import Batch
from test_laws import silent
from tiny import batch, lines, tiny

SHARES = {"shares": {"good": 0.5, "bad": 0.3}, "size": 4}
FAST = [
    "latent=4", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=16", "training.batch_tokens=128", "tokenizer.kind=word", "corpus.max_tokens=32",
    "corpus.text_field='1'", "corpus.label_field='0'", "corpus.valid_fraction=0.2",
]  # fmt: skip


def labelled(labels=(0, 1, -1, 0)):
    return Batch(batch().tokens, torch.tensor(labels))


@pytest.mark.parametrize("prior", ["normal", "mog", "vamp", "flow"])
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_gradient_reaches_every_parameter(prior, decoder):
    vae = tiny(decoder=decoder, prior={"kind": prior}, labels=SHARES)
    vae(labelled(), 3, Elbo(free_bits=0))["objective"].sum().backward()
    assert silent(vae) == []


def test_on_the_sphere_every_parameter_learns_that_can():
    """What the prior can't use there is not waited for, by several processes for ever."""
    vae = tiny(posterior={"kind": "vmf"}, prior={"kind": "sphere"}, labels=SHARES)
    vae(labelled(), 1, Elbo())["objective"].sum().backward()
    assert silent(vae) == []
    assert vae.labels.vectors.weight.requires_grad


@pytest.mark.parametrize("prior", ["normal", "flow"])
def test_without_a_kl_every_parameter_learns_from_the_mmd(prior):
    vae = tiny(prior={"kind": prior}, labels=SHARES)
    vae(labelled(), 3, Mmd(alpha=1.0))["objective"].sum().backward()
    assert silent(vae) == []


def test_labels_change_posterior_prior_and_words():
    vae = tiny(labels=SHARES)
    a, b = labelled((0, 0, 0, 0)), labelled((1, 1, 1, 1))
    assert not torch.allclose(vae.infer(a).mean, vae.infer(b).mean)
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    assert not torch.allclose(vae.log_px(a, z), vae.log_px(b, z))
    p = [vae.prior_of(held.labels, 4).log_prob(z) for held in (a, b)]
    assert not torch.allclose(p[0], p[1])


def test_no_label_has_many_names_and_is_one_thing():
    vae = tiny(labels=SHARES)
    means = [
        vae.infer(held).mean
        for held in (Batch(batch().tokens), labelled((-1,) * 4), labelled((2,) * 4))
    ]
    assert torch.equal(means[0], means[1])
    assert torch.equal(means[0], means[2])  # a label that training did not have


@pytest.mark.parametrize("prior", ["normal", "mog", "flow"])
def test_the_conditional_prior_is_the_law_of_its_samples(prior):
    vae = tiny(latent=2, prior={"kind": prior}, labels=SHARES)
    p = vae.prior_of(torch.tensor([1]), 1)
    side = torch.linspace(-15, 15, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = p.log_prob(grid[:, None])[:, 0].exp() * (side[1] - side[0]) ** 2
    torch.manual_seed(0)
    drawn = p.sample((20_000,))[:, 0]
    assert mass.sum() == pytest.approx(1, abs=0.01)
    mean = (mass[:, None] * grid).sum(0)
    spread = (mass[:, None] * (grid - mean) ** 2).sum(0).sqrt()
    assert torch.allclose(drawn.mean(0), mean, atol=0.05 * float(spread.max()) + 0.02)
    assert torch.allclose(drawn.std(0), spread, rtol=0.05)


def test_moved_is_the_change_of_variables():
    base = MultivariateNormal(torch.zeros(2), torch.eye(2))
    loc, scale = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]])
    z = torch.randn(50, 1, 2)
    expected = MultivariateNormal(loc, torch.diag_embed(scale**2)).log_prob(z)
    assert torch.allclose(Moved(base, loc, scale).log_prob(z), expected, atol=1e-5)


def test_kl_has_a_closed_form_that_agrees_with_monte_carlo():
    vae = tiny(labels=SHARES)
    run = vae.run(labelled(), 40_000)
    draws = run.log_qz - run.log_pz
    error = draws.std(0) / math.sqrt(len(draws))
    assert run.kl.shape == (4, 3)
    assert ((draws.mean(0) - run.kl.sum(1)).abs() < 4 * error).all()


def test_information_is_within_a_label():
    """Posteriors far apart: ln N_y nats tell a sentence from the others of its label."""
    vae = tiny(labels=SHARES).eval()
    with torch.no_grad():
        vae.posterior.project.weight.mul_(200)
        vae.posterior.project.bias[3:] = -12.0
    held = lines(12)
    held.labels = torch.tensor([0] * 8 + [1] * 4).numpy()
    found = survey(vae, held)
    most = (8 * math.log(8) + 4 * math.log(4)) / 12
    assert mutual_information(vae, found) == pytest.approx(most, abs=0.02)
    assert most_information(found.label) == pytest.approx(most)


def test_every_table_has_the_cap_of_its_labels():
    vae, held = tiny(labels=SHARES), lines(12)
    held.labels = torch.tensor([0] * 8 + [1] * 4).numpy()
    most = (8 * math.log(8) + 4 * math.log(4)) / 12
    for table in (
        vars(doctor.examine(vae, held)),
        bound(vae, held),
        evaluate(vae, held, held.sizes, 2),
    ):
        assert table["mi_cap"] == pytest.approx(most)
        assert table["mi"] < most
    held.labels = None
    assert bound(vae, held)["mi_cap"] == pytest.approx(math.log(12))


def test_where_labels_leave_little_to_tell_it_is_no_hole():
    """50 labels of 40 sentences: MI stops at ln 40, and KL - MI is no marginal KL."""
    label = torch.arange(2000) % 50
    cap = most_information(label)
    assert cap == pytest.approx(math.log(40))
    assert most_information(label[:1]) == 0
    record = {"elbo": -30.0, "kl": 12.0, "mi": cap - 0.02, "mi_cap": cap, "active_units": 8}
    assert alarms([{**record, "step": s, "beta": 1.0} for s in (200, 300)], 1.0, 8) == {}
    told = alarms([{**record, "mi_cap": math.log(2000), "step": s, "beta": 1.0}
                   for s in (200, 300)], 1.0, 8)  # fmt: skip
    assert set(told) == {"prior hole"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A corpus whose label decides its last word; one line in nine has no label."""
    folder = tmp_path_factory.mktemp("labels")
    people, verbs = ("anna", "ben", "carla", "dirk", "emma"), ("sees", "likes", "paints", "sells")
    rows = [
        f"{label if i % 9 else ''}\t{p} {v} {word}"
        for i, (label, word, p, v) in enumerate(
            (label, word, p, v)
            for label, word in (("sea", "water"), ("land", "stone"))
            for p in people for v in verbs
        )
    ]  # fmt: skip
    (folder / "text.tsv").write_text("\n".join(rows * 3) + "\n")
    settings = [*FAST, "optimizer.lr=0.01", "training.max_steps=250", "training.epochs=99"]
    model = pipeline.train(str(folder / "text.tsv"), folder / "run", settings=settings)
    return folder, model


def test_samples_have_the_label_that_was_asked_for(run):
    _, model = run
    assert sorted(model.labels) == ["land", "sea"]
    for label, word in (("sea", "water"), ("land", "stone")):
        written = model.sample(100, label=label, seed=3)
        assert sum(word in line for line in written) >= 90
    both = model.sample(200, seed=3)
    assert 60 < sum("water" in line for line in both) < 140


def test_a_conditional_model_is_saved_with_its_labels(run):
    folder, model = run
    again = TextVAE.from_pretrained(folder / "run")
    assert again.labels == model.labels
    assert again.sample(5, label="sea") == model.sample(5, label="sea")
    line = ["anna sees water"]
    right, wrong = (model.score(line, 50, label=y)[0].log_px for y in ("sea", "land"))
    assert right > wrong + 1
    assert evaluation.evaluate_file(model, str(folder / "text.tsv"), 5)["nll"] < -wrong


def test_a_label_that_is_not_there_is_named(run):
    with pytest.raises(UserError, match="no label 'sky'"):
        run[1].sample(2, label="sky")
    with pytest.raises(UserError, match="without --label-field"):
        TextVAE(run[1].config.model_copy(update={"labels": type(run[1].config.labels)()}),
                run[1].tokenizer, tiny()).sample(2, label="sea")  # fmt: skip


def test_labels_can_be_left_alone(run, tmp_path):
    folder, _ = run
    settings = [*FAST, "training.max_steps=5", "labels.condition=false"]
    model = pipeline.train(str(folder / "text.tsv"), tmp_path / "run", settings=settings)
    assert model.labels == []
    assert model.vae.labels is None


def test_a_label_may_have_any_letters(tmp_path):
    """A space that does not break, joined emoji and Persian are not "printable" to Python."""
    names = ("sci-fi\u00a0novel", "\U0001f469\u200d\U0001f4bb", "می\u200cخواهم")
    rows = [f"{names[i % 3]}\t{'abc'[i % 3]} sees {i}" for i in range(60)]
    (tmp_path / "a.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    asked = [*FAST, "training.max_steps=2"]
    model = pipeline.train(str(tmp_path / "a.tsv"), tmp_path / "run", settings=asked)
    assert set(model.labels) == set(names)
    assert set(TextVAE.from_pretrained(tmp_path / "run").labels) == set(names)
