"""How long runs are, and how often they are validated."""

import pytest

from midsentence.learning.planning import plan
from midsentence.sections import TrainingSettings


def planned(per_epoch, **settings):
    found = plan(TrainingSettings(**settings), per_epoch)
    assert found.per_epoch == per_epoch
    return found.steps, found.every


@pytest.mark.parametrize(
    "per_epoch, steps, every",
    [
        (1, 2000, 50),  # forty validations
        (3, 2000, 50),
        (99, 2000, 99),  # one an epoch
        (100, 2000, 100),
        (1243, 24_860, 1243),
        (1_000_000, 20_000_000, 1_000_000),
    ],
)
def test_a_run_has_twenty_epochs_and_at_least_two_thousand_steps(per_epoch, steps, every):
    assert planned(per_epoch) == (steps, every)


def test_what_is_said_holds():
    assert planned(3, epochs=20) == (60, 3)
    assert planned(3, epochs=0.5) == (2, 1)
    assert planned(3, epochs=400) == (1200, 3)  # epochs that were asked for are looked at
    assert planned(3, epochs=400, validations=1) == (1200, 3)
    assert planned(300, validations=0.5) == (6000, 600)
    assert planned(300, validations=2) == (6000, 150)


def test_a_run_is_validated_eight_times_at_least():
    assert planned(1000, epochs=2) == (2000, 250)
    assert planned(1000, validations=0.001) == (20_000, 2500)
    assert planned(3, max_steps=5) == (5, 1)


def test_steps_are_a_limit():
    assert planned(3, max_steps=600) == (600, 15)
    assert planned(15)[0] == planned(97)[0] == 2000
    assert planned(300, max_steps=9000) == (6000, 300)
