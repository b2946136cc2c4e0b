"""From a run to how good its text and its latent are: what `evaluate --quality` does, in Python."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from . import judging
from .bundle import TextVAE
from .errors import UserError
from .measuring import quality
from .measuring.probing import Probe, dci, mig
from .text.corpus import Corpus
from .text.store import Pick, TokenStore, pick

WRITTEN, RECONSTRUCTED, PATHS, STEPS = 1000, 500, 50, 7
"""Samples from the prior (as many as there are held-out sentences to stand beside them, at most),
held-out sentences written back, pairs walked between, points of one."""

KNOWN, NEAREST = 200_000, 200
"""Training sentences that the nearest is looked for among (copies are among all of them); sentences
that have their nearest looked for."""

BLOCK = 4096
"""Sentences of the whole corpus that are held at once."""

PROBED, IMPORTANCE = 5000, 20
"""Training sentences a probe is fitted to, and importance samples for the NLL of a walk."""

LEARNED, LEARNING = 10_000, 1000
"""Sentences that a reverse model is trained on, and its steps."""


def appraise(
    model: TextVAE, data: Corpus, *, judge: TextVAE | None = None, seed: int = 0
) -> dict[str, float]:
    """The table of `evaluate --quality`, shares but for lengths (tokens), NLLs (nats a token) and
    perplexities (a token of the judge's).

    Of samples from the prior in use: distinct-1/2/3, self-BLEU, novelty, the distance to the
    nearest training sentence, lengths. Of held-out sentences: the same where it is a comparison,
    BLEU and exact matches of their greedy reconstructions, and walks between pairs of them: the
    edit distance of a step and of the ends, the NLL, by this model, of what is written on the way
    and at its ends. A model with labels is told those of the sentences, and walks between two of
    one label. If the corpus has labels, the accuracy of a linear probe on posterior means, of
    sentences whose label is not told; if it is builtin:grammar, MIG and DCI against its factors.
    With a `judge`, a language model of the real text, forward and reverse perplexity; the latter
    trains two language models, for minutes.
    Keys that end in ``_real`` are of real text. Functions and sources: `measuring.quality`,
    `measuring.probing`, `judging`.
    """
    held = pick(data.test if len(data.test) else data.valid, WRITTEN, seed)
    text = model.sample(len(held), seed=seed)
    found = _samples(model.tokenizer.encode(text), held, data, seed)
    if judge is not None:
        found |= _judged(model, judge, text, held, data, seed)
    if model.latent:
        found |= _reconstructions(model, held, seed) | _walks(model, held, seed)
        found |= _labels(model, data, held, seed) | _factors(model, data, held, seed)
    return found


def _ids(store: Pick) -> list[list[int]]:
    return [store[i].tolist() for i in range(len(store))]


def _every(store: TokenStore) -> Iterator[list[int]]:
    """All sentences in their order, read by blocks: one by one a mapped array takes its time."""
    for start in range(0, len(store), BLOCK):
        offsets = store.offsets[start : start + BLOCK + 1]
        tokens = store.tokens[offsets[0] : offsets[-1]].tolist()
        for begin, end in pairwise((offsets - offsets[0]).tolist()):
            yield tokens[begin:end]


def _text(model: TextVAE, store: Pick) -> list[str]:
    return model.tokenizer.decode(_ids(store))


def _told(model: TextVAE, store: Pick) -> list[str | None]:
    """The sentences' labels, where the model is conditional on them."""
    if store.labels is None:
        return [None] * len(store)
    known: dict[int, str | None] = dict(enumerate(model.labels))
    return [known.get(int(number)) for number in store.labels]


def _samples(
    samples: Sequence[quality.Sentence], held: Pick, data: Corpus, seed: int
) -> dict[str, float]:
    real = _ids(held)
    known = _ids(pick(data.train, KNOWN, seed))
    copies = quality.copies([*samples, *real], _every(data.train))
    others = _ids(pick(data.train, len(held), seed + 1))
    return {
        **{f"distinct_{n}": quality.distinct(samples, n) for n in (1, 2, 3)},
        **{f"distinct_{n}_real": quality.distinct(real, n) for n in (1, 2, 3)},
        "self_bleu": quality.self_bleu(samples),
        "self_bleu_real": quality.self_bleu(real),
        "novelty": quality.novelty(samples, copies),
        "novelty_real": quality.novelty(real, copies),
        "nearest": float(quality.nearest(samples[:NEAREST], known).mean()),
        "nearest_real": float(quality.nearest(_ids(pick(held, NEAREST, seed)), known).mean()),
        "length": float(np.mean([len(s) for s in samples])),
        "length_real": float(np.mean([len(s) for s in real])),
        "lengths_apart": quality.lengths_apart(samples, real),
        "lengths_apart_real": quality.lengths_apart(others, real),
    }


def _judged(
    model: TextVAE, judge: TextVAE, text: Sequence[str], held: Pick, data: Corpus, seed: int
) -> dict[str, float]:
    real = _text(model, held)
    count = min(LEARNED, len(data.train))
    lessons = {
        "": model.sample(count, seed=seed + 1),
        "_real": _text(model, pick(data.train, count, seed + 1)),
    }
    found = {}
    for of, lines in {"_real": real, "": text}.items():
        scored = judging.score(judge, lines)
        if of and scored.unknown > judging.STRANGE:  # all text would be alike to it
            raise UserError(
                f"the judge does not know {scored.unknown:.0%} of the real text's tokens: train "
                "one on the same text"
            )
        found[f"forward_ppl{of}"], found[f"forward_ppl_stderr{of}"] = scored.perplexity()
        found[f"unknown{of}"] = scored.unknown
        found[f"reverse_ppl{of}"], found[f"reverse_ppl_stderr{of}"] = judging.reverse(
            lessons[of], real, judge.tokenizer, steps=LEARNING, seed=seed
        )
    return found


def _reconstructions(model: TextVAE, held: Pick, seed: int) -> dict[str, float]:
    some = pick(held, RECONSTRUCTED, seed)
    lines = _text(model, some)
    backs = model.reconstruct(lines, label=_told(model, some))
    written, asked = (model.tokenizer.encode(text) for text in (backs, lines))
    return {
        "reconstruction_exact": float(np.mean([a == b for a, b in zip(lines, backs, strict=True)])),
        "reconstruction_bleu": quality.bleu(written, [[s] for s in asked]),
    }


def _walks(model: TextVAE, held: Pick, seed: int) -> dict[str, float]:
    some = pick(held, 2 * PATHS, seed)
    lines, told = _text(model, some), _told(model, some)
    order = np.random.default_rng(seed).permutation(len(lines)).tolist()
    pairs: list[tuple[int, int]] = []
    for label in dict.fromkeys(told):
        rows = [row for row in order if told[row] == label]
        pairs += zip(rows[::2], rows[1::2], strict=False)
    steps, across, inner, ends = [], [], [], []
    for a, b in pairs:
        path = model.interpolate(lines[a], lines[b], STEPS, label=told[a])
        ids = model.tokenizer.encode(path)
        steps += [quality.apart(x, y) for x, y in pairwise(ids)]
        across.append(quality.apart(ids[0], ids[-1]))
        written = [(line, told[a]) for line in path]
        inner += written[1:-1]
        ends += [written[0], written[-1]]
    return {
        "step": float(np.mean(steps)) if steps else math.nan,
        "ends_apart": float(np.mean(across)) if across else math.nan,
        "walk_nll": _nll(model, inner),
        "ends_nll": _nll(model, ends),
    }


def _nll(model: TextVAE, written: Sequence[tuple[str, str | None]]) -> float:
    """Nats a token of lines with their labels, sums first; a line of nothing has no score."""
    written = [(line, label) for line, label in written if line.strip()]
    if not written:
        return math.nan
    lines, labels = zip(*written, strict=True)
    scores = model.score(lines, IMPORTANCE, label=labels)
    return -sum(s.log_px for s in scores) / sum(s.tokens for s in scores)


def _labels(model: TextVAE, data: Corpus, held: Pick, seed: int) -> dict[str, float]:
    if data.train.labels is None or held.labels is None:
        return {}
    parts = []
    for store in (pick(data.train, PROBED, seed), held):
        z = model.encode(_text(model, store))
        y = torch.as_tensor(np.asarray(store.labels)).long()
        known = (y >= 0) & (y < len(data.train.label_names))
        parts.append((z[known], y[known]))
    (z, y), (unseen, truth) = parts
    if len(y) < 2 or not len(truth):
        return {}
    probe = Probe(z, y, len(data.train.label_names))
    usual = int(torch.bincount(y).argmax())
    return {
        "probe": probe.accuracy(unseen, truth),
        "probe_majority": float((truth == usual).double().mean()),
    }


def _factors(model: TextVAE, data: Corpus, held: Pick, seed: int) -> dict[str, float]:
    if model.config.corpus.source != "builtin:grammar":
        return {}
    from .text.grammar import Grammar

    grammar = Grammar()
    parts = []
    for store in (pick(data.train, PROBED, seed), held):
        lines = _text(model, store)
        read = [(line, grammar.derivations(line)) for line in lines]
        whole = [(line, f[0][0]) for line, f in read if f]  # one with <unk> is not in the language
        if not whole:
            return {}
        parts.append((model.encode([line for line, _ in whole]), [f for _, f in whole]))
    (z, known), (unseen, truth) = parts
    importance, accuracies, guesses, numbered = [], [], [], []
    for name in sorted(known[0]):
        values = sorted({f[name] for f in known})
        number: Mapping[str, int] = {value: i for i, value in enumerate(values)}
        y, asked = (torch.tensor([number.get(f[name], 0) for f in fs]) for fs in (known, truth))
        probe = Probe(z, y, len(values))
        importance.append(probe.importance)
        accuracies.append(probe.accuracy(unseen, asked))
        guesses.append(float((asked == torch.bincount(y).argmax()).double().mean()))
        numbered.append(y)
    disentangled, complete = dci(torch.stack(importance, 1))
    return {
        "mig": mig(z, numbered),
        "dci_disentanglement": disentangled,
        "dci_completeness": complete,
        "dci_informativeness": float(np.mean(accuracies)),
        "factors_majority": float(np.mean(guesses)),
    }
