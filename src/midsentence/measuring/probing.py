"""What can be read off z: labels by a linear probe, known factors one by one.

y: (N,) class numbers from 0. Everything in float64; all figures but MIG's parts are shares, 0 to 1.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

BINS = 20
"""Of each dimension, where its information about a factor is counted."""


class Probe:
    """Multinomial logistic regression on standardised z, weights ~ N(0, I) (Alain & Bengio 2017,
    "Understanding intermediate layers using linear classifier probes")."""

    def __init__(self, z: Float[Tensor, "N D"], y: Int[Tensor, "N"], classes: int):
        z = z.double()
        self.loc, self.scale = z.mean(0), z.std(0).clamp_min(1e-8)
        u = (z - self.loc) / self.scale

        def value(both: Tensor) -> Tensor:
            weight, bias = both[:, :-1], both[:, -1]
            prior = 0.5 * weight.square().sum() / len(z)
            return -cross_entropy(u @ weight.T + bias, y) - prior

        found = greatest(value, u.new_zeros(classes, z.shape[1] + 1))
        self.weight, self.bias = found[:, :-1], found[:, -1]

    def accuracy(self, z: Float[Tensor, "N D"], y: Int[Tensor, "N"]) -> float:
        u = (z.double() - self.loc) / self.scale
        return float(((u @ self.weight.T + self.bias).argmax(1) == y).double().mean())

    @property
    def importance(self) -> Float[Tensor, "D"]:
        """How much each dimension moves the logits, standardised: mean |weight| over classes, as a
        share of all dimensions', or what is easy to read would count for more than what is hard."""
        moved = (self.weight - self.weight.mean(0)).abs().mean(0)
        return moved / moved.sum().clamp_min(1e-300)


def greatest(value: Callable[[Tensor], Tensor], begin: Float[Tensor, "*D"]) -> Float[Tensor, "*D"]:
    """Where a concave function is greatest (L-BFGS)."""
    found = begin.clone().requires_grad_()
    descent = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        with torch.enable_grad():
            lost = -value(found)
        found.grad = torch.autograd.grad(lost, found)[0]
        return lost.detach()

    descent.step(loss)
    return found.detach()


def entropy(y: Int[Tensor, "N"]) -> float:
    shares = torch.bincount(y).double() / len(y)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())


def information(a: Int[Tensor, "N"], b: Int[Tensor, "N"]) -> float:
    """I(a; b) in nats, of the counts themselves."""
    return entropy(a) + entropy(b) - entropy(a * (int(b.max()) + 1) + b)


def mig(z: Float[Tensor, "N D"], factors: list[Int[Tensor, "N"]]) -> float:
    """Mutual information gap: how far one dimension is ahead of the next in telling a factor.

    Chen et al. 2018, "Isolating Sources of Disentanglement in VAEs", eq. 6: the difference of the
    two largest I(z_d; factor) over H(factor), a mean over the factors that vary. 1: each factor has
    a dimension of its own; 0: two tell the same of it, or none anything. z are posterior means (the
    paper draws from q(z|x)), each dimension cut in `BINS` parts of as many sentences each.
    """
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
    columns = z.double().T.contiguous()
    binned = [torch.bucketize(column, column.quantile(edges)) for column in columns]
    gaps = []
    for factor in factors:
        told = sorted((information(b, factor) for b in binned), reverse=True)
        if entropy(factor) > 0:
            gaps.append((told[0] - (told[1] if len(told) > 1 else 0.0)) / entropy(factor))
    return sum(gaps) / len(gaps) if gaps else math.nan


def dci(importance: Float[Tensor, "D F"]) -> tuple[float, float]:
    """(disentanglement, completeness) of the importances of D dimensions for F factors.

    Eastwood & Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled
    Representations", section 2; with `Probe.importance` in place of a lasso's. Disentanglement: a
    dimension is about one factor, weighted by how much it is about any. Completeness: a factor is
    in one dimension; nan if nothing is important for any. 1 less an entropy to the base of how many
    there are.
    """

    def purity(shares: Tensor) -> Tensor:
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-300)
        many = math.log(shares.shape[1]) if shares.shape[1] > 1 else 1.0
        return 1 + (shares * shares.clamp_min(1e-300).log()).sum(1) / many

    held = importance.double()
    weight = held.sum(1) / held.sum().clamp_min(1e-300)
    told = held.sum(0) > 0  # a factor that nothing is important for, as one of a single value
    return float((weight * purity(held)).sum()), float(purity(held.T)[told].mean())
