"""Do conditional samples have the label asked for? python benchmarks/labels.py RUN... [-n N]

A classifier that knows nothing of the model, logistic regression on the words and word pairs of the
run's labelled training text, says the label of N samples for each label. Its accuracy on the run's
held-out real text stands beside it: more agreement cannot be expected than that, unless the model
writes more clearly than people do.
"""

import argparse
import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from midsentence import TextVAE
from midsentence.text.corpus import Corpus
from midsentence.text.store import TokenStore

BUCKETS = 1 << 18


def features(line: str) -> list[int]:
    """Words and pairs of neighbours as hashed numbers, the same in every process."""
    words = ["<s>", *line.lower().split(), "</s>"]
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    return [zlib.crc32(part.encode()) % BUCKETS for part in [*words[1:-1], *pairs]]


class Classifier:
    """p(label | line) by logistic regression on counts."""

    def __init__(self, labels: Sequence[str]):
        self.labels = list(labels)
        self.weights = nn.EmbeddingBag(BUCKETS, len(labels), mode="sum")
        nn.init.zeros_(self.weights.weight)

    def logits(self, bags: Sequence[list[int]]) -> Tensor:
        """(lines, labels); every line has at least the pair that ends it."""
        ends = torch.tensor([0, *map(len, bags)]).cumsum(0)
        found: Tensor = self.weights(torch.tensor([i for bag in bags for i in bag]), ends[:-1])
        return found

    def fit(
        self, lines: Sequence[str], labels: Sequence[str], *, epochs: int = 5, seed: int = 0
    ) -> None:
        bags, number = list(map(features, lines)), {name: i for i, name in enumerate(self.labels)}
        targets = torch.tensor([number[label] for label in labels])
        chance = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.weights.parameters(), lr=0.01)
        for _ in range(epochs):
            for rows in torch.randperm(len(bags), generator=chance).split(512):
                logits = self.logits([bags[i] for i in rows.tolist()])
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits, targets[rows]).backward()
                optimizer.step()

    @torch.no_grad()
    def __call__(self, lines: Sequence[str]) -> list[str]:
        """The likeliest label of each line."""
        best = self.logits(list(map(features, lines))).argmax(1)
        return [self.labels[i] for i in best.tolist()]


def agreement(said: Sequence[str], asked: Sequence[str]) -> tuple[float, float, int]:
    """(share, binomial standard error, number)."""
    share = sum(a == b for a, b in zip(said, asked, strict=True)) / len(asked)
    return share, math.sqrt(share * (1 - share) / len(asked)), len(asked)


def table(name: str, said: Sequence[str], asked: Sequence[str]) -> list[str]:
    """A row a label and one for all."""
    labels = sorted(set(asked))
    rows = []
    for label in [*labels, None]:
        pairs = [(s, a) for s, a in zip(said, asked, strict=True) if label in (None, a)]
        share, error, count = agreement([s for s, _ in pairs], [a for _, a in pairs])
        shown = "all" if label is None else label
        rows.append(f"| {name} | {shown} | {count:,} | {100 * share:.1f} ± {100 * error:.1f} % |")
    return rows


def labelled(store: TokenStore, corpus: Corpus) -> tuple[list[str], list[str]]:
    """(lines, labels) of the sentences that have one."""
    if store.labels is None:
        return [], []
    rows = (store.labels >= 0).nonzero()[0]
    return store.text(corpus.tokenizer, rows), [store.label_names[i] for i in store.labels[rows]]


def asked_and_written(
    model: TextVAE, labels: Sequence[str], n: int, seed: int, how: dict[str, float]
) -> tuple[list[str], list[str]]:
    """(lines, the label asked for): n samples of each label, other seeds for each."""
    lines = [
        line
        for number, label in enumerate(labels)
        for line in model.sample(n, label=label, seed=seed + number, **how)
    ]
    return lines, [label for label in labels for _ in range(n)]


def main() -> None:
    asked = arguments()
    how = {k: v for k in ("temperature", "top_p") if (v := getattr(asked, k)) is not None}
    print("| sentences of | label | number | the classifier agrees |\n|---|---|---|---|")
    for run in asked.runs:
        corpus = Corpus.open(run / "corpus")
        lines, labels = labelled(corpus.train, corpus)
        held_out, truth = labelled(corpus.test if len(corpus.test) else corpus.valid, corpus)
        if len(set(labels)) < 2 or not truth:
            raise SystemExit(f"{run} has no labels to tell apart: train it with --label-field")
        classifier = Classifier(sorted(set(labels)))
        classifier.fit(lines, labels)
        print("\n".join(table(f"held-out real text of {run.name}", classifier(held_out), truth)))
        model = TextVAE.from_pretrained(run)
        written, wanted = asked_and_written(model, classifier.labels, asked.n, asked.seed, how)
        print("\n".join(table(run.name, classifier(written), wanted)), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=500, help="samples of each label")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    return parser.parse_args()


if __name__ == "__main__":
    main()
