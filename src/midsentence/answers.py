"""What a latent space is found to hold: what `Space` answers with."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Written:
    """Written from z. beyond: the share of held-out sentences that are nearer to the data than z;
    far: whether that is more than `space.FAR`. t: where on its way."""

    text: str
    z: Float[Tensor, "D"]
    beyond: float
    far: bool
    t: float = 0.0


@dataclass(frozen=True)
class Neighbour:
    """A training sentence and its Euclidean distance."""

    text: str
    distance: float
    label: str | None = None


@dataclass(frozen=True)
class Outlier:
    """nll: -log p(x), nats; tokens counts ``</s>``. distance: -log q(z) at its posterior mean,
    nats; beyond: the share of held-out sentences whose distance is less."""

    text: str
    nll: float
    tokens: int
    distance: float
    beyond: float
    far: bool


@dataclass(frozen=True)
class Cluster:
    """centre: what is written from its mean. examples: its sentences nearest to that."""

    size: int
    centre: Written
    examples: list[str]
