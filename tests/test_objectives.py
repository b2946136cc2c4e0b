"""Objectives and schedules against values worked out by hand."""

import math

import pytest
import torch

from midsentence.errors import UserError
from midsentence.learning.objectives import Elbo
from midsentence.learning.schedules import SCHEDULES, schedule, warm_cosine
from midsentence.measuring.alarms import settled
from tiny import batch, tiny


def made_up(kl, log_px=((-7.0, -5.0), (-9.0, -5.0))):
    """A pass with these numbers: K = 2 samples, B = 2 sentences."""
    run = tiny().run(batch((2, 3)), 2)
    run.log_px = torch.tensor(log_px)
    run.__dict__["kl"] = kl
    return run


KL = torch.tensor([[0.1, 1.0], [0.5, 0.0]])  # batch means 0.3 and 0.5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [-8 - 1.1, -5 - 0.5]),
        ({"beta": 0.0}, [-8, -5]),
        ({"beta": 2.0}, [-8 - 2.2, -5 - 1.0]),
        # lambda 0.4: dimension 0 (mean 0.3) costs 0.4 for everyone, dimension 1 what it costs.
        ({"free_bits": 0.4, "form": "batch"}, [-8 - 0.4 - 1.0, -5 - 0.4 - 0.0]),
        ({"free_bits": 0.4, "form": "dimension"}, [-8 - 0.4 - 1.0, -5 - 0.5 - 0.4]),
        ({"free_bits": 0.7, "form": "sentence"}, [-8 - 1.1, -5 - 0.7]),
        ({"free_bits": 0.4, "form": "batch", "beta": 0.5}, [-8 - 0.7, -5 - 0.2]),
    ],
)
def test_elbo_and_the_three_free_bits(settings, expected):
    beta = settings.get("beta", 1.0)
    own = {"free_bits": 0} | {k: v for k, v in settings.items() if k != "beta"}
    found = Elbo(**own)(made_up(KL), beta)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("batch", [[0, 1], [0, 1]]), ("dimension", [[0, 1], [1, 0]]), ("sentence", [[1, 1], [0, 0]])],
)
def test_free_nats_get_no_gradient(form, expected):
    kl = KL.clone().requires_grad_()
    floor = 0.7 if form == "sentence" else 0.4
    Elbo(free_bits=floor, form=form)(made_up(kl)).sum().backward()
    assert (-kl.grad).tolist() == expected


def test_bag_of_words_has_its_own_weight():
    vae = tiny(objective={"bow": 0.3})
    run = vae.run(batch(), 2)
    plain, with_bow = Elbo(free_bits=0)(run), Elbo(free_bits=0, bow=0.3)(run)
    assert torch.allclose(with_bow - plain, 0.3 * run.log_bow.mean(0))
    with pytest.raises(UserError, match="bag-of-words"):
        Elbo(free_bits=0, bow=0.3)(tiny().run(batch()))


def test_what_is_reported_does_not_depend_on_the_objective():
    vae = tiny()
    outcomes = []
    for objective in (Elbo(free_bits=0), Elbo(free_bits=1.0, form="sentence")):
        torch.manual_seed(3)
        outcomes.append(vae(batch(), 2, objective))
    assert torch.equal(outcomes[0]["log_px"], outcomes[1]["log_px"])
    assert torch.equal(outcomes[0]["kl"], outcomes[1]["kl"])
    assert not torch.equal(outcomes[0]["objective"], outcomes[1]["objective"])


@pytest.mark.parametrize(
    ("kind", "settings", "points"),
    [
        ("constant", {"value": 0.7}, {0: 0.7, 0.5: 0.7, 1: 0.7}),
        ("linear", {"over": 0.4}, {0: 0, 0.1: 0.25, 0.4: 1, 1: 1}),
        ("linear", {"start": 0.1, "stop": 0.5, "over": 0.5}, {0: 0.1, 0.25: 0.3, 1: 0.5}),
        ("linear", {"over": 0}, {0: 1, 1: 1}),
        ("logistic", {"middle": 0.2}, {0.2: 0.5}),
        ("logistic", {"middle": 0}, {0: 1, 1: 1}),
        ("cosine", {"over": 0.5}, {0: 0, 0.25: 0.5, 0.5: 1, 1: 1}),
        ("cyclical", {"cycles": 2}, {0: 0, 0.125: 0.5, 0.3: 1, 0.5: 0, 0.625: 0.5, 1: 1}),
    ],
)
def test_schedules_at_known_points(kind, settings, points):
    weight = schedule(kind, **settings)
    for progress, expected in points.items():
        assert weight(progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_ends_near_its_stop(kind):
    weight = schedule(kind)
    assert weight(1.0) == pytest.approx(1.0, abs=1e-6)
    assert all(0 <= weight(i / 50) <= 1 for i in range(51))
    assert settled(weight(0.99), weight(1.0))
    assert kind == "constant" or not settled(weight(0.05), weight(1.0))


def test_learning_rate_rises_falls_and_ends_at_its_floor():
    rate = [warm_cosine(p, warmup=0.1, floor=0.02) for p in (0, 0.05, 0.1, 0.55, 1)]
    assert rate == pytest.approx([0, 0.5, 1, 0.51, 0.02])
    assert not math.isnan(warm_cosine(0.5, warmup=0.0, floor=0.0))
