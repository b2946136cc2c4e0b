"""The vocabulary head: hidden states -> log-probabilities of words. Most of the time goes here."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UserError
from .log_softmax import BLOCK, CHUNK, FIRST, TargetLogProb
from .together import log_prob_together
from .word_samples import Words


class Head(nn.Module):
    """log p(word | hidden) = log softmax(W h + b), without <pad> and <s>.

    `log_prob` never holds (M x V) in fp32 beyond a chunk: with bf16 products the unnormalised
    probabilities are kept once, in bf16; in fp32 they are made chunk by chunk and, unless one chunk
    is all, once more for the gradient. Sums over words and the target's own logit are fp32 anyway.
    The kernel is `parts.log_softmax`.

    tied: the word embedding of the decoder is W (Press & Wolf 2017; Inan et al. 2017); when it is
    narrower or wider than the hidden states, a linear map stands between.
    bias: without one b is 0, as in the published text VAEs.
    label_smoothing: in training every word takes this part of the target's place, evenly (Szegedy
    et al. 2016, section 7). Bounds reported while training are then of the smoothed target.
    gradient_words: so many words carry the gradient of a training step's normaliser, drawn anew
    each time where there are more; 0: all do. Values are exact either way, and the gradient's mean
    (`parts.log_softmax`); it spares most of two of the head's three products.
    sampled_words: so many words are all that a training step's normaliser is made of (sampled
    softmax), drawn anew each time where there are more; 0: it is made of all; by itself 1,024 on a
    CPU, all on an accelerator and where `gradient_words` is set. Spares most of all three products,
    so that there are more steps in the same time; a step is worth a little less under AdamW. What
    is reported while training is then an estimate, a little too high; what is validated, evaluated
    and written is exact.
    softmaxes: so many are mixed, each word's chances a mean of theirs (`parts.mixture`); 1: there
    is one.

    Its products are in `precision`: ``float32``, ``bfloat16`` or ``auto`` (bfloat16 where the
    processor multiplies it natively).
    """

    softmaxes = 1
    gives_rows = False
    """Is the table's gradient by a sample of words a sparse tensor? For who trains to say."""

    def __init__(
        self,
        hidden: int,
        embedding: nn.Embedding,
        *,
        tied: bool = False,
        bias: bool = True,
        precision: str = "auto",
        label_smoothing: float = 0.0,
        gradient_words: int = 0,
        sampled_words: int | None = None,
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError("head.label_smoothing is a part of the probability: 0 to below 1")
        if precision not in ("auto", "float32", "bfloat16"):
            raise UserError(f"precision = {precision!r}: use auto, float32 or bfloat16")
        for name, count in ("gradient_words", gradient_words), ("sampled_words", sampled_words):
            if count is not None and count < 0:
                raise UserError(f"head.{name} is a number of words; 0 is all of them")
        if gradient_words and sampled_words:
            raise UserError(
                "head.sampled_words has its own gradient: set head.gradient_words or it to 0"
            )
        vocab, width = embedding.weight.shape
        self.precision, self.label_smoothing = precision, label_smoothing
        self.gradient_words, self.sampled_words = gradient_words, sampled_words
        self.map = nn.Linear(hidden, width) if tied and width != hidden else None
        if tied:
            self.table = embedding.weight
        else:
            self.table = nn.Parameter(torch.empty(vocab, hidden))
            nn.init.uniform_(self.table, -(hidden**-0.5), hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(vocab - FIRST), requires_grad=bias)

    def log_prob(
        self, hidden: Float[Tensor, "M H"], targets: Int[Tensor, "M"]
    ) -> Float[Tensor, "M"]:
        """log p(target | hidden) in nats, one a row."""
        hidden = self.mapped(hidden)
        found: Tensor = TargetLogProb.apply(
            hidden, self.table, self.bias, targets - FIRST, self.products(),
            self.drawn if self.training else 0, self.gradient_words == 0, self.gives_rows,
            torch.is_grad_enabled(),
        )  # fmt: skip
        if self.training and self.label_smoothing:
            # The normaliser is the same for every word: only the logits are mixed.
            mean = hidden @ self.table[FIRST:].mean(0) + self.bias.mean()
            own = (hidden * self.table[targets]).sum(1) + self.bias[targets - FIRST]
            found = found + self.label_smoothing * (mean - own)
        return found

    @property
    def drawn(self) -> int:
        """Words that a training step looks at for its gradient, and but for `gradient_words` for
        its value; 0: all."""
        if self.gradient_words:
            return self.gradient_words
        if self.sampled_words is not None:
            return self.sampled_words
        return usual_words(self.bias.device)

    def log_prob_together(
        self, hidden: Float[Tensor, "P K H"], targets: Int[Tensor, "P"], words: Words
    ) -> Float[Tensor, "P K"]:
        """The same of K states a position, by so many words a position where there are more: an
        estimate (`parts.together`), without a gradient."""
        table, many = self.table[FIRST:], hidden.shape[1]
        if words.count >= len(table):
            every = targets[:, None].expand(-1, many).reshape(-1)
            return self.log_prob(hidden.flatten(0, 1), every).view(-1, many)
        hidden = self.mapped(hidden)
        return log_prob_together(hidden, table, self.bias, targets - FIRST, self.products(), words)

    def apart(self, a: Float[Tensor, "M H"], b: Float[Tensor, "M H"]) -> Float[Tensor, "M"]:
        """Mean over words of the squared difference of the logits of two hidden states.

        |W (a - b)|^2 / V = (a - b) W'W (a - b) / V, so that no logit is made.
        """
        difference = self.mapped(a) - self.mapped(b)
        words = self.table[FIRST:]
        return ((difference @ (words.t() @ words)) * difference).sum(-1) / len(words)

    def logits(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N V"]:
        """Of every id; minus infinity for <pad> and <s>."""
        kind = self.products()
        found = self.mapped(hidden).to(kind) @ self.table.to(kind).t()
        return found.to(hidden.dtype) + self.biases()

    def mapped(self, hidden: Float[Tensor, "*N H"]) -> Float[Tensor, "*N E"]:
        """As wide as the table."""
        return hidden if self.map is None else self.map(hidden)

    def writer(self) -> "Writer":
        """What chooses words by it, for as long as its weights stay as they are."""
        return Writer(self)

    def biases(self) -> Float[Tensor, "V"]:
        """Of every id; minus infinity for <pad> and <s>."""
        return torch.cat([self.bias.new_full((FIRST,), -torch.inf), self.bias])

    def products(self) -> torch.dtype:
        """In what the large products are made."""
        held = self.bias
        if self.precision == "bfloat16":
            return torch.bfloat16
        if self.precision == "float32":
            return held.dtype  # float64 stays float64
        fast = held.dtype == torch.float32 and has_fast_bfloat16(held.device)
        return torch.bfloat16 if fast else held.dtype


class Writer:
    """The head while words are chosen: its weights made ready once for many small calls."""

    def __init__(self, head: Head):
        kind = head.products()
        self.mapped, self.table, self.bias = head.mapped, head.table, head.biases()
        self.quick = self.table.to(kind)
        # fp32 products rearrange the whole table each time: a few rows would not be worth it.
        cached = kind == torch.bfloat16 and self.bias.device.type == "cpu"
        # Whole blocks: words left over would be looked at by themselves, again and again.
        words = len(self.bias)
        width = words + -words % BLOCK
        self.rows = FEW if cached else max(1, CHUNK // width)
        # Kept, for fresh memory is cleared page by page, which takes as long as making the logits;
        # rows that are never used cost nothing.
        self.sum = self.bias.new_empty(self.rows, width)
        narrow = kind != self.bias.dtype
        self.product = self.quick.new_empty(self.rows, words) if narrow else self.sum[:, :words]

    def parts(
        self, hidden: Float[Tensor, "N H"]
    ) -> Iterator[tuple[Float[Tensor, "M H"], Float[Tensor, "M W"]]]:
        """Some of the rows at a time, with their logits, which the next ones overwrite.

        They are as the products' precision has them, and minus infinity for <pad> and <s>. The
        columns go on beyond the V ids to a whole block; these are minus infinity too.
        """
        words = len(self.bias)
        for some in hidden.split(self.rows):
            product, logits = self.product[: len(some)], self.sum[: len(some)]
            with torch.no_grad():
                torch.mm(self.mapped(some).to(product.dtype), self.quick.t(), out=product)
                logits[:, words:] = -torch.inf
                logits[:, :words].copy_(product).add_(self.bias)  # where not narrow it is there
            yield some, logits

    def exact(
        self, hidden: Float[Tensor, "N H"], words: Int[Tensor, "N K"], logits: Float[Tensor, "N W"]
    ) -> Float[Tensor, "N K"]:
        """Logits of a few words a row, in the precision of the parameters; `logits` as `parts` has
        them."""
        rows = self.table[words] @ self.mapped(hidden)[:, :, None]
        return rows[..., 0] + self.bias[words]


SAMPLED = 1024
"""Words that a training step on a CPU looks at, where nobody says how many."""

FEW = 512
"""Rows of bf16 logits made at once, so that they stay in the cache."""


def usual_words(device: torch.device) -> int:
    """`sampled_words` where nobody says it."""
    return SAMPLED if device.type == "cpu" else 0


def has_fast_bfloat16(device: torch.device) -> bool:
    """Does this device multiply bf16 natively?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def has_bfloat16_layers(device: torch.device) -> bool:
    """Can every layer run in bf16 here, natively or not? oneDNN has no such LSTM for processors
    without AVX-512, and torch asks nothing else for one."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return True
    found: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return found


class BagOfWords(nn.Module):
    """log p(bag | z): every word of the sentence predicted from z alone, in any order.

    One hidden tanh layer, one softmax a sentence, summed over the words and ``</s>``. Added to the
    objective with its own weight, it makes z carry what the sentence is about. Zhao, Zhao &
    Eskenazi 2017, "Learning Discourse-level Diversity for Neural Dialog Models using CVAE", eq. 6.
    Use it when the KL stays near zero in spite of annealing; it is no part of the likelihood.
    """

    def __init__(self, latent: int, vocab: int, hidden: int = 256):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, vocab - FIRST)
        )

    def forward(
        self, z: Float[Tensor, "K B D"], targets: Int[Tensor, "B T"], mask: Tensor
    ) -> Float[Tensor, "K B"]:
        log_probs = self.net(z).log_softmax(-1)
        index = (targets - FIRST).clamp_min(0).expand(len(z), -1, -1)
        return (log_probs.gather(-1, index) * mask).sum(-1)
