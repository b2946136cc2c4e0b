"""TextVAE: strings in, strings out. A model, its tokenizer and its settings as one folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import assembly, latent, processes
from .config import Config
from .errors import UserError
from .fitted import FittedPrior
from .fitted import read as read_prior
from .fitted import write as write_prior
from .generate import Chances, Decoding, generate, greedily, prior_sample
from .measuring.likelihood import importance_weighted
from .measuring.survey import InMemory, posterior_means, survey
from .seeds import LABELS, seed_of
from .text.readers import cleaned, plain
from .text.tokenizer import UNK, Tokenizer
from .vae import VAE

LONGEST = 2048
"""Tokens that are written of a sentence by default at most, whatever a model's settings say."""

TOGETHER = 4096
"""Latents that are written before the first of them is given out."""

Label = str | Sequence[str | None] | None
"""One label for all sentences, or one for each; None is a sentence without."""


@dataclass(frozen=True)
class Score:
    """What the model says of one sentence. Nats; `tokens` counts ``</s>``, and `unknown` are those
    of them that the vocabulary lacks: a density of ``<unk>`` is none of what was written."""

    text: str
    log_px: float
    stderr: float
    kl: float
    tokens: int
    bytes: int
    unknown: int = 0


class TextVAE:
    """A trained latent space of sentences: strings in, strings out.

    The model is `vae` (a `torch.nn.Module`), its words are `tokenizer`, its settings `config`.
    With a `fitted` prior that one is `vae.prior`, in place of the prior trained with the model.
    `weights` is the SHA-256 of those it was opened with: the file may be another's by now.
    Methods that write text take the keywords of `generate.Decoding`.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        vae: VAE,
        fitted: FittedPrior | None = None,
        weights: str | None = None,
    ):
        self.config, self.tokenizer, self.vae = config, tokenizer, vae.eval()
        self.fitted, self._trained_prior, self.weights = fitted, vae.prior, weights
        if fitted is not None:
            vae.prior = fitted.part
            if vae.refinement is not None:
                vae.refinement.prior = self._trained_prior

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | None = None, *, prior: str = "fitted"
    ) -> "TextVAE":
        """Open a model folder; every file is checked against its SHA-256. Raises UserError.

        prior: ``fitted`` takes the one of `midsentence fit-prior` if there is one, ``own`` the one
        the model was trained with.
        """
        if prior not in ("fitted", "own"):
            raise UserError(f"prior {prior!r} is not one of fitted, own")
        config, tokenizer, vae, weights = assembly.read(Path(folder))
        vae = vae.to(assembly.pick_device(device or "auto"))
        fitted = read_prior(Path(folder), vae.latent, weights) if prior == "fitted" else None
        if fitted is not None:
            fitted.part.to(vae.device)
        return cls(config, tokenizer, vae, fitted, weights)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.toml, tokenizer.json, model.safetensors and manifest.json.

        And the fitted prior, if one is in use, as the folder ``prior``.
        """
        used, self.vae.prior = self.vae.prior, self._trained_prior
        try:
            assembly.save(Path(folder), self.config, self.tokenizer, self.vae)
        finally:
            self.vae.prior = used
        if self.fitted is not None:
            write_prior(Path(folder), self.fitted, replace=True)

    @property
    def latent(self) -> int:
        return self.vae.latent

    @property
    def parameters(self) -> int:
        """How many numbers training found; those of a prior fitted later are not among them."""
        fitted = set() if self.fitted is None else set(self.fitted.part.parameters())
        held = {*self.vae.parameters(), *self._trained_prior.parameters()} - fitted
        return sum(p.numel() for p in held)

    @property
    def labels(self) -> list[str]:
        """The labels the model is conditional on; none for most."""
        return list(self.config.labels.shares)

    def ids(self, lines: Sequence[str], label: Label = None) -> InMemory:
        """Lines as ids. Raises UserError for none, or an empty one, which no corpus has."""
        if isinstance(lines, str):
            raise UserError("one sentence is a list of one: [sentence]")
        if not lines:
            raise UserError("there are no sentences: give at least one")
        lines = [cleaned(line) for line in lines]
        for number, line in enumerate(lines, 1):
            if not line:
                raise UserError(f"line {number} is empty; there is no sentence to read")
        rows = self._rows(label, len(lines))
        return InMemory(self.tokenizer.encode(lines), None if rows is None else rows.numpy())

    def _rows(self, label: Label, count: int) -> Int[Tensor, "N"] | None:
        """Labels as numbers, -1 for none. A label of files that training did not know is none."""
        if label is None:
            return None
        if isinstance(label, str):
            if label not in self.labels:
                known = ", ".join(self.labels) or "none: it was trained without --label-field"
                raise UserError(f"there is no label {label!r} in this model. There are: {known}")
            label = [label] * count
        if len(label) != count:
            raise UserError(f"{len(label)} labels for {count} sentences: give one for each, or one")
        number = {name: row for row, name in enumerate(self.labels)}
        return torch.tensor([number.get(name or "", -1) for name in label])

    def sample(
        self, n: int = 10, *, label: str | None = None, seed: int = 0, **decoding: Any
    ) -> list[str]:
        """n new sentences: z from the prior, then words. The same seed gives the same text.

        In a model with labels and without `label`, labels are drawn as often as training had them.
        """
        return list(self.samples(n, label=label, seed=seed, **decoding))

    def samples(
        self, n: int = 10, *, label: str | None = None, seed: int = 0, **decoding: Any
    ) -> Iterator[str]:
        """The same, `TOGETHER` at a time, as they are written."""
        z, labels = self.draw(n, label=label, seed=seed)
        how = {"temperature": 1.0} | decoding
        return self._write(z, self._rows(labels, n), seed=seed, **how)

    def draw(
        self, n: int, *, label: str | None = None, seed: int = 0
    ) -> tuple[Float[Tensor, "N D"], list[str | None] | None]:
        """What `sample` writes from: n latents of the prior, and their labels in a model that has
        any; None for a sentence without one."""
        if n < 1:
            raise UserError("the number of samples must be at least 1")
        rows = self._rows(label, n)
        if rows is None and self.vae.labels is not None:
            shares = torch.tensor(self.vae.labels.shares)
            chance = torch.Generator().manual_seed(seed_of(seed, LABELS))
            rows = torch.multinomial(shares, n, replacement=True, generator=chance)
        known: list[str | None] = [*self.labels, None]
        names = None if rows is None else [known[row] for row in rows.tolist()]
        return prior_sample(self.vae, n, seed, rows).cpu(), names

    def encode(self, lines: Sequence[str], *, label: Label = None) -> Float[Tensor, "N D"]:
        """Posterior means, one a line; of lines with these labels in a model that knows them. On
        the sphere, where a mean is not, their directions."""
        found = self._means(self.ids(lines, label)).cpu()
        return latent.unit(found) if self.vae.sphere else found

    def decode(
        self, z: Float[Tensor, "N D"], *, label: Label = None, seed: int = 0, **decoding: Any
    ) -> list[str]:
        """One sentence for each latent: the likeliest word each time, unless `decoding` says how
        words are chosen. Raises UserError for a z of another size or not finite."""
        z = torch.as_tensor(z, dtype=torch.float32)
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise UserError(f"z must be (N, {self.latent}) for this model, not {tuple(z.shape)}")
        if not z.isfinite().all():
            raise UserError("z must be finite numbers")
        return list(self._write(z, self._rows(label, len(z)), seed=seed, **greedily(decoding)))

    def _write(
        self,
        z: Tensor,
        rows: Tensor | None,
        *,
        seed: int,
        **decoding: Any,
    ) -> Iterator[str]:
        longest = min(self.config.corpus.max_tokens, LONGEST)
        how = Decoding(**{"max_length": longest} | decoding)
        chances, parts = Chances(how, seed), z.split(TOGETHER)
        labels = [None] * len(parts) if rows is None else rows.split(TOGETHER)
        for part, some in zip(parts, labels, strict=True):
            ids = self._written(part, some, how, chances.next(len(part)))
            yield from map(plain, self.tokenizer.decode(ids))

    # The two doors through which the model is asked for anything strings are made of; who has
    # several callers at once (`web.engine`) puts them together here.

    def _written(
        self, z: Tensor, rows: Tensor | None, how: Decoding, chance: Tensor
    ) -> list[list[int]]:
        mine = slice(processes.number(), None, processes.count())
        some = None if rows is None else rows[mine]
        z = z[mine].to(self.vae.device)
        found = generate(self.vae, z, how, labels=some, chance=chance[mine])
        return processes.dealt(found)

    def _means(self, sentences: InMemory) -> Float[Tensor, "N D"]:
        return posterior_means(self.vae, sentences)

    def reconstruct(
        self, lines: Sequence[str], *, label: Label = None, seed: int = 0, **decoding: Any
    ) -> list[str]:
        """Each line through its posterior mean and back, greedily unless `decoding` says else."""
        z = self.encode(lines, label=label)
        return self.decode(z, label=label, seed=seed, **decoding)

    def interpolate(
        self,
        a: str,
        b: str,
        steps: int = 7,
        *,
        path: str = "linear",
        label: str | None = None,
        seed: int = 0,
        **decoding: Any,
    ) -> list[str]:
        """Sentences on the way from a to b, both ends decoded too (``linear`` or ``spherical``)."""
        ends = self.encode([a, b], label=label)
        points = latent.path(path, ends[0], ends[1], steps, sphere=self.vae.sphere)
        return self.decode(points, label=label, seed=seed, **decoding)

    def score(
        self, lines: Sequence[str], samples: int = 500, *, label: Label = None, seed: int = 0
    ) -> list[Score]:
        """log p(x) by `samples` importance samples with its standard error, and the KL (by
        one z where it has no closed form, as under a mixture or a flow)."""
        if samples < 1:
            raise UserError("the number of samples must be at least 1")
        sentences = self.ids(lines, label)
        samples = samples if self.latent else 1
        log_p, error = importance_weighted(self.vae, sentences, samples, seed=seed)
        kl = survey(self.vae, sentences, seed, summaries=False).kl.sum(1).tolist()
        lengths, sizes = sentences.lengths.tolist(), [len(cleaned(x).encode()) for x in lines]
        unknown = sentences.count(UNK).tolist()
        return [
            Score(line, float(log_p[i]), float(error[i]), kl[i], lengths[i] + 1, size, unknown[i])
            for i, (line, size) in enumerate(zip(lines, sizes, strict=True))
        ]
