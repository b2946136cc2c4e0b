"""Schedules: how far training is -> a weight. Pure functions; the model never knows the step.

`progress` is the part of the budget that is used, 0 to 1: steps out of the planned steps, or time
out of the allowed time, whichever is further. So a run limited by minutes anneals as one limited
by epochs does, and a schedule of 10 epochs in a run of 40 is ``over = 0.25``.
"""

import math
from collections.abc import Callable
from functools import partial

from ..errors import UserError

Schedule = Callable[[float], float]


def constant(progress: float, *, value: float = 1.0) -> float:
    """The same weight throughout, beta(p) = `value`.

    At 1 the plain VAE (Kingma & Welling 2014), which collapses under a strong decoder; above 1
    beta-VAE (Higgins et al. 2017); below 1 a latent that carries more than the bound pays for,
    whose prior samples are then worse. Use it with free bits, or to see what annealing changes.

    value: the weight.
    """
    return value


def _ramp(progress: float, over: float) -> float:
    return min(1.0, progress / over) if over > 0 else 1.0


def linear(progress: float, *, start: float = 0.0, stop: float = 1.0, over: float = 0.3) -> float:
    """A straight line: start + (stop - start) min(1, p / `over`).

    Bowman et al. 2016, "Generating Sentences from a Continuous Space", section 3.1: the decoder
    learns to use z while z is cheap. The default. Alone it delays collapse more often than it
    prevents it, so it goes with free bits. The published text VAEs take 10 epochs over it.

    start: the weight at first. stop: in the end. over: the part of the run that it takes.
    """
    return start + (stop - start) * _ramp(progress, over)


def logistic(
    progress: float,
    *,
    start: float = 0.0,
    stop: float = 1.0,
    middle: float = 0.15,
    steepness: float = 12.0,
) -> float:
    """A sigmoid: start + (stop - start) / (1 + exp(-`steepness` (p - m) / 2m)), m = `middle`.

    Half-way at `middle`; the shape of Bowman et al. 2016, figure 2. The weight stays near `start`
    for longer than with a line and then rises fast: for decoders that need a while to begin.

    start: the weight at first. stop: in the end. middle: the part of the run after which it is
    half-way. steepness: how fast it rises there.
    """
    if middle <= 0:
        return stop
    below = -steepness * (progress - middle) / middle / 2
    return start + (stop - start) / (1 + math.exp(min(700.0, below)))  # short of overflow


def cosine(progress: float, *, start: float = 0.0, stop: float = 1.0, over: float = 0.3) -> float:
    """Half a cosine: start + (stop - start) (1 - cos(pi min(1, p / `over`))) / 2.

    As `linear`, with soft ends: for runs whose bound jumps where the line ends (Fu et al. 2019
    compare the shapes).

    start: the weight at first. stop: in the end. over: the part of the run that it takes.
    """
    return start + (stop - start) * (1 - math.cos(math.pi * _ramp(progress, over))) / 2


def cyclical(
    progress: float,
    *,
    start: float = 0.0,
    stop: float = 1.0,
    cycles: int = 4,
    ratio: float = 0.5,
) -> float:
    """`cycles` times a line over the part `ratio` of a cycle, then `stop` for the rest of it.

    Fu et al. 2019, "Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing",
    eq. 6-7. Each cycle begins from a latent that already means something, so it ends with more
    information than one annealing does; the bound goes down at the start of each, and early
    stopping counts only validations at full weight. Raises UserError for fewer than one cycle.

    start: the weight where a line begins. stop: where it ends. cycles: lines in a run. ratio: the
    part of a cycle that the line takes.
    """
    if cycles < 1:
        raise UserError("beta.cycles must be at least 1; for no annealing use beta.kind=constant")
    place = 1.0 if progress >= 1 else (progress * cycles) % 1.0
    return start + (stop - start) * _ramp(place, ratio)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "logistic": logistic,
    "cosine": cosine,
    "cyclical": cyclical,
}


def warm_cosine(progress: float, *, warmup: float, floor: float) -> float:
    """Factor on the learning rate: up in a line over `warmup`, then half a cosine to `floor`."""
    return progress / warmup if progress < warmup else hold_cosine(progress, warmup, floor)


def hold_cosine(progress: float, hold: float, floor: float) -> float:
    """Factor on the learning rate: 1 over the part `hold`, then half a cosine to `floor`."""
    done = max(0.0, progress - hold) / (1 - hold) if hold < 1 else 0.0
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def schedule(kind: str, **settings: float) -> Schedule:
    """The schedule `kind` with its settings fixed. Raises UserError for ones that mean nothing."""
    found = partial(SCHEDULES[kind], **settings)
    found(0.0)
    return found
