"""Moving about in the latent space: paths, densities, clusters. Tensors in, tensors out."""

import json
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import UserError
from .learning.kinds import centred, spread_out
from .parts.priors import Gaussians
from .text.readers import raw_lines, shown

Name = TypeVar("Name", bound=Hashable)


def linear(a: Float[Tensor, "D"], b: Float[Tensor, "D"], steps: int) -> Float[Tensor, "S D"]:
    """`steps` points on the straight line from a to b, both ends among them."""
    t = torch.linspace(0, 1, steps, device=a.device)[:, None]
    return a + t * (b - a)


def spherical(a: Float[Tensor, "D"], b: Float[Tensor, "D"], steps: int) -> Float[Tensor, "S D"]:
    """`steps` points on the great circle from a to b (Shoemake 1985; White 2016).

    In many dimensions a Gaussian's mass lies on a shell, which the straight line leaves. The
    lengths of a and b are interpolated in a line; parallel points fall back on `linear`.
    """
    t = torch.linspace(0, 1, steps, device=a.device)[:, None]
    lengths = a.norm(), b.norm()
    if min(lengths) == 0:
        return linear(a, b, steps)
    cosine = (a @ b / (lengths[0] * lengths[1])).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if torch.sin(angle) < 1e-4:
        return linear(a, b, steps)
    ways = torch.sin((1 - t) * angle) * a / lengths[0] + torch.sin(t * angle) * b / lengths[1]
    return ways / torch.sin(angle) * (lengths[0] + t * (lengths[1] - lengths[0]))


PATHS = {"linear": linear, "spherical": spherical}
DENSITY = "density"


def path(
    kind: str, a: Tensor, b: Tensor, steps: int, *, sphere: bool = False
) -> Float[Tensor, "S D"]:
    """Points from a to b; put back on the `sphere` where z is on it. Raises UserError for fewer
    than 2 steps or an unknown kind."""
    if steps < 2:
        raise UserError("an interpolation needs at least 2 steps: its two ends")
    if kind == DENSITY:
        raise UserError("a path along the density needs sentences: open the run as a Space")
    if kind not in PATHS:
        raise UserError(f"path {kind!r} is not one of {', '.join(PATHS)}, {DENSITY}")
    points = PATHS[kind](a, b, steps)
    return unit(points) if sphere else points


def unit(z: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """z put back on the unit sphere, along its own ray."""
    return z / z.norm(dim=-1, keepdim=True).clamp_min(1e-12)


LEAST_VARIANCE = 1e-6
"""Of a posterior; a collapsed one would make log q(z) infinite."""

ROOM = 1 << 24
"""Numbers in the arrays of points x sentences that are held at once."""


class Aggregate:
    """The aggregate posterior of N sentences, q(z) = (1/N) sum_n N(z; mu_n, diag(v_n)); nats.

    mean, variance: of each sentence's posterior, which is matched by these two moments where it
    isn't a diagonal Gaussian. On the sphere v = 1/kappa makes it a mixture of von Mises-Fisher laws
    up to a constant. Hoffman & Johnson 2016, "ELBO Surgery"; Makhzani et al. 2016.
    """

    def __init__(self, mean: Float[Tensor, "N D"], variance: Float[Tensor, "N D"]):
        self.mean = mean.double()
        variance = variance.double().clamp_min(LEAST_VARIANCE)
        self.precision = 1 / variance
        self.law = Gaussians(self.mean.new_zeros(len(mean)), self.mean, variance.sqrt())

    def log_density(self, z: Float[Tensor, "S D"]) -> Float[Tensor, "S"]:
        return self.law.log_prob(z.double())

    def shifted(self, z: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
        """One step of mean shift, which never lowers q(z).

        z' = (sum_n r_n V_n^-1)^-1 sum_n r_n V_n^-1 mu_n with r_n the share of q(z) that sentence n
        has. Carreira-Perpinan 2007, "Gaussian Mean-Shift Is an EM Algorithm".
        """
        pulls, moved = self.mean * self.precision, []
        for some in z.split(max(1, ROOM // len(self.mean))):
            share = self.law.parts(some).softmax(1)
            moved.append((share @ pulls) / (share @ self.precision))
        return torch.cat(moved).to(z)


KNOTS, ROUNDS = 32, 100


def along_density(
    q: Aggregate, a: Float[Tensor, "D"], b: Float[Tensor, "D"], steps: int, *, sphere: bool = False
) -> Float[Tensor, "S D"]:
    """`steps` evenly spaced points on a short way from a to b through where sentences are.

    The way minimises the length under which a step is the longer the thinner the data, the
    integral of q(z)^(-1/D) |dz| (Fermat distance: Groisman, Jonckheere & Sapienza 2022, alpha = 2):
    a polyline of `KNOTS` points descends the geodesic energy, the sum of its parts' squared
    lengths, for `ROUNDS` steps of Adam, spaced evenly after each of the first half of them, as in
    the string method (E, Ren & Vanden-Eijnden 2007), and at the end. Begun from the straight line,
    and from that line drawn to the data by a mean shift; the polyline of the least energy is kept,
    so it's never worse than the straight one.
    """
    straight = (spherical if sphere else linear)(a, b, max(steps, KNOTS)).double()
    if not (b - a).any():
        return straight[:steps].to(a)
    top = q.log_density(straight[[0, -1]]).max()

    def energy(way: Tensor) -> Tensor:
        middle = (way[1:] + way[:-1]) / 2
        thin = (top - q.log_density(middle)) / way.shape[1]
        return ((way[1:] - way[:-1]).square().sum(1) * (2 * thin.clamp(max=30)).exp()).sum()

    best, least = straight, energy(straight).item()
    for start in (straight, spaced(q.shifted(straight), len(straight))):
        inner = start[1:-1].clone().requires_grad_()
        # The energy begins orders of magnitude too high; a long memory of it would stop us.
        descent = torch.optim.Adam([inner], betas=(0.9, 0.9))
        for turn in range(ROUNDS):
            # From a fiftieth of the whole way down to nothing, or the knots would never settle.
            descent.param_groups[0]["lr"] = float((b - a).norm()) / 50 * (1 - turn / ROUNDS)
            with torch.enable_grad():
                way = torch.cat([straight[:1], inner, straight[-1:]])
                found = energy(way)
            if found.item() < least:
                best, least = way.detach(), found.item()
            inner.grad = torch.autograd.grad(found.log(), inner)[0]
            descent.step()
            with torch.no_grad():
                way = torch.cat([straight[:1], inner, straight[-1:]])
                # At first knots would overtake each other; later, spacing them cuts corners.
                way = spaced(way, len(way)) if turn < ROUNDS // 2 else way
                inner.copy_((unit(way) if sphere else way)[1:-1])
    even = spaced(best, steps).to(a)
    return unit(even) if sphere else even


def spaced(points: Float[Tensor, "P D"], steps: int) -> Float[Tensor, "S D"]:
    """`steps` points at even distances along a polyline, both its ends among them."""
    parts = (points[1:] - points[:-1]).norm(dim=1)
    along = torch.cat([parts.new_zeros(1), parts.cumsum(0)])
    goal = torch.linspace(0, 1, steps, dtype=along.dtype, device=along.device) * along[-1]
    right = torch.searchsorted(along, goal).clamp(1, len(points) - 1)
    share = (goal - along[right - 1]) / parts[right - 1].clamp_min(1e-12)
    return torch.lerp(points[right - 1], points[right], share.clamp(0, 1)[:, None])


def nearest(
    z: Float[Tensor, "S D"], points: Float[Tensor, "N D"], count: int
) -> tuple[Float[Tensor, "S K"], Int[Tensor, "S K"]]:
    """Euclidean distances to the `count` nearest points, ascending, and which; exact."""
    found = [
        torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").topk(
            min(count, len(points)), largest=False
        )
        for part in z.split(max(1, ROOM // len(points)))
    ]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_unlike(
    z: Float[Tensor, "D"],
    points: Float[Tensor, "N D"],
    count: int,
    names: Callable[[list[int]], Sequence[Name]],
) -> dict[Name, float]:
    """The `count` names nearest to z and how far they are, the nearest first. names: rows of the
    points -> what they are called; copies, which have one name, would push the others out."""
    asked = count
    while True:
        distance, row = (found[0].tolist() for found in nearest(z[None], points, asked))
        found: dict[Name, float] = {}
        for name, far in zip(names(row), distance, strict=True):
            found.setdefault(name, far)
        if len(found) >= count or asked >= len(points):
            return dict(islice(found.items(), count))
        asked *= 8


def kmeans(
    points: Float[Tensor, "N D"], count: int, *, seed: int = 0, sphere: bool = False
) -> tuple[Float[Tensor, "C D"], Int[Tensor, "N"]]:
    """(centres, each point's cluster): Lloyd's algorithm from k-means++, to a standstill.

    On the sphere the centres are put back on it (Dhillon & Modha 2001, spherical k-means).
    Raises UserError where there are fewer points than clusters.
    """
    if not 1 <= count <= len(points):
        raise UserError(f"{len(points)} sentences make 1 to {len(points)} clusters, not {count}")
    # Of its own: the global generator is everybody's, and requests come in threads.
    chance = torch.Generator(points.device).manual_seed(seed)
    centres = spread_out(points, count, chance)
    label = nearest(points, centres, 1)[1][:, 0]
    for _ in range(100):
        centres, _ = centred(points, label, centres)
        centres = unit(centres) if sphere else centres
        before, label = label, nearest(points, centres, 1)[1][:, 0]
        if torch.equal(before, label):
            break
    return centres, label


def read_latents(source: str) -> Float[Tensor, "N D"]:
    """Latents from an .npy file, or from JSON lines (arrays, or objects with a "z").

    Raises UserError naming the line that is neither.
    """
    if source.endswith(".npy"):
        try:
            array = np.load(source, allow_pickle=False)
            found = torch.from_numpy(np.atleast_2d(array).astype(np.float32))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise UserError(f"{source} cannot be read as an .npy array: {error}") from None
        if not found.numel():
            raise UserError(f"{source} holds no latents")
        return found
    rows, name = [], shown(source)
    for number, line in raw_lines(source):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            row = content["z"] if isinstance(content, dict) else content
            if not isinstance(row, list):
                raise ValueError("no list")
            rows.append([float(value) for value in row])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise UserError(f'{name}:{number}: expected [1, 2, ..] or {{"z": [..]}}') from None
    if not rows:
        raise UserError(f"{name} holds no latents")
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{name}: the latents are not all of one length")
    return torch.tensor(rows)
