"""How good what runs write is, beside real text: python benchmarks/samples.py RUN... [--lm LM]

Forward: samples scored by a language model trained on the real text (fluency). Reverse: held-out
real text scored by language models trained on the samples alone (variety too: what a run never
writes costs it here; Zhao et al. 2018, "Adversarially Regularized Autoencoders"). Then, by words
split at spaces: self-BLEU, distinct-2, the share that is no training sentence, the distance to the
nearest one (`measuring.quality`). Under the prior a run was trained with and, where there is one,
under its fitted prior (`midsentence fit-prior`); real text itself is the reference. All runs are of
one corpus.
"""

import argparse
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from midsentence import TextVAE, config
from midsentence.appraisal import COMPARED, NEAREST, WRITTEN
from midsentence.learning import trainer
from midsentence.measuring import quality
from midsentence.measuring.likelihood import InMemory, importance_weighted
from midsentence.text.corpus import Corpus
from midsentence.text.readers import Line
from midsentence.text.store import TokenStore
from midsentence.text.tokenizer import UNK, Tokenizer

HELD_OUT = 0.05
"""The part of the samples that says which weights of a reverse model are the best."""


@dataclass(frozen=True)
class Scored:
    """Sentences under a language model: nats and tokens of each, ``</s>`` counted, (N,)."""

    nll: np.ndarray
    tokens: np.ndarray
    unknown: float

    def perplexity(self) -> tuple[float, float]:
        """exp(sum of nats / sum of tokens) with its standard error over sentences, by the delta
        method for a ratio of sums."""
        rate = self.nll.sum() / self.tokens.sum()
        apart = self.nll - rate * self.tokens
        count = len(apart)
        error = math.sqrt((apart**2).sum() * count / (count - 1)) / self.tokens.sum()
        return math.exp(rate), math.exp(rate) * error


def several(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard error of (perplexity, error) from models that scored the same sentences.

    The sentences' error is common to all; what differs between models is averaged over them.
    """
    values = np.array([value for value, _ in measured])
    common = float(np.mean([error**2 for _, error in measured]))
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    return float(values.mean()), math.sqrt(common + between)


def score(model: TextVAE, lines: Sequence[str]) -> Scored:
    """Each line's exact likelihood, through the language model's own tokenizer."""
    ids = model.tokenizer.encode(list(lines))
    sentences = InMemory(ids)
    log_p, _ = importance_weighted(model.vae, sentences, 1)
    unknown = sum(line.count(UNK) for line in ids) / max(1, sum(map(len, ids)))
    return Scored(-log_p, sentences.lengths + 1, unknown)


def counted(lines: Sequence[str], train: Sequence[str]) -> dict[str, float]:
    """Figures that need no model; words are what stands between spaces."""
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))
    written, known = (
        [[numbers[word] for word in line.split()] for line in part]
        for part in (lines[:WRITTEN], train)
    )
    beside = [known[i] for i in np.random.default_rng(0).permutation(len(known))[:COMPARED]]
    return {
        "self-BLEU": quality.self_bleu(written),
        "distinct-2": quality.distinct(written, 2),
        "novel": quality.novelty(written, known),
        "nearest": float(quality.nearest(written[:NEAREST], beside).mean()),
    }


def language_model(
    parts: dict[str, Sequence[str]], tokenizer: Tokenizer, folder: Path, steps: int, seed: int
) -> TextVAE:
    """The recipe `lm`, trained for so many steps; parts: "train" and "valid" lines."""
    stores = [
        TokenStore.write(folder / part, map(Line, parts.get(part, ())), tokenizer)
        for part in ("train", "valid", "test")
    ]
    # An epoch is a step at least, so that steps are the budget; looked at eight times on the way.
    budget = {"max_steps": steps, "epochs": steps, "patience": 0, "validations": 0.001}
    budget["threads"] = torch.get_num_threads()
    settings = [f"seed={seed}", *(f"training.{k}={v}" for k, v in budget.items())]
    asked = config.compose("lm", None, settings)
    trainer.train(asked, Corpus(folder, tokenizer, *stores), folder)
    return TextVAE.from_pretrained(folder)


def sources(run: Path) -> Iterator[tuple[str, TextVAE]]:
    """(the prior's name, the model with it): the trained prior, then the fitted one if any."""
    if not (run / "prior").is_dir():
        model = TextVAE.from_pretrained(run)
        yield str(model.config.prior["kind"]) if model.latent else "–", model
        return
    model = TextVAE.from_pretrained(run, prior="own")
    yield str(model.config.prior["kind"]), model
    model = TextVAE.from_pretrained(run, prior="fitted")
    yield f"fitted {model.fitted.kind}", model


def real(run: Path) -> dict[str, list[str]]:
    """The run's corpus as text again, as the run's own tokens can say it."""
    corpus = Corpus.open(run / "corpus")
    stores = {part: getattr(corpus, part) for part in ("train", "valid", "test")}
    return {k: s.text(corpus.tokenizer, range(len(s))) for k, s in stores.items()}


def some(lines: Sequence[str], most: int, seed: int) -> list[str]:
    chosen = np.random.default_rng(seed).permutation(len(lines))[:most]
    return [lines[i] for i in chosen]


def main() -> None:
    asked = arguments()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    text = real(asked.runs[0])
    for run in asked.runs[1:]:
        if len(Corpus.open(run / "corpus").test) != len(text["test"]):
            raise SystemExit(f"{run} and {asked.runs[0]} are of different corpora: one call each")
    if not text["test"]:
        raise SystemExit(f"{asked.runs[0]} has no test part to hold models against")
    asked.n = min(asked.n, len(text["train"]))  # as many real sentences as samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = judging(asked, text, folder)
        test = some(text["test"], asked.held_out, seed=0)

        def row(what: str, prior: str, batches: Sequence[list[str]], judged: list[str]) -> None:
            forward = score(judge, judged)
            backward = []
            for number, lines in enumerate(batches):
                held = max(1, round(HELD_OUT * len(lines)))
                model = language_model(
                    {"train": lines[held:], "valid": lines[:held]}, judge.tokenizer,
                    folder / f"{what}-{prior}-{number}".replace("/", "-"), asked.steps, number,
                )  # fmt: skip
                backward.append(score(model, test).perplexity())
            print(f"| {what} | {prior} | {forward.tokens.mean() - 1:.1f} | "
                  f"{100 * forward.unknown:.1f} | {told(forward.perplexity())} | "
                  f"{told(several(backward))} | "
                  + " | ".join(f"{100 * x:.1f}" for x in counted(judged, text["train"]).values())
                  + " |", flush=True)  # fmt: skip

        print("| sentences of | prior | tokens | unknown, % | forward PPL | reverse PPL | "
              "self-BLEU, % | distinct-2, % | novel, % | nearest, % |")  # fmt: skip
        print(f"|---|---|{'---|' * 8}", flush=True)
        # Training text for the reverse models, but held-out text before the judge, who knows it.
        row("real text", "–", [some(text["train"], asked.n, s) for s in range(asked.repeats)], test)
        for run in asked.runs:
            for prior, model in sources(run):
                batches = [model.sample(asked.n, seed=s) for s in range(asked.repeats)]
                row(run.name, prior, batches, [line for batch in batches for line in batch])
    print(f"\n{protocol(asked, judge, len(test))}")


def protocol(asked: argparse.Namespace, judge: TextVAE, held_out: int) -> str:
    return (
        f"{asked.repeats} x {asked.n:,} samples. Forward: under `lm` trained on the real text "
        f"({asked.lm or f'{asked.lm_steps:,} steps'}). Reverse: a new `lm` of {asked.steps:,} "
        f"steps for each {asked.n:,} samples, of which {HELD_OUT:.0%} choose its best weights, on "
        f"{held_out:,} held-out real sentences. Everything in the judge's tokens "
        f"({judge.tokenizer.kind}, {judge.tokenizer.vocab_size:,}), `</s>` counted; ± standard "
        "errors, over sentences and, for reverse, models. By words: self-BLEU and distinct-2 "
        f"of {WRITTEN:,}; novel, what is no training sentence; nearest, the edit distance to "
        f"the nearest of {COMPARED:,} training sentences over the longer one's length, mean of "
        f"{NEAREST}."
    )


def judging(asked: argparse.Namespace, text: dict[str, list[str]], folder: Path) -> TextVAE:
    """The language model that knows the real text: the run of --lm, or a new one."""
    if not asked.lm:
        tokenizer = Tokenizer.load(asked.runs[0] / "tokenizer.json")
        print("training the judge", file=sys.stderr, flush=True)
        return language_model(text, tokenizer, folder / "judge", asked.lm_steps, seed=1000)
    model = TextVAE.from_pretrained(asked.lm)
    if model.latent:
        raise SystemExit(f"{asked.lm} is no language model: train one with --recipe lm")
    return model


def told(measured: tuple[float, float]) -> str:
    value, error = measured
    return f"{value:.1f} ± {error:.1f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--lm", type=Path, help="a run of --recipe lm on the same text (or: made)")
    parser.add_argument("-n", type=int, default=10_000, help="samples for one reverse model")
    parser.add_argument("--repeats", type=int, default=3, help="sets of samples, reverse models")
    parser.add_argument("--steps", type=int, default=1000, help="of training a reverse model")
    parser.add_argument("--lm-steps", type=int, default=3000, help="of training the judge")
    parser.add_argument("--held-out", type=int, default=5000, help="real sentences scored")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
