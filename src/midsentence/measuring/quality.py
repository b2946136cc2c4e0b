"""How good samples, reconstructions and paths are as text: counts and distances, no model in them.

A sentence is a sequence of token ids (of whichever tokenizer), without ``<s>`` and ``</s>``. All
figures but lengths are shares, 0 to 1.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

Sentence = Sequence[int]
Grams = Counter[tuple[int, ...]]

ORDERS = 4
"""Of n-grams in BLEU."""

FLOOR = 0.1
"""Counted in place of no match where single sentences are scored (Chen & Cherry 2014, "A Systematic
Comparison of Smoothing Techniques for Sentence-Level BLEU", method 1): one order without a match
would make the whole product 0."""


def grams(sentence: Sentence, order: int) -> Grams:
    return Counter(tuple(sentence[i : i + order]) for i in range(max(0, len(sentence) - order + 1)))


def bleu(written: Sequence[Sentence], references: Sequence[Sequence[Sentence]]) -> float:
    """Corpus BLEU-4 of sentences that have one reference or more each.

    Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation", section
    2: clipped n-gram precisions of the corpus, their geometric mean, and a brevity penalty by the
    references of nearest length. 0 where an order has no match at all.
    """
    hits, totals = np.zeros(ORDERS), np.zeros(ORDERS)
    long = short = 0
    for sentence, known in zip(written, references, strict=True):
        for n in range(ORDERS):
            most: Grams = Counter()
            for reference in known:
                most |= grams(reference, n + 1)
            found = grams(sentence, n + 1)
            hits[n] += sum((found & most).values())
            totals[n] += sum(found.values())
        short += len(sentence)
        long += min((abs(len(r) - len(sentence)), len(r)) for r in known)[1]
    return _score(hits, totals, short, long)


def _score(hits: np.ndarray, totals: np.ndarray, short: int, long: int) -> float:
    if not (hits > 0).all():
        return 0.0
    penalty = min(0.0, 1 - long / short)
    return math.exp(penalty + float(np.log(hits / totals).mean()))


def self_bleu(written: Sequence[Sentence]) -> float:
    """Mean BLEU-4 of each sentence with all the others as its references: high is repetitive.

    Zhu et al. 2018, "Texygen: A Benchmarking Platform for Text Generation Models", section 3.2;
    smoothed by `FLOOR`. Orders longer than a sentence are left out of its mean.
    """
    if len(written) < 2:
        return math.nan
    best: list[dict[tuple[int, ...], tuple[int, int, int]]] = [{} for _ in range(ORDERS)]
    counted = [[grams(sentence, n + 1) for n in range(ORDERS)] for sentence in written]
    for row, orders in enumerate(counted):
        for held, own in zip(best, orders, strict=True):
            for gram, count in own.items():
                # (most, whose, most of the others)
                first, whose, second = held.get(gram, (0, -1, 0))
                if count > first:
                    held[gram] = (count, row, first)
                elif count > second:
                    held[gram] = (first, whose, count)
    lengths = np.sort([len(sentence) for sentence in written])
    scores = []
    for row, (sentence, orders) in enumerate(zip(written, counted, strict=True)):
        hits, totals = [], []
        for held, own in zip(best, orders, strict=True):
            if not own:
                continue
            clip = {g: held[g][2] if held[g][1] == row else held[g][0] for g in own}
            hits.append(max(FLOOR, float(sum(min(own[g], clip[g]) for g in own))))
            totals.append(float(sum(own.values())))
        if totals:
            nearest = _nearest_other(lengths, len(sentence))
            scores.append(_score(np.array(hits), np.array(totals), len(sentence), nearest))
    return float(np.mean(scores)) if scores else math.nan


def _nearest_other(lengths: Int[np.ndarray, "N"], own: int) -> int:
    """The length nearest to `own` (the shorter of two) among the sorted ones, itself taken out."""
    place = int(np.searchsorted(lengths, own))
    around = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    return int(min((abs(int(n) - own), int(n)) for n in around)[1])


def distinct(written: Sequence[Sentence], order: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016, "A Diversity-Promoting Objective Function
    for Neural Conversation Models", section 5.1). Falls with the number of sentences."""
    total: Grams = Counter()
    for sentence in written:
        total.update(grams(sentence, order))
    return len(total) / total.total() if total else math.nan


def copies(written: Iterable[Sentence], train: Iterable[Sentence]) -> list[Sentence]:
    """Those of the sentences, each once, that are word for word among the training sentences: these
    are gone through once, and may be more than memory holds."""
    asked = {tuple(sentence) for sentence in written}
    return list({known for sentence in train if (known := tuple(sentence)) in asked})


def novelty(written: Sequence[Sentence], train: Sequence[Sentence]) -> float:
    """Share of the sentences that are not, word for word, among the training sentences, of which
    their `copies` are enough."""
    known = {tuple(sentence) for sentence in train}
    return float(np.mean([tuple(sentence) not in known for sentence in written]))


def nearest(written: Sequence[Sentence], train: Sequence[Sentence]) -> Float[np.ndarray, "M"]:
    """Edit distance of each sentence to its nearest training sentence, over the longer one's
    length: 0 is a copy, 1 has nothing in common with any. Exact, over all of `train`; an edit puts
    a token in, takes one out or exchanges one (Levenshtein 1966)."""
    measure = Levenshtein.normalized_distance
    found = [process.extractOne(sentence, train, scorer=measure) for sentence in written]
    return np.array([distance for _, distance, _ in found])


def apart(a: Sentence, b: Sentence) -> float:
    """Edit distance of two sentences over the longer one's length."""
    return Levenshtein.normalized_distance(a, b)


def lengths_apart(a: Sequence[Sentence], b: Sequence[Sentence]) -> float:
    """Total variation between two distributions of length: 0 if equal, 1 if they share none."""
    counts = [Counter(map(len, sentences)) for sentences in (a, b)]
    shares = [{k: v / c.total() for k, v in c.items()} for c in counts]
    every = set(shares[0]) | set(shares[1])
    return 0.5 * sum(abs(shares[0].get(k, 0.0) - shares[1].get(k, 0.0)) for k in every)
