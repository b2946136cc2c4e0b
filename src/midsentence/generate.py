"""Writing: latents -> sentences of ids, by sampling, greedily or with a beam.

One loop over the decoder's `start` and `step`. Finished sentences leave the batch. What a sentence
becomes depends on its z, the seed and its place in the request, never on the batch size.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .errors import UserError
from .parts.decoders import State, select
from .parts.head import Writer
from .parts.log_softmax import BLOCK
from .seeds import WORDS, seed_of, seeded
from .text.tokenizer import BOS, EOS
from .vae import VAE

MOST_WORDS = 100_000
"""That a sentence may be asked to have."""


@dataclass(frozen=True)
class Decoding:
    """How words are chosen. The defaults draw from the model's own distribution.

    greedy: the likeliest word each time. beam: keep this many prefixes and return the likeliest
    sentence found (0: no beam). temperature: divides the logits. top_k: only the k likeliest words.
    top_p: only the likeliest words that make up this much probability (nucleus: Holtzman et al.
    2020). typical: only the words whose surprise is nearest the entropy, up to this much
    probability (Meister et al. 2023, "Locally Typical Sampling"). max_length: words at most.
    Raises UserError for values that mean nothing.
    """

    greedy: bool = False
    beam: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical: float = 1.0
    max_length: int = 256

    def __post_init__(self) -> None:
        if not 1e-3 <= self.temperature <= 1e3:
            raise UserError(
                "temperature must be from 0.001 to 1000; for the likeliest words use greedy"
            )
        if not (0 < self.top_p <= 1 and 0 < self.typical <= 1):
            raise UserError("top-p and typical are probabilities: above 0 and at most 1")
        if self.top_k < 0 or self.beam < 0 or not 1 <= self.max_length <= MOST_WORDS:
            raise UserError(
                f"top-k and beam cannot be negative, max-length must be from 1 to {MOST_WORDS:,}"
            )


def greedily(decoding: dict[str, Any]) -> dict[str, Any]:
    """`Decoding`'s settings, greedy where they say nothing of how words are chosen."""
    return {"greedy": True, **decoding} if decoding.keys() <= {"max_length"} else decoding


def prior_sample(
    vae: VAE, count: int, seed: int, labels: Int[Tensor, "N"] | None = None
) -> Float[Tensor, "N D"]:
    """`count` latents from p(z), or p(z|label); the global random state is left alone."""
    with seeded(seed, vae.device), torch.no_grad():
        p = vae.prior_of(labels, count)
        return p.sample(torch.Size([] if p.batch_shape else [count]))


class Chances:
    """The random numbers that words are drawn by, a row for each sentence, and for all words it may
    have: how the rows are batched cannot matter. Rows of nothing where nothing is drawn."""

    def __init__(self, how: Decoding, seed: int):
        self.width = 0 if how.greedy or how.beam else how.max_length
        self.generator = torch.Generator().manual_seed(seed_of(seed, WORDS))

    def next(self, count: int) -> Float[Tensor, "N T"]:
        """Those of so many more sentences."""
        return torch.rand(count, self.width, generator=self.generator)


@torch.no_grad()
def generate(
    vae: VAE,
    z: Float[Tensor, "N D"],
    how: Decoding,
    *,
    labels: Int[Tensor, "N"] | None = None,
    seed: int = 0,
    chance: Float[Tensor, "N T"] | None = None,
    batch: int | None = None,
) -> list[list[int]]:
    """Write one sentence for each latent: ids without ``<s>`` and ``</s>``, in order. chance: the
    random numbers, in place of `Chances` by `seed`. batch: latents together, by default as many as
    the decoder has room for."""
    training = vae.training
    vae.eval()
    chance = Chances(how, seed).next(len(z)) if chance is None else chance
    z, chance = vae.joined(z, labels), chance.to(vae.device)
    batch = batch or max(1, vae.decoder.many // max(1, how.beam))
    try:
        written: list[list[int]] = []
        for part, row in zip(z.split(batch), chance.split(batch), strict=True):
            written += _beam(vae, part, how) if how.beam else _write(vae, part, how, row)
        return written
    finally:
        vae.train(training)


def _write(vae: VAE, z: Float[Tensor, "N D"], how: Decoding, chance: Tensor) -> list[list[int]]:
    state, head = vae.decoder.start(z), vae.head.writer()
    words = torch.full((len(z), 1), BOS, device=z.device)
    written = torch.full((len(z), how.max_length), EOS, device=z.device)
    rows = torch.arange(len(z), device=z.device)
    for place in range(how.max_length):
        hidden, state = vae.decoder.step(words, state)
        lots = chance[rows].split(head.rows)
        chosen = torch.cat(
            [
                _likeliest(head, h, logits, 1)[1][:, 0]
                if how.greedy
                else draw(truncate(logits, how), lot[:, place])
                for (h, logits), lot in zip(head.parts(hidden[:, -1]), lots, strict=True)
            ]
        )
        written[rows, place] = chosen
        going = chosen != EOS
        if not going.any():
            break
        if not going.all():
            state, rows, chosen = select(state, going), rows[going], chosen[going]
        words = chosen[:, None]
    return [_until_end(line) for line in written.tolist()]


def truncate(logits: Float[Tensor, "N V"], how: Decoding) -> Float[Tensor, "N V"]:
    """What `how` draws from: weights, which need not sum to 1. `logits` is overwritten."""
    if how.temperature != 1:
        logits.div_(how.temperature)
    weights = torch.softmax(logits, -1, out=logits)
    if how.top_k:
        kept, words = top(weights, min(how.top_k, weights.shape[-1]))
        weights = torch.zeros_like(weights).scatter(1, words, kept)  # of equals no more than k
    if how.top_p < 1:
        weights = _until_mass(weights, -weights, how.top_p)
    if how.typical < 1:
        probabilities = weights / weights.sum(-1, keepdim=True)
        surprise = -probabilities.clamp_min(1e-38).log()
        entropy = (probabilities * surprise).sum(-1, keepdim=True)
        distance = (surprise - entropy).abs().where(weights > 0, torch.inf)
        weights = _until_mass(weights, distance, how.typical)
    return weights


def _until_mass(weights: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keep words in ascending `order` until they hold `mass` of what there is; at least one."""
    ranks = order.argsort(dim=-1, stable=True)
    ranked = weights.gather(-1, ranks)
    before = ranked.cumsum(-1) - ranked
    kept = ranked.where(before < mass * ranked.sum(-1, keepdim=True), 0)
    kept[:, 0] = ranked[:, 0]
    return torch.zeros_like(weights).scatter(-1, ranks, kept)


def draw(weights: Float[Tensor, "N V"], chance: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """Inverse-CDF sampling: one uniform number a row, so a row's word is its own affair.

    First the block of words, then the word in it: the whole vocabulary is read once and nothing
    of its size is written.
    """
    blocks = _blocks(weights, 0.0)
    sums = blocks.sum(-1)
    mass = sums.double().cumsum(1)
    goal = chance.double()[:, None] * mass[:, -1:]
    block = torch.searchsorted(mass, goal, right=True).clamp_max(mass.shape[1] - 1)
    inner = _opened(blocks, block).double().cumsum(1)
    # Sums of a block made in different orders differ in the last digits: stay inside the block.
    left = goal - (mass - sums).gather(1, block)
    left = torch.minimum(left.clamp_min(0), inner[:, -1:] * (1 - 1e-12))
    return (block * BLOCK + torch.searchsorted(inner, left, right=True)).squeeze(1)


def top(values: Float[Tensor, "N V"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k greatest of each row and where they stand, in descending order.

    They are in the k blocks of the greatest maxima, which one quick pass finds; a `topk` over the
    whole vocabulary takes longer than making it.
    """
    if values.shape[1] <= 2 * k * BLOCK:
        found, place = values.topk(k)
        return found, place
    blocks = _blocks(values, -torch.inf)
    chosen = blocks.amax(-1).topk(k).indices
    found, place = _opened(blocks, chosen).topk(k)
    return found, chosen.gather(1, place // BLOCK) * BLOCK + place % BLOCK


SPARE = 3
"""Words looked at again beyond those asked for."""


def _blocks(values: Float[Tensor, "N V"], outside: float) -> Float[Tensor, "N C W"]:
    """Blocks of words, a view where they are whole; `outside` beyond the last word."""
    spare = -values.shape[1] % BLOCK
    whole = F.pad(values, (0, spare), value=outside) if spare else values
    return whole.unflatten(1, (-1, BLOCK))


def _opened(blocks: Float[Tensor, "N C W"], some: Int[Tensor, "N K"]) -> Float[Tensor, "N L"]:
    """The words of some blocks of each row."""
    rows = torch.arange(len(blocks), device=blocks.device)[:, None]
    return blocks[rows, some].flatten(1)


def _beam(vae: VAE, z: Float[Tensor, "N D"], how: Decoding) -> list[list[int]]:
    """Beam search for all rows at once. Scores are log-probabilities, so they only fall: a row is
    done when its best finished sentence beats its best open prefix."""
    count, width = len(z), how.beam
    if not count:
        return []
    state, head = _repeat(vae.decoder.start(z), width), vae.head.writer()
    # One live prefix a row to begin with, or the beam would hold `width` copies of it.
    scores = z.new_full((count, width), -torch.inf)
    scores[:, 0] = 0
    prefixes = torch.full((count, width, 1), BOS, device=z.device)
    best = z.new_full((count,), -torch.inf)
    found: list[list[int]] = [[] for _ in range(count)]
    rows = torch.arange(count, device=z.device)
    for place in range(how.max_length + 1):
        hidden, state = vae.decoder.step(prefixes[:, :, -1].reshape(-1, 1), state)
        parts = [_continuations(head, *part, width) for part in head.parts(hidden[:, -1])]
        ending, next_scores, words = (torch.cat(column) for column in zip(*parts, strict=True))
        ended, which = (scores + ending.view_as(scores)).max(1)
        for row in (ended > best[rows]).nonzero().flatten().tolist():
            found[int(rows[row])] = prefixes[row, which[row], 1:].tolist()
        best[rows] = torch.maximum(best[rows], ended)
        if place == how.max_length:
            break  # a sentence of so many words may end, but not go on
        grown = scores.view(-1, 1) + next_scores
        scores, chosen = grown.view(len(rows), -1).topk(width)
        parent = chosen // words.shape[1]
        word = words.view(len(rows), -1).gather(1, chosen)
        kept = prefixes.gather(1, parent[..., None].expand(-1, -1, prefixes.shape[-1]))
        prefixes = torch.cat([kept, word[..., None]], -1)
        going = scores[:, 0] > best[rows]
        flat = (torch.arange(len(rows), device=z.device)[:, None] * width + parent)[going]
        state = select(state, flat.flatten())
        rows, scores, prefixes = rows[going], scores[going], prefixes[going]
        if not len(rows):
            break
    for row in (best[rows] == -torch.inf).nonzero().flatten().tolist():
        found[int(rows[row])] = prefixes[row, 0, 1:].tolist()
    return found


def _likeliest(head: Writer, hidden: Tensor, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest logits and their words. Found among products that may be bf16, with SPARE
    more that rounding may have put behind; ranked by what they are exactly."""
    quick, words = top(logits, min(k + SPARE, len(head.bias)))
    words = words.clamp_max(len(head.bias) - 1)  # there may be fewer that can be written
    exact = head.exact(hidden, words, logits).where(quick > -torch.inf, -torch.inf)
    found, place = exact.topk(min(k, words.shape[1]))
    return found, words.gather(1, place)


def _continuations(
    head: Writer, hidden: Tensor, logits: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """log p of ``</s>`` (N,), and of the `width` likeliest other words, (N, W), with their ids."""
    total = logits.logsumexp(-1, keepdim=True)
    at_end = torch.full_like(total, EOS, dtype=torch.long)
    ending = head.exact(hidden, at_end, logits) - total
    logits[:, EOS] = -torch.inf
    found, words = _likeliest(head, hidden, logits, width)
    return ending[:, 0], found - total, words


def _repeat(state: State, times: int) -> State:
    return {name: value.repeat_interleave(times, 0) for name, value in state.items()}


def _until_end(line: list[int]) -> list[int]:
    return line[: line.index(EOS)] if EOS in line else line
