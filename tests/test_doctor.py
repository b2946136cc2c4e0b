"""The doctor: figures against exact answers, verdicts on models made to have one disease each."""

import json
import math
import shlex
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

import sick
from midsentence import UserError, checkup, config, console, pipeline
from midsentence.assembly import assemble
from midsentence.learning.objectives import Elbo
from midsentence.measuring import doctor
from midsentence.measuring.alarms import Alarms, alarms
from midsentence.measuring.diagnosis import (
    COLLAPSED,
    DISEASES,
    HOLE,
    Diagnosis,
    Examination,
    carrying,
    diagnose,
    least,
)
from midsentence.measuring.likelihood import log_aggregate, mutual_information
from midsentence.measuring.remedies import REMEDIES, commands
from midsentence.measuring.survey import groups, survey
from midsentence.plain_json import dumps
from midsentence.report import by_doctor
from midsentence.report import verdict as of_the_report
from test_fit_prior import QUICK, build, settings_of
from test_labels import SHARES
from test_likelihood import Known, found_of
from test_training import FAST, corpus, records  # noqa: F401 (corpus is a fixture)
from tiny import Lines, batch, language_model, lines, tiny

TREE = config.resolve(sick.SETTINGS).model_dump()

# ---- verdicts -----------------------------------------------------------------------------------

FACTORS = sick.factors(300, 2), sick.factors(300, 3)
OPENINGS = sick.openings(300, 2), sick.openings(300, 3)
BY_HEART = sick.noise(300, 2), sick.noise(30, 1)

CASES = [
    (sick.healthy, FACTORS, "healthy"),
    (sick.posterior_is_the_prior, FACTORS, "collapsed"),
    (sick.posterior_is_one_for_all, FACTORS, "collapsed"),
    (sick.decoder_is_deaf, FACTORS, "collapsed"),
    (sick.posterior_is_fading, FACTORS, "collapsing"),
    (sick.posteriors_lie_elsewhere, FACTORS, "prior hole"),
    (sick.posteriors_lie_wide, FACTORS, "prior hole"),
    (sick.knows_its_sentences, BY_HEART, "over-fitted latent"),
    (sick.reads_the_first_word, OPENINGS, "first words only"),
]


@pytest.mark.parametrize(("make", "sentences", "expected"), CASES)
def test_the_disease_a_model_was_made_to_have_is_named(make, sentences, expected):
    found = doctor.examine(make(), *sentences)
    said = diagnose(found, TREE)
    assert said.verdict == expected, (said, found)
    assert said.reasons
    assert (said.settings == ()) == (expected == "healthy")
    assert "nan" not in " ".join(said.reasons)
    # The report judges by fewer figures, and by the same thresholds.
    at_hand = of_the_report(found.kl, found.mi, found.active, found.latent)
    if "collapsed" in at_hand.headline and "Nearly" not in at_hand.headline:
        assert expected == "collapsed"


def test_what_is_said_of_two_collapsed_models_is_why():
    deaf, silent = (
        diagnose(doctor.examine(make(), *FACTORS), TREE)
        for make in (sick.decoder_is_deaf, sick.posterior_is_the_prior)
    )
    assert any("does not read z" in r for r in deaf.reasons)
    heard = diagnose(replace(FINE, kl=0.4, mi=0.4, shuffled_gap=0.3, train_shuffled_gap=0.3,
                             shuffled_gap_stderr=0.05), TREE)  # fmt: skip
    assert heard.verdict == "collapsed"
    assert any("hardly reads z" in r for r in heard.reasons)
    assert not any("close to the prior" in r for r in deaf.reasons)
    assert any("close to the prior" in r for r in silent.reasons)
    assert any(s.startswith("objective.free_bits") for s in silent.settings)
    assert not any(s.startswith("objective.free_bits") for s in deaf.settings)  # it has KL enough
    assert any(s.startswith("decoder.word_dropout") for s in deaf.settings)


def test_moving_the_latent_space_changes_what_it_should():
    """The decoder undoes the move, so all that z tells stays; the KL alone pays for it."""
    base = doctor.examine(sick.healthy(), *FACTORS)
    away = doctor.examine(sick.posteriors_lie_elsewhere(far=2.0), *FACTORS)
    for name in ("mi", "reconstruction", "shuffled_gap", "first_share", "train_shuffled_gap"):
        assert getattr(away, name) == pytest.approx(getattr(base, name), abs=1e-3), name
    assert away.active_units == base.active_units
    # (m + 2)^2 / 2 - m^2 / 2 = 2 m + 2 a dimension, m the mean of q(z) before.
    means = survey(sick.healthy(), FACTORS[0]).mean.mean(0)
    expected = float((2 * means + 2).sum())
    assert away.kl - base.kl == pytest.approx(expected, abs=1e-3)
    assert away.outside > 0.9 > base.outside


def test_without_training_sentences_nothing_is_said_of_them():
    found = doctor.examine(sick.knows_its_sentences(), BY_HEART[0])
    assert math.isnan(found.train_elbo)
    assert diagnose(found, TREE).verdict != "over-fitted latent"


def test_a_language_model_has_nothing_to_examine():
    found = doctor.examine(language_model(), lines(), lines())
    said = diagnose(found, TREE)
    assert said.verdict == "no latent"
    assert "no posterior to examine" in said.reasons[0]
    assert commands(said, TREE, "r", "r-2") == []


def test_one_sentence_cannot_be_examined():
    with pytest.raises(UserError, match="at least two sentences"):
        doctor.examine(tiny(), lines(1))


DENSITIES = [
    ("gaussian", "normal"), ("gaussian", "mog"), ("full", "normal"), ("lowrank", "vamp"),
    ("iaf", "normal"), ("planar", "flow"), ("maf", "vamp"), ("vmf", "sphere"), ("vmf", "vamp"),
]  # fmt: skip


@pytest.mark.parametrize(("posterior", "prior"), DENSITIES)
def test_every_density_is_examined(posterior, prior):
    vae = tiny(posterior={"kind": posterior}, prior={"kind": prior})
    found = doctor.examine(vae, lines(30), lines(20, seed=1))
    assert len(found.kl_per_dimension) == (3 if (posterior, prior) == DENSITIES[0] else 0)
    assert len(found.posterior_variance) == len(found.aggregate_variance) == 3
    assert math.isnan(found.moments_kl) == (prior != "normal")
    known = {k: v for k, v in vars(found).items() if isinstance(v, float) and k != "moments_kl"}
    assert all(map(math.isfinite, known.values())), known
    assert found.kl == pytest.approx(found.mi + found.marginal_kl)
    assert found.elbo == pytest.approx(-found.reconstruction - found.kl)
    assert doctor.examine(vae, lines(30), lines(20, seed=1)) == found
    json.loads(dumps(vars(found)))
    tree = config.resolve(
        {**sick.SETTINGS, "posterior": {"kind": posterior}, "prior": {"kind": prior}}
    ).model_dump()
    assert diagnose(found, tree).verdict


def test_sentences_with_labels_exchange_z_within_their_label():
    vae, held = tiny(labels=SHARES), lines(40)
    held.labels = np.arange(40) % 3 - 1  # -1: no label
    label = survey(vae, held).label
    given = doctor.exchanged(torch.arange(40.0)[:, None], label, 0)[:, 0].long()
    assert len(label.unique()) == 3
    assert torch.equal(label[given], label)
    found = doctor.examine(vae, held, held)
    assert math.isnan(found.moments_kl)
    assert found.kl == pytest.approx(found.mi + found.marginal_kl)
    assert all(map(math.isfinite, (found.outside, found.shuffled_gap, found.prior_gap)))


def test_a_prior_without_a_density_is_judged_by_what_is_left():
    vae = tiny().float()
    vae.prior = build(settings_of("diffusion", QUICK["diffusion"]), 3)
    found = doctor.examine(vae, lines(40), lines(40, seed=1))
    assert math.isnan(found.kl) and math.isnan(found.elbo)
    assert math.isfinite(found.mi) and 0 <= found.outside <= 1
    said = diagnose(found, TREE)
    assert said.verdict != "diverged"
    assert "nan" not in " ".join(said.reasons)


# ---- figures ------------------------------------------------------------------------------------


def with_prior(s):
    """q(z|x) = N(h, s^2) in one dimension, p(z) = N(0, 1)."""
    known = Known(s)
    known.prior = lambda: Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
    return known


def test_information_and_marginal_kl_of_a_gaussian_channel():
    """x ~ N(0, 1), q(z|x) = N(a x, s^2): all in closed form, up to N and one sample each."""
    a, s, count = 1.5, 0.8, 4000
    torch.manual_seed(3)
    found = found_of(a * torch.randn(count, 1), s)
    variance = a * a + s * s
    assert mutual_information(Known(s), found) == pytest.approx(
        0.5 * math.log(variance / s**2), abs=0.05
    )
    marginal = 0.5 * (variance - 1 - math.log(variance))
    known = with_prior(s)
    assert doctor.moments_kl(known, found) == pytest.approx(marginal, abs=0.06)
    assert doctor.spread(known, found).tolist() == pytest.approx([s * s], rel=1e-5)


def test_the_kl_of_moments_is_never_above_the_marginal_kl():
    """Two far clusters: KL(q(z) || p) by a fine grid, and the moments' share of it."""
    means = torch.tensor([-3.0, 3.0]).repeat(500)[:, None]
    found = found_of(means, 0.5)
    grid = torch.linspace(-9, 9, 20_001)[:, None]
    nothing = torch.zeros(len(grid), dtype=torch.long)
    log_q = log_aggregate(Known(0.5), found, grid, nothing).double()
    log_p = Normal(0, 1).log_prob(grid[:, 0].double())
    exact = float((log_q.exp() * (log_q - log_p)).sum() * (18 / 20_000))
    moments = doctor.moments_kl(with_prior(0.5), found)
    assert moments == pytest.approx(0.5 * (9.25 - 1 - math.log(9.25)), abs=1e-3)
    # The rest is from N(m, v) to two clusters: its entropy less theirs.
    rest = 0.5 * math.log(9.25) - math.log(0.5) - math.log(2)
    assert exact - moments == pytest.approx(rest, abs=1e-3)


@pytest.mark.parametrize(("count", "dimensions"), [(40, 128), (50, 256), (10, 32)])
def test_few_sentences_in_a_wide_latent_are_no_hole(count, dimensions):
    """Posteriors that are the prior itself but for eight dimensions, which are used without a hole:
    one z a sentence alone is D / N nats away from N(0, I)."""
    torch.manual_seed(0)
    s = torch.ones(dimensions)
    s[:8] = 0.6
    found = found_of(torch.randn(count, dimensions) * (1 - s * s).sqrt(), s)
    known = with_prior(s)
    drawn = Normal(found.z.mean(0), found.z.std(0, correction=0))
    assert float(kl_divergence(drawn, Normal(0, 1)).sum()) > HOLE
    assert doctor.moments_kl(known, found) < 8 / count + 0.5


def test_moments_of_draws_are_rid_of_what_so_few_add():
    """A flow's variance has no formula; these posteriors are the prior."""

    class Unsaid(Independent):
        @property
        def variance(self):
            raise NotImplementedError

    known = with_prior(1.0)
    known.posterior = lambda h: Unsaid(Normal(h, 1.0), 1)
    each = [
        doctor.moments_kl(known, found_of(torch.zeros(50, 256), 1.0, seed)) for seed in range(9)
    ]
    assert max(each) < 1 < 256 / 50


def test_a_mean_of_posteriors_with_and_without_ones_own():
    found = found_of(torch.tensor([[0.0], [1.0], [5.0]]), 0.7)
    each = Normal(found.mean[:, 0], 0.7).log_prob(found.z).exp()  # (z, posterior)
    whole = log_aggregate(Known(0.7), found, found.z, found.label)
    assert torch.allclose(whole, each.mean(1).log(), atol=1e-6)
    others = log_aggregate(Known(0.7), found, found.z, found.label, others=True)
    expected = ((each.sum(1) - each.diagonal()) / 2).log()
    assert torch.allclose(others, expected, atol=1e-4)
    # Two of one label and one of another: the first two look at each other only.
    found.label = torch.tensor([4, 4, 7])
    others = log_aggregate(Known(0.7), found, found.z, found.label, others=True)
    assert torch.allclose(others[:2].exp(), torch.stack([each[0, 1], each[1, 0]]), atol=1e-6)
    assert others[2].isnan()


@pytest.mark.parametrize(("far", "low", "high"), [(0.0, 0.02, 0.09), (4.0, 0.9, 1.0)])
def test_prior_samples_outside_are_a_twentieth_where_there_is_no_hole(far, low, high):
    torch.manual_seed(1)
    means = 0.8 * torch.randn(3000, 2) + far
    found = found_of(means, 0.6)  # 0.64 + 0.36: the aggregate is N(far, I)
    assert low < doctor.outside(Known(0.6), found, torch.randn(3000, 2)) < high


def test_where_all_are_alone_with_their_label_nothing_is_said_of_what_is_outside():
    found = found_of(torch.randn(20, 2), 0.6)
    found.label = torch.arange(20)
    assert math.isnan(doctor.outside(Known(0.6), found, torch.randn(20, 2)))


def test_every_sentence_gets_the_z_of_another():
    z, one = torch.arange(50.0)[:, None], torch.zeros(50, dtype=torch.long)
    for seed in range(20):
        for label in (one, one + torch.arange(50) % 3):
            given = doctor.exchanged(z, label, seed)
            assert sorted(given[:, 0].tolist()) == z[:, 0].tolist()
            assert (given != z).all()
            assert torch.equal(label[given[:, 0].long()], label)
    assert torch.equal(doctor.exchanged(z[:2], one[:2], 0), z[:2].flip(0))


def test_the_gap_of_two_sentences_by_hand():
    """With two sentences there is one exchange: each takes the other's z."""
    vae, held = tiny(), Lines([[3, 4, 5, 6, 7, 8], [5, 5, 3]])
    found = survey(vae, held, seed=4)
    with torch.no_grad():
        alone = [next(groups(vae, Lines([ids])))[1] for ids in held.ids]
        lost = [
            float(vae.log_px(alone[i], found.z[None, i : i + 1])[0, 0]
                  - vae.log_px(alone[i], found.z[None, 1 - i : 2 - i])[0, 0])
            for i in (0, 1)
        ]  # fmt: skip
    got = doctor.examine(vae, held, seed=4)
    assert got.shuffled_gap == pytest.approx(np.mean(lost), abs=1e-10)
    assert got.shuffled_gap_stderr == pytest.approx(np.std(lost, ddof=1) / math.sqrt(2), abs=1e-10)


@pytest.mark.parametrize("decoder", ["lstm", "gru", "transformer"])
def test_first_words_are_the_first_of_all_words(decoder):
    """By the decoder's own distributions, position by position."""
    vae, held = tiny(decoder=decoder), lines(12)
    z = torch.randn(12, 3, dtype=torch.float64)
    for first in (1, 2, 4, 99):
        got = doctor.log_px_at(vae, held, z, first)
        for i, ids in enumerate(held.ids):
            ((_, one),) = groups(vae, Lines([ids]))
            with torch.no_grad():
                log_p = vae.head.logits(vae.decoder(one.inputs, z[i : i + 1])).log_softmax(-1)
            words = log_p[0].gather(1, one.targets[0, :, None])[:, 0]
            assert got[i] == pytest.approx(float(words[:first].sum()), abs=1e-10)
    assert torch.allclose(doctor.log_px_at(vae, held, z), doctor.log_px_at(vae, held, z, 99))


def test_shares_of_the_first_words_add_up_by_hand():
    vae, held = tiny(), lines(20)
    found = doctor.examine(vae, held, seed=1)
    z = survey(vae, held, seed=1).z
    other = doctor.exchanged(z, torch.zeros(20, dtype=torch.long), 1)
    cuts = (found.first_tokens, 99)
    own, wrong = (
        np.array([float(doctor.log_px_at(vae, held, at, n).mean()) for n in cuts])
        for at in (z, other)
    )
    assert found.first_tokens == max(1, round((held.lengths.mean() + 1) / 4))
    assert found.first_share == pytest.approx((own - wrong)[0] / (own - wrong)[1])
    assert found.first_even == pytest.approx(wrong[0] / wrong[1])


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_norms_are_those_of_training(tied):
    vae = tiny(head={"tied": tied})
    torch.manual_seed(7)
    vae(batch(), 1, Elbo(free_bits=0.0))["objective"].mean().backward()
    sides = [("encoder", "posterior"), ("decoder", "head")]
    expected = [
        math.sqrt(sum(
            float(p.grad.square().sum())
            for n, p in vae.named_parameters() if n.split(".")[0] in side and p.grad is not None
        ))
        for side in sides
    ]  # fmt: skip
    vae.zero_grad(set_to_none=True)
    assert doctor.gradient_norms(vae, batch(), seed=7) == pytest.approx(expected)
    assert all(p.grad is None for p in vae.parameters())


def test_variance_without_a_formula_is_that_of_draws():
    vae = tiny(posterior={"kind": "planar"})
    found = survey(vae, lines(400), seed=0)
    q = vae.posterior(found.summary)
    with torch.no_grad():
        exact = q.rsample((2000,)).var(0).mean(0)
    assert doctor.spread(vae, found).tolist() == pytest.approx(exact.tolist(), rel=0.25)


def test_the_kl_is_the_sum_of_its_parts_also_where_densities_are_costly(monkeypatch):
    monkeypatch.setattr(doctor, "COSTLY", 10)
    found = doctor.examine(tiny(posterior={"kind": "full"}), lines(60))
    assert found.kl == pytest.approx(found.mi + found.marginal_kl, abs=1e-9)


def test_active_units_fall_with_the_threshold():
    found = doctor.examine(tiny(), lines(60))
    counts = list(found.active_units.values())
    assert list(found.active_units) == sorted(found.active_units)
    assert counts == sorted(counts, reverse=True)
    assert found.active == found.active_units[0.01]


# ---- judging ------------------------------------------------------------------------------------

FINE = Examination(
    sentences=1000, latent=32, tokens=9, elbo=-30, elbo_stderr=0.3, reconstruction=25, kl=5, mi=4,
    mi_cap=6.9, marginal_kl=1, moments_kl=0.2, outside=0.1, shuffled_gap=8, shuffled_gap_stderr=0.1,
    prior_gap=8, prior_gap_stderr=0.1, first_tokens=2, first_share=0.5, first_even=0.3,
    encoder_gradient=1, decoder_gradient=2, train_sentences=1000, train_tokens=9, train_elbo=-29,
    train_shuffled_gap=8.5, active_units={0.01: 32},
)  # fmt: skip
NAN = math.nan


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "healthy"),
        ({"kl": 0.49, "mi": 0.4}, "collapsed"),
        ({"kl": 6.0, "mi": 0.49}, "collapsed"),
        ({"active_units": {0.01: 0}}, "collapsed"),
        ({"shuffled_gap": 0.3, "train_shuffled_gap": 0.3}, "collapsed"),
        ({"kl": 1.9, "mi": 1.8}, "collapsing"),
        ({"active_units": {0.01: 4}}, "collapsing"),
        ({"active_units": {0.01: 2}, "latent": 2}, "healthy"),
        # z is worth much on training sentences and nothing on others: not a collapse.
        ({"shuffled_gap": 0.3, "train_shuffled_gap": 20}, "over-fitted latent"),
        # As much a token, of sentences half as long.
        ({"shuffled_gap": 4.1, "tokens": 4.5}, "healthy"),
        ({"moments_kl": 3.1, "mi": 6.5}, "prior hole"),
        ({"marginal_kl": 3.1}, "prior hole"),
        # So many nats in z that 1,000 sentences cannot measure them: KL - MI says nothing then.
        ({"kl": 20, "marginal_kl": 13.2, "mi": 6.8}, "healthy"),
        ({"outside": 0.8}, "prior hole"),
        ({"first_share": 0.9}, "first words only"),
        ({"first_share": 0.9, "first_even": 0.9}, "healthy"),  # sentences that are all beginning
        ({"elbo": NAN, "reconstruction": NAN, "kl": NAN}, "diverged"),
        # A diffusion has no density: no KL, no bound.
        ({"elbo": NAN, "kl": NAN, "marginal_kl": NAN}, "healthy"),
        ({"elbo": NAN, "kl": NAN, "shuffled_gap": 0.3}, "over-fitted latent"),
        ({"latent": 0}, "no latent"),
        # Under an aggregate of training sentences their bound is no measure of anything.
        ({"train_elbo": NAN, "shuffled_gap": 0.3}, "over-fitted latent"),
        ({"train_elbo": NAN}, "healthy"),
        ({"outside": NAN, "first_share": NAN, "train_shuffled_gap": NAN}, "healthy"),
    ],
)
def test_the_verdict_is_a_function_of_the_figures(changed, expected):
    said = diagnose(replace(FINE, **changed), TREE)
    assert said.verdict == expected
    assert "nan" not in " ".join(said.reasons)


def test_two_diseases_are_both_told_the_gravest_first():
    said = diagnose(replace(FINE, marginal_kl=4.0, kl=5.5, mi=1.5, first_share=0.95), TREE)
    assert said.verdict == "prior hole"
    assert [r.split(":")[0] for r in said.reasons if r.startswith("Also")] == [
        "Also collapsing", "Also first words only",
    ]  # fmt: skip


def test_the_report_and_the_doctor_agree_on_collapse():
    for kl in np.linspace(0, 4, 33).tolist():
        for active in (0, 1, 5):
            e = replace(FINE, kl=kl, mi=kl, active_units={0.01: active})
            said = diagnose(e, TREE).verdict
            headline = of_the_report(kl, kl, active, 32).headline
            words = {"Posterior collapsed": "collapsed", "Nearly collapsed": "collapsing"}
            assert words.get(headline, "healthy") == said
            assert carrying(least(kl, NAN), active, 32) == said
    assert carrying(math.inf, NAN, NAN) == "healthy"
    assert carrying(COLLAPSED, 5, 32) == "collapsing"


# ---- what to try --------------------------------------------------------------------------------

RUNS = [
    [],
    ["decoder.kind=transformer", "encoder.kind=transformer", "decoder.word_dropout=0.4"],
    ["posterior.kind=vmf", "prior.kind=sphere", "encoder.pooling=last"],
    ["posterior.kind=iaf", "prior.kind=flow", "beta.kind=cyclical", "objective.free_bits=0.0"],
    ["prior.kind=mog", "objective.form=sentence", "objective.free_bits=3.0", "decoder.dropout=0.5"],
    ["objective.kind=rate"],
    ["objective.kind=iwae", "beta.kind=cyclical"],
    ["objective.kind=mmd"],
    ["objective.kind=mmd", "objective.alpha=1.0"],
    ["objective.kind=mmd", "objective.alpha=1.0", "posterior.kind=vmf", "prior.kind=sphere"],
    ["latent=2", "posterior.gamma=0.7", "beta.kind=constant", "encoder.dropout=0.1"],
]


@pytest.mark.parametrize("verdict", REMEDIES)
@pytest.mark.parametrize("settings", RUNS)
def test_every_remedy_is_a_valid_change_of_the_run(verdict, settings, tmp_path):
    run = config.compose(None, None, settings)
    run.corpus.source, run.corpus.valid = "my poems/it's.txt", "v a l.txt"
    run.corpus.text_field = "text"
    tree = run.model_dump()
    asked = REMEDIES[verdict](FINE, tree)
    assert asked
    changed = config.override(run, asked)
    assert changed != run
    assemble(changed, 20)  # nothing that would be refused
    run.save(tmp_path / "config.toml")
    said = commands(Diagnosis(verdict, (), tuple(asked)), tree, str(tmp_path), "runs/new run")
    words = shlex.split(said[-1])
    assert words[:3] == ["midsentence", "train", "my poems/it's.txt"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--out"] == "runs/new run"
    assert given["--valid"] == "v a l.txt"
    assert "--test" not in given
    overrides = [w for flag, w in zip(words[3::2], words[4::2], strict=True) if flag == "--set"]
    again = config.compose(None, tmp_path / "config.toml", overrides)
    assert again == changed  # the text field and all else of the run come along


def test_remedies_know_all_diseases_and_what_is_set_already():
    assert set(DISEASES) <= set(REMEDIES)
    e = replace(FINE, kl=0.1)
    default = config.resolve({}).model_dump()
    assert REMEDIES["collapsed"](e, default) == ["objective.free_bits=0.4", "beta.kind=cyclical"]
    tree = config.resolve({"encoder": {"pooling": "last"}}).model_dump()
    assert REMEDIES["collapsed"](e, tree)[0] == "encoder.pooling=max"
    whole = config.resolve({"objective": {"form": "sentence", "free_bits": 5}}).model_dump()
    assert "objective.free_bits=10.0" in REMEDIES["collapsed"](e, whole)
    none = config.resolve({"objective": {"free_bits": 0}}).model_dump()
    assert "objective.free_bits=0.25" in REMEDIES["collapsed"](e, none)  # 8 nats of 32 dimensions


@pytest.mark.parametrize("held", [0.1, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_no_remedy_goes_the_wrong_way(held):
    tree = config.resolve({}).model_dump()
    tree["decoder"] |= {"dropout": held, "word_dropout": held}
    tree["beta"] |= {"over": held}
    for latent in (1, 2, 3, 32):
        tree["latent"] = latent
        asked = [s for v in ("collapsing", "over-fitted latent", "first words only")
                 for s in REMEDIES[v](FINE, tree)]  # fmt: skip
        found = dict(s.split("=") for s in asked)
        assert int(found.get("latent", latent)) <= latent
        for name in ("decoder.dropout", "decoder.word_dropout", "beta.over"):
            assert float(found.get(name, held)) >= held


def test_a_hole_may_be_filled_without_training_and_a_pipe_has_no_name():
    tree = config.resolve({"corpus": {"source": "-"}}).model_dump()
    hole = Diagnosis("prior hole", (), ("prior.kind=mog",))
    said = commands(hole, tree, "runs/a b", "runs/c")
    several = config.resolve({"corpus": {"source": ["a b.txt", "c.txt"]}}).model_dump()
    assert commands(hole, several, "r", "s")[-1].startswith(
        "midsentence train 'a b.txt' c.txt --out"
    )
    assert commands(hole, tree, "runs/a b", "runs/c", fitted=True) == said[1:]
    assert commands(hole, tree, "runs/a b", "runs/c", stale=True)[0] == f"{said[0]} --force"
    assert said[0] == "midsentence fit-prior 'runs/a b' --kind flow"
    assert shlex.split(said[1])[2] == "CORPUS"


# ---- alarms -------------------------------------------------------------------------------------


def record(kl=5.0, mi=4.0, active=20, elbo=-30.0, step=1000):
    return {"step": step, "elbo": elbo, "kl": kl, "mi": mi, "mi_cap": 7.6, "active_units": active}


def heard(*told, latent=32):
    """The alarms of records with the KL weight of their time, one list a record."""
    listen = Alarms(latent)
    return [listen(r, beta, 1.0) for beta, r in told]


def test_no_alarm_while_the_weight_is_annealed_nor_from_one_validation():
    flat = record(kl=0.1, mi=0.1, active=0)
    assert heard((0.0, flat), (0.5, flat), (0.99, flat)) == [[], [], []]
    assert heard((0.5, flat), (1.0, flat)) == [[], []]
    assert not any(heard(*[(1.0, flat | {"step": step}) for step in (10, 40, 70, 99)]))
    # MI falls as the weight rises, as it should.
    falling = [(b, record(kl=9 - 5 * b, mi=7 - 4.5 * b)) for b in (0.0, 0.3, 0.6, 1.0, 1.0, 1.0)]
    assert not any(heard(*falling))


@pytest.mark.parametrize(
    ("series", "word"),
    [
        ([record(kl=0.1, mi=0.05, active=0)] * 2, "collapsed"),
        ([record(kl=6.0, mi=0.1, active=9)] * 2, "collapsed"),
        ([record(mi=4.0), record(kl=3.0, mi=1.9)], "less than half"),
        ([record(kl=8.0, mi=4.0)] * 2, "marginal"),
        ([record(elbo=-30), record(elbo=-31, kl=6.1, mi=5), record(elbo=-33, kl=7, mi=5.5)],
         "learns the training sentences"),
    ],
)  # fmt: skip
def test_each_alarm_is_told_once_in_one_line_with_its_fix(series, word):
    said = heard(*[(1.0, r) for r in [*series, series[-1], series[-1]]])
    told = [line for lines in said for line in lines]
    assert len(told) == 1
    assert word in told[0]
    assert said[len(series) - 1] == told
    assert "\n" not in told[0]
    assert any(fix in told[0] for fix in ("free_bits", "free bits", "prior.kind"))


def test_healthy_runs_and_language_models_are_left_in_peace():
    assert not any(heard(*[(1.0, record(elbo=-40 + i)) for i in range(9)]))
    silent = record(kl=0.0, mi=0.0, active=0)
    assert not any(heard(*[(1.0, silent)] * 5, latent=0))
    assert not alarms([], 1.0, 32)
    assert not any(heard(*[(1.0, record(elbo=NAN))] * 3))


def test_training_sounds_the_alarm(corpus, tmp_path):  # noqa: F811
    """No free bits and the full weight at once: the textbook way to collapse."""
    notes = []
    settings = [*FAST, "beta.kind=constant", "objective.free_bits=0.0", "training.max_steps=140"]
    settings += ["training.epochs=99", "training.patience=0", "optimizer.lr=0.003"]
    pipeline.train(
        corpus, tmp_path / "run", settings=settings,
        listener=lambda event, r: notes.append(r["text"]) if event == "note" else None,
    )  # fmt: skip
    assert min(r["kl"] for r in records(tmp_path / "run", "valid")[-2:]) < COLLAPSED
    assert len([n for n in notes if "collapsed" in n]) == 1


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("doctor")
    (home / "my text.txt").write_text("\n".join(f"{a} {b}" for a in "abcdefgh" for b in "stuvwxyz"))
    settings = [*FAST, "training.max_steps=20", "beta.kind=constant", "objective.free_bits=0.0"]
    pipeline.train(str(home / "my text.txt"), home / "run", settings=settings)
    return home / "run"


def test_the_command_says_it_for_people_and_for_programs(run, capsys):
    from test_cli import call

    before = sorted(p.name for p in run.iterdir())
    done = call(f"doctor {shlex.quote(str(run))} --json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    assert {"verdict", "reasons", "settings", "commands", "figures"} == set(found)
    assert found["verdict"] == "collapsed"
    assert found["figures"]["latent"] == 4
    text = call(f"doctor {shlex.quote(str(run))}").stdout.decode().splitlines()
    assert text[0] == "collapsed"
    # What is printed to be pasted is whole, on one line, and can be pasted.
    assert text[-1].strip() == found["commands"][0]
    pasted = call(found["commands"][0].removeprefix("midsentence ") + " --max-steps 2")
    assert pasted.returncode == 0, pasted.stderr
    held = tomllib.loads((run.with_name("run-2") / "config.toml").read_text())
    assert held["objective"]["free_bits"] == 2.0
    assert found["settings"]
    assert sorted(p.name for p in run.iterdir()) == before
    assert checkup.doctor(run).commands[0].count("run-3") == 1


def test_training_ends_with_the_doctors_verdict_and_its_first_command(run, tmp_path, capsys):
    out = tmp_path / "again"
    settings = [*FAST, "training.max_steps=2"]
    text = str(run.parent / "my text.txt")
    pipeline.train(text, out, settings=settings, listener=console.Training())
    found, said = checkup.doctor(out), capsys.readouterr().err.splitlines()
    assert f"verdict    {found.diagnosis.verdict}: {found.diagnosis.reasons[0]}" in said
    assert said[-1] == f"to try     {found.commands[0]}"


def test_the_report_says_what_the_doctor_says(run):
    found = pipeline.write_report(run)
    page = (run / "report.html").read_text("utf-8")
    assert "Posterior collapsed" in page
    assert checkup.doctor(run).diagnosis.reasons[0] in page
    assert found == checkup.doctor(run)


def test_the_report_calls_nothing_healthy_that_the_doctor_does_not():
    assert by_doctor(None) is None
    assert by_doctor(diagnose(FINE, TREE)) is None
    deaf = diagnose(replace(FINE, shuffled_gap=0.1, train_shuffled_gap=0.1), TREE)
    assert by_doctor(deaf).headline == "Posterior collapsed"
    assert by_doctor(deaf).level == "bad"
    assert by_doctor(diagnose(replace(FINE, outside=0.9), TREE)).headline == "Prior hole"


def test_the_doctor_is_reproducible_and_follows_its_seed(run):
    first, again, other = (checkup.doctor(run, seed=s).figures for s in (0, 0, 1))
    assert first == again
    assert first.kl != other.kl or first.shuffled_gap != other.shuffled_gap
