"""Hold runs on builtin:grammar against the truth: python benchmarks/grammar.py RUN... [--samples K]

For each run: the importance-weighted NLL of its own test part, the true mean -log p of the same
sentences, and their difference sentence by sentence, which is the model's divergence from the
grammar plus the bound's slack, with its standard error over sentences. The last columns are that
slack: how far the bounds of one sample (the ELBO) and of eight (IWAE's) lie over the NLL, sentence
by sentence, each a mean of eight seeds. Nats per sentence.
"""

import argparse
from pathlib import Path

import numpy as np

from midsentence import TextVAE, pipeline
from midsentence.measuring.likelihood import importance_weighted
from midsentence.measuring.survey import survey
from midsentence.text.grammar import Grammar
from midsentence.text.store import pick

SEEDS = range(1, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--sentences", type=int, default=1500)
    asked = parser.parse_args()
    grammar = Grammar()
    print(f"entropy of the grammar: {grammar.entropy():.4f} nats a sentence\n")
    print("| run | NLL | truth, same sentences | NLL - truth | over entropy | KL | K = 1 | K = 8 |")
    print("|---|---|---|---|---|---|---|---|")
    for run in asked.runs:
        model, corpus = TextVAE.from_pretrained(run), pipeline.Corpus.open(run / "corpus")
        test = pick(corpus.test, asked.sentences, seed=0)
        samples = asked.samples if model.latent else 1
        nll = -importance_weighted(model.vae, test, samples)[0]
        texts = corpus.test.text(corpus.tokenizer, test.rows)
        truth = -np.array([grammar.log_prob(text) for text in texts])
        known = np.isfinite(truth)  # a sentence with <unk> is not in the language
        slack = [
            np.mean([-importance_weighted(model.vae, test, k, seed=s)[0] for s in SEEDS], 0) - nll
            for k in ((1, 8) if model.latent else ())
        ]
        nll, truth = nll[known], truth[known]
        gap = nll - truth
        kl = survey(model.vae, test).kl.sum(1).mean().item()
        print(
            f"| {run.name} | {nll.mean():.3f} ± {error(nll):.3f} | {truth.mean():.3f} ± "
            f"{error(truth):.3f} | {gap.mean():.3f} ± {error(gap):.3f} | "
            f"{gap.mean() / grammar.entropy():+.2%} | {kl:.2f} | "
            + " | ".join(f"{part.mean():.3f} ± {error(part):.3f}" for part in slack),
            "|",
            flush=True,
        )


def error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


if __name__ == "__main__":
    main()
