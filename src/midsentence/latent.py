"""Moving about in the latent space."""

import json

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .errors import UserError
from .text.readers import raw_lines


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


def path(kind: str, a: Tensor, b: Tensor, steps: int) -> Float[Tensor, "S D"]:
    """Points from a to b. Raises UserError for fewer than 2 steps or an unknown kind."""
    if steps < 2:
        raise UserError("an interpolation needs at least 2 steps: its two ends")
    if kind not in PATHS:
        raise UserError(f"path {kind!r} is not one of {', '.join(PATHS)}")
    return PATHS[kind](a, b, steps)


def read_latents(source: str) -> Float[Tensor, "N D"]:
    """Latents from an .npy file, or from JSON lines (arrays, or objects with a "z").

    Raises UserError naming the line that is neither.
    """
    if source.endswith(".npy"):
        try:
            array = np.load(source, allow_pickle=False)
            return torch.from_numpy(np.atleast_2d(array).astype(np.float32))
        except (OSError, ValueError) as error:
            raise UserError(f"{source} cannot be read as an .npy array: {error}") from None
    rows = []
    for number, line in raw_lines(source):
        try:
            content = json.loads(line)
            row = content["z"] if isinstance(content, dict) else content
            rows.append([float(value) for value in row])
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{source}:{number}: expected [1, 2, ..] or {{"z": [..]}}') from None
    if not rows:
        raise UserError(f"{source} holds no latents")
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{source}: the latents are not all of one length")
    return torch.tensor(rows)
