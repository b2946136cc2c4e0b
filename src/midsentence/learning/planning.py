"""How long a run is, and how often it looks at sentences that it does not learn from."""

import math
from dataclasses import dataclass

from ..sections import TrainingSettings

LEAST_EPOCHS = 20
LEAST_STEPS = 2000
"""Of a run that nobody gave a length: a latent needs so many steps, however few the sentences."""

LEAST_VALIDATIONS, MOST_VALIDATIONS = 8, 40
"""A run, by itself. Epochs of a step or two are no measure: five validations are soon over."""


@dataclass(frozen=True)
class Plan:
    """Steps of a run: an epoch, the whole of it, and from one validation to the next."""

    per_epoch: int
    steps: int
    every: int


def plan(settings: TrainingSettings, per_epoch: int) -> Plan:
    """What the settings say of a corpus that is `per_epoch` batches."""
    if settings.epochs:
        steps = math.ceil(settings.epochs * per_epoch)
    else:
        steps = max(LEAST_EPOCHS * per_epoch, LEAST_STEPS)
    steps = min(steps, settings.max_steps or steps)
    often = per_epoch / (settings.validations or 1)
    if settings.epochs is None and settings.validations is None:
        often = max(often, steps / MOST_VALIDATIONS)
    every = max(1, math.ceil(min(often, steps / LEAST_VALIDATIONS)))
    return Plan(per_epoch, steps, every)
