"""How good what runs write is, in one table: python benchmarks/samples.py RUN... [--lm LM]

The measures of `evaluate --quality` (`midsentence.appraisal`), with forward and reverse perplexity
(`midsentence.judging`) of more samples and several reverse models. A column for real text, and one
for every run under the prior it was trained with and, where there is one, under its fitted prior
(`midsentence fit-prior`). All runs are of one corpus and one tokenizer.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from midsentence import TextVAE
from midsentence.appraisal import appraise
from midsentence.console import QUALITY
from midsentence.judging import HELD_OUT, language_model, open_judge, reverse, score
from midsentence.text.corpus import Corpus

Column = dict[str, float | tuple[float, float]]
"""Measure -> value, or value and standard error."""


def several(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean and standard error of (perplexity, error) from models that scored the same sentences.

    The sentences' error is common to all; what differs between models is averaged over them.
    """
    values = np.array([value for value, _ in measured])
    common = float(np.mean([error**2 for _, error in measured]))
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    return float(values.mean()), math.sqrt(common + between)


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
    data = Corpus.open(asked.runs[0] / "corpus")
    for run in asked.runs[1:]:
        words = [(each / "corpus" / "tokenizer.json").read_bytes() for each in (run, asked.runs[0])]
        if len(Corpus.open(run / "corpus").test) != len(data.test) or words[0] != words[1]:
            raise SystemExit(f"{run} and {asked.runs[0]} are of different corpora: one call each")
    if not len(data.test):
        raise SystemExit(f"{asked.runs[0]} has no test part to hold models against")
    text = real(asked.runs[0])
    asked.n = min(asked.n, len(text["train"]))  # as many real sentences as samples
    judge = judging(asked, text)
    test = some(text["test"], asked.held_out, seed=0)

    def perplexities(batches: Sequence[list[str]], judged: list[str]) -> Column:
        forward = score(judge, judged)
        backward = [
            reverse(lines, test, judge.tokenizer, steps=asked.steps, seed=number)
            for number, lines in enumerate(batches)
        ]
        return {
            "forward_ppl": forward.perplexity(),
            "reverse_ppl": several(backward),
            "unknown": forward.unknown,
        }

    # Training text for the reverse models, but held-out text before the judge, who knows it.
    lessons = [some(text["train"], asked.n, s) for s in range(asked.repeats)]
    columns: dict[str, Column] = {"real text": perplexities(lessons, test)}
    for run in asked.runs:
        for prior, model in sources(run):
            name = f"{run.name}, {prior}" if model.latent else run.name
            print(f"measuring {name}", file=sys.stderr, flush=True)
            batches = [model.sample(asked.n, seed=s) for s in range(asked.repeats)]
            found = appraise(model, data)
            columns["real text"] |= {k[:-5]: v for k, v in found.items() if k.endswith("_real")}
            own = {k: v for k, v in found.items() if not k.endswith("_real")}
            columns[name] = perplexities(batches, [x for lines in batches for x in lines]) | own
    print("\n".join(table(columns)))
    print(f"\n{protocol(asked, judge, len(test))}")


def table(columns: dict[str, Column]) -> Iterator[str]:
    """Markdown, a measure a line."""
    yield "| | " + " | ".join(columns) + " | |"
    yield "|---" * (len(columns) + 2) + "|"
    for key, (name, meaning) in QUALITY.items():
        if any(key in column for column in columns.values()):
            cells = [told(column.get(key)) for column in columns.values()]
            yield f"| {name} | " + " | ".join(cells) + f" | {meaning} |"


def told(value: float | tuple[float, float] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"{value[0]:.1f} ± {value[1]:.1f}"
    return f"{value:.3f}"


def protocol(asked: argparse.Namespace, judge: TextVAE, held_out: int) -> str:
    return (
        f"{asked.repeats} x {asked.n:,} samples. Forward: under `lm` trained on the real text "
        f"({asked.lm or f'{asked.lm_steps:,} steps'}). Reverse: a new `lm` of {asked.steps:,} "
        f"steps for each {asked.n:,} samples, of which {HELD_OUT:.0%} choose its best weights, on "
        f"{held_out:,} held-out real sentences. Perplexities are a token of the judge's "
        f"({judge.tokenizer.kind}, {judge.tokenizer.vocab_size:,}), `</s>` counted; ± standard "
        "errors, over sentences and, where there are several, reverse models. Everything else is "
        "what `evaluate --quality` says."
    )


def judging(asked: argparse.Namespace, text: dict[str, list[str]]) -> TextVAE:
    """The language model that knows the real text: the run of --lm, or a new one."""
    if asked.lm:
        return open_judge(asked.lm)
    tokenizer = Corpus.open(asked.runs[0] / "corpus").tokenizer
    print("training the judge", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        return language_model(text, tokenizer, Path(folder), asked.lm_steps, seed=1000)


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
