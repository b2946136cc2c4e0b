"""Perplexities of what was written: under a language model of real text, and the other way round.

Forward: samples under a language model of the real text (fluency). Reverse: real text under a
language model of the samples alone (variety too: what is never written costs it here; Zhao et al.
2018, "Adversarially Regularized Autoencoders", section 4). A judge is a run of ``--recipe lm``.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import config
from .bundle import TextVAE
from .errors import UserError
from .learning import trainer
from .measuring.likelihood import corpus_perplexity, importance_weighted
from .measuring.survey import InMemory
from .text.corpus import Corpus
from .text.readers import Line
from .text.store import TokenStore
from .text.tokenizer import UNK, Tokenizer

STRANGE = 0.3
"""Share of unknown tokens from which on a judge is of other text."""

HELD_OUT = 0.05
"""The part of the samples that says which weights of a reverse model are the best."""


@dataclass(frozen=True)
class Scored:
    """Sentences under a language model: nats and tokens of each, ``</s>`` counted, (N,)."""

    nll: np.ndarray
    tokens: np.ndarray
    unknown: float

    def perplexity(self) -> tuple[float, float]:
        """With its standard error over sentences (`likelihood.corpus_perplexity`)."""
        return corpus_perplexity(self.nll, self.tokens)


def score(judge: TextVAE, lines: Sequence[str]) -> Scored:
    """Each line's exact likelihood, through the language model's own tokenizer."""
    sentences = InMemory(judge.tokenizer.encode(list(lines)))
    log_p, _ = importance_weighted(judge.vae, sentences, 1)
    unknown = float(sentences.count(UNK).sum() / max(1, sentences.lengths.sum()))
    return Scored(-log_p, sentences.lengths + 1, unknown)


def open_judge(run: Path) -> TextVAE:
    """The language model of a run. Raises UserError."""
    judge = TextVAE.from_pretrained(run)
    if judge.latent:
        raise UserError(f"{run} is no language model: train one with --recipe lm")
    if judge.labels:
        raise UserError(f"{run} expects labels: train it with --set labels.condition=false")
    return judge


def language_model(
    parts: Mapping[str, Sequence[str]], tokenizer: Tokenizer, folder: Path, steps: int, seed: int
) -> TextVAE:
    """The recipe `lm`, trained for so many steps; parts: "train" and "valid" lines."""
    stores = [
        TokenStore.write(folder / part, map(Line, parts.get(part, ())), tokenizer)
        for part in ("train", "valid", "test")
    ]
    # An epoch is a step at least, so that steps are the budget; looked at eight times on the way.
    budget = {"max_steps": steps, "epochs": steps, "patience": 0, "validations": 0.001}
    budget["threads"] = torch.get_num_threads()
    settings = [f"training.{k}={v}" for k, v in budget.items()]
    settings += [f"seed={seed}", "head.sampled_words=0"]  # the same judge on every device
    asked = config.compose("lm", None, settings)
    if trainer.train(asked, Corpus(tokenizer, *stores), folder).ended == "interrupted":
        raise KeyboardInterrupt  # training took it for its own
    return TextVAE.from_pretrained(folder)


def reverse(
    written: Sequence[str], real: Sequence[str], tokenizer: Tokenizer, *, steps: int, seed: int = 0
) -> tuple[float, float]:
    """Perplexity of `real`, and its standard error over sentences, under a new language model of
    `written`. It is one model: what another seed would say is not in the error."""
    every = round(1 / HELD_OUT)  # from all over: real text may be in some order
    learned = [line for i, line in enumerate(written) if i % every]
    with tempfile.TemporaryDirectory() as folder:
        model = language_model(
            {"train": learned or written, "valid": written[::every]},
            tokenizer, Path(folder), steps, seed,
        )  # fmt: skip
        return score(model, real).perplexity()
