"""Measures of text against values worked out by hand, and against slow plain forms."""

import json
import math
import random
from collections import namedtuple

import numpy as np
import pytest
import sacrebleu
import torch
from typer.testing import CliRunner

from lasting import LASTING
from midsentence import TextVAE, appraisal, judging, train
from midsentence.cli import app
from midsentence.measuring import probing, quality
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.grammar import Grammar
from midsentence.text.store import pick
from tiny import Lines

A, B, C, D, E, F = range(6)


def test_clipped_precision_of_the_paper_s_example():
    """ "the the the the the the the" against "the cat is on the mat": 2 of 7 unigrams count."""
    found, known = quality.grams([A] * 7, 1), quality.grams([A, B, C, D, A, E], 1)
    assert sum((found & known).values()) == 2
    assert quality.bleu([[A] * 7], [[[A, B, C, D, A, E]]]) == 0  # no bigram matches


def test_bleu_by_hand():
    written, reference = [A, B, C, D, E], [A, B, C, D, F, E]
    # unigrams 5/5, bigrams 3/4, trigrams 2/3, 4-grams 1/2; six words in the reference.
    expected = math.exp(1 - 6 / 5) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert quality.bleu([written], [[reference]]) == pytest.approx(expected)
    assert quality.bleu([reference], [[reference]]) == 1
    # Of a corpus: counts are added up before they are divided.
    both = quality.bleu([written, reference], [[reference], [reference]])
    parts = (11 / 11) * (8 / 9) * (6 / 7) * (4 / 5)
    assert both == pytest.approx(math.exp(1 - 12 / 11) * parts**0.25)


def test_a_second_reference_counts_where_it_has_more_and_lends_its_length():
    found = quality.bleu([[A, B, C, D, E]], [[[A, B, C, D], [B, C, D, E, F]]])
    assert found == pytest.approx((1 * 4 / 4 * 3 / 3 * 2 / 2) ** 0.25)


def slow_self_bleu(written):
    scores = []
    for i, sentence in enumerate(written):
        others = [s for j, s in enumerate(written) if j != i]
        logs = []
        for n in range(1, 5):
            own = quality.grams(sentence, n)
            if not own:
                continue
            hits = sum(
                min(count, max(quality.grams(o, n)[gram] for o in others))
                for gram, count in own.items()
            )
            logs.append(math.log(max(hits, quality.FLOOR) / sum(own.values())))
        length = min((abs(len(o) - len(sentence)), len(o)) for o in others)[1]
        scores.append(math.exp(min(0, 1 - length / len(sentence)) + np.mean(logs)))
    return np.mean(scores)


def test_self_bleu_is_the_mean_over_all_others():
    rng = np.random.default_rng(0)
    written = [rng.integers(0, 4, rng.integers(1, 9)).tolist() for _ in range(30)]
    assert quality.self_bleu(written) == pytest.approx(slow_self_bleu(written))
    assert quality.self_bleu([[A, B, C, D]] * 3) == pytest.approx(1)
    assert quality.self_bleu([[A, B, C, D, E], [F] * 5]) < 0.1
    assert math.isnan(quality.self_bleu([[A]]))


def test_distinct_and_novelty():
    written = [[A, B, A, B], [A, B]]
    assert quality.distinct(written, 1) == 2 / 6
    assert quality.distinct(written, 2) == 2 / 4  # ab, ba, ab; ab
    assert quality.distinct(written, 3) == 2 / 2  # aba, bab
    assert math.isnan(quality.distinct([[A]], 2))
    assert quality.novelty(written, [[A, B], [C]]) == 0.5


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    same = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


def test_edit_distance():
    kitten, sitting = ([ord(c) for c in word] for word in ("kitten", "sitting"))
    assert quality.apart(kitten, sitting) == 3 / 7
    assert quality.apart(kitten, []) == 1
    assert quality.apart([], []) == 0
    rng = np.random.default_rng(1)
    others = [(700_000 * rng.integers(0, 3, rng.integers(0, 6))).tolist() for _ in range(40)]
    for sentence in others[:10]:
        slow = [slow_distance(sentence, o) / max(1, len(sentence), len(o)) for o in others]
        assert [quality.apart(sentence, o) for o in others] == pytest.approx(slow)
        assert quality.nearest([sentence], others[10:]) == pytest.approx([min(slow[10:])])


def test_the_nearest_is_over_the_longer_length():
    found = quality.nearest([[A, B, C], [F]], [[A, B], [A, B, C, D, E, F]])
    assert found.tolist() == pytest.approx([1 / 3, 5 / 6])


def test_lengths_apart():
    assert quality.lengths_apart([[A], [A, B]], [[C], [C, D]]) == 0
    assert quality.lengths_apart([[A]], [[A, B]]) == 1
    assert quality.lengths_apart([[A], [A], [A, B]], [[A], [A, B], [A, B]]) == pytest.approx(1 / 3)


def mixed(*columns):
    """Every combination of the values of some factors, a row each."""
    grid = torch.cartesian_prod(*[torch.arange(c) for c in columns])
    return grid.repeat(40, 1) if grid.ndim > 1 else grid[:, None].repeat(40, 1)


def test_a_dimension_for_each_factor_is_disentangled():
    factors = mixed(2, 4)
    z = factors.double() + 0.01 * torch.randn(len(factors), 2, dtype=torch.float64)
    known = [factors[:, 0], factors[:, 1]]
    assert probing.mig(z, known) == pytest.approx(1, abs=0.05)
    twice = torch.cat([z, z], 1)  # every factor has two dimensions that tell the same
    assert probing.mig(twice, known) == pytest.approx(0, abs=0.02)
    assert probing.mig(torch.randn(len(z), 2), known) < 0.2


def test_a_dimension_that_tells_half_of_a_factor_leaves_half_a_gap():
    factor = mixed(4)[:, 0]
    z = torch.stack([factor, factor // 2], 1).double()  # ln 4 and ln 2 of its ln 4 nats
    assert probing.mig(z, [factor]) == pytest.approx(0.5)
    assert probing.mig(z, [factor, factor * 0]) == pytest.approx(0.5)  # what never varies


def test_information_by_hand():
    a = torch.tensor([0, 0, 1, 1])
    assert probing.entropy(a) == pytest.approx(math.log(2))
    assert probing.information(a, a) == pytest.approx(math.log(2))
    assert probing.information(a, torch.tensor([0, 1, 0, 1])) == pytest.approx(0)
    # Three of four agree: ln 2 + H(1/4, 3/4) - H(1/4, 1/4, 1/2)
    b = torch.tensor([0, 1, 1, 1])
    h = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    both = -(0.5 * math.log(0.25) + 0.5 * math.log(0.5))
    assert probing.information(a, b) == pytest.approx(math.log(2) + h - both)


def test_dci_by_hand():
    assert probing.dci(torch.eye(3)) == pytest.approx((1, 1))
    assert probing.dci(torch.ones(3, 3)) == pytest.approx((0, 0), abs=1e-12)
    # A factor of a single value is told by nothing, and does not count.
    assert probing.dci(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))[1] == pytest.approx(0, abs=1e-12)
    assert math.isnan(probing.dci(torch.zeros(2, 2))[1])
    # One dimension tells both factors, each factor is in one dimension.
    disentangled, complete = probing.dci(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert disentangled == pytest.approx(0, abs=1e-12)
    assert complete == pytest.approx(1)
    # Dimensions of weight 4/6 and 2/6; the first is 3 : 1 about two factors, the second pure.
    disentangled, complete = probing.dci(torch.tensor([[3.0, 1.0], [0.0, 2.0]]))

    def pure(p):
        return 1 + (p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)

    assert disentangled == pytest.approx(4 / 6 * pure(3 / 4) + 2 / 6)
    assert complete == pytest.approx((1 + pure(1 / 3)) / 2)


def test_a_probe_of_two_points_is_where_its_slope_is_zero():
    """z = -1, 1 told apart: by symmetry w = (-v, v), and sigma(-2 v u) 2 u = 2 v / 2 at the best v,
    u = 1 / sqrt 2 the standardised z; its share of importance is all there is."""
    probe = probing.Probe(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2)
    v, u = float(probe.weight[1, 0]), 1 / math.sqrt(2)
    assert float(probe.weight[0, 0]) == pytest.approx(-v)
    assert v == pytest.approx(2 * u / (1 + math.exp(2 * v * u)), abs=1e-4)
    assert probe.importance.tolist() == pytest.approx([1])
    assert probe.accuracy(torch.tensor([[-3.0], [0.5]]), torch.tensor([0, 0])) == 0.5


def test_a_probe_reads_what_is_linear_and_nothing_else():
    z = torch.randn(600, 3)
    linear = torch.stack([z[:, 0], z[:, 1] - z[:, 2], -z[:, 0]], 1).argmax(1)
    probe = probing.Probe(z[:400], linear[:400], 3)
    assert probe.accuracy(z[400:], linear[400:]) > 0.85
    crossed = (z[:, 0] * z[:, 1] > 0).long()
    assert probing.Probe(z[:400], crossed[:400], 2).accuracy(z[400:], crossed[400:]) < 0.65
    alone = (z[:, 1] > 0).long()
    assert probing.Probe(z, alone, 2).importance.argmax() == 1


class Told(TextVAE):
    """A model that says what it is told: z is out of it."""

    def __init__(self):
        pass

    class tokenizer:
        @staticmethod
        def encode(lines):
            return [[ord(word) for word in line.split()] for line in lines]

        @staticmethod
        def decode(ids):
            return [" ".join(map(chr, sentence)) for sentence in ids]

    labels = ("even", "odd")

    def reconstruct(self, lines, label):
        self.told = [label]
        return [lines[0], *(line[:-1] + "z" for line in lines[1:])]

    def interpolate(self, a, b, steps, label):
        self.told = [*getattr(self, "told", []), (a, b, label)]
        first, last = a.split()[0], b.split()[0]
        return [f"{first} x"] * 3 + [f"{last} x"] * 3 + ["y y"]

    def score(self, lines, samples, label):
        self.told.append(dict(zip(lines, label, strict=True)))
        return [Score(-3.0 * len(line.split()), len(line.split()) + 1) for line in lines]


Score = namedtuple("Score", "log_px tokens")


def held(*lines):
    return pick(Lines(Told.tokenizer.encode(lines)), len(lines), 0)


def test_reconstructions_of_a_model_that_changes_the_last_word():
    lines = ["a b c d e", "f g h i j"]
    found = appraisal._reconstructions(Told(), held(*lines), 0)
    assert found["reconstruction_exact"] == 0.5
    # Of both: 9 of 10 words, 7 of 8 pairs, 5 of 6 triples, 3 of 4 fours.
    assert found["reconstruction_bleu"] == pytest.approx((9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25)


def test_walks_of_a_model_whose_path_is_known():
    found = appraisal._walks(Told(), held("a b", "c d"), 0)
    assert found["step"] == pytest.approx((0.5 + 1) / 6)  # first word, then both, in six steps
    assert found["ends_apart"] == 1
    assert found["walk_nll"] == found["ends_nll"] == pytest.approx(6 / 3)
    nothing = appraisal._walks(Told(), held("a b"), 0)
    assert all(math.isnan(value) for value in nothing.values())


def test_a_model_with_labels_is_told_those_that_are_known():
    model, some = Told(), held(*(f"{letter} b" for letter in "abcdefgh"))
    some.labels = np.array([0, 1, -1, 0, 1, 0, 0, 7])  # training had two
    expected = ["even", "odd", None, "even", "odd", "even", "even", None]
    label = {f"{letter} b": each for letter, each in zip("abcdefgh", expected, strict=True)}
    appraisal._reconstructions(model, some, 0)
    assert model.told == [expected]
    model.told = []
    appraisal._walks(model, some, 0)
    *pairs, inner, ends = model.told
    assert sorted(a for pair in pairs for a in pair[:2]) == sorted(label)
    assert all(label[a] == label[b] == own for a, b, own in pairs)
    for written in (inner, ends):
        firsts = {line[0]: own for line, own in written.items() if line[0] != "y"}
        assert firsts
        assert all(label[f"{first} b"] == own for first, own in firsts.items())


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_copies_are_looked_for_in_the_whole_corpus(tmp_path, monkeypatch, block):
    """However many training sentences the nearest is looked for among."""
    lines = [f"{a} {b} {a * n}" for a in "abcd" for b in "efgh" for n in range(1, 5)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    data = prepare(str(tmp_path / "text.txt"), tmp_path / "corpus",
                   tokenizer_settings={"kind": "word"})  # fmt: skip
    monkeypatch.setattr(appraisal, "KNOWN", 5)
    monkeypatch.setattr(appraisal, "BLOCK", block)
    every = [data.train[i].tolist() for i in range(len(data.train))]
    assert list(appraisal._every(data.train)) == every
    some = pick(Lines([*every[:2], [900, 901]]), 3, 0)
    found = appraisal._samples([*every[::4], [A]], some, data, 0)
    assert found["novelty"] == pytest.approx(1 / (len(every[::4]) + 1))
    assert found["novelty_real"] == pytest.approx(1 / 3)
    assert sorted(quality.copies([[1, 2], [3], [1, 2]], iter([[3, 4], [1, 2], [1, 2]]))) == [(1, 2)]


def test_a_few_sentences_are_from_everywhere_in_a_sorted_corpus():
    """The first of a corpus sorted by length would all be short."""
    lines = [" ".join("a" * n) for n in range(1, 401)]
    asked = []
    told = Told()
    told.reconstruct = lambda given, label: asked.extend(given) or given
    few = appraisal.RECONSTRUCTED
    appraisal._reconstructions(told, held(*lines * 3), 0)
    assert len(asked) == few
    assert 150 < np.mean([len(line.split()) for line in asked]) < 250


def test_evaluate_quality_of_a_run(tmp_path, monkeypatch):
    lines = [f"{p} {v} {w}" for p in ("anna", "ben", "carla", "dirk", "emma")
             for v in ("sees", "likes", "paints") for w in ("water", "stone", "bread")]  # fmt: skip
    rows = [f"{'ab'[i % 2]}\t{line}" for i, line in enumerate(lines)]
    (tmp_path / "text.tsv").write_text("\n".join(rows) + "\n")
    settings = ["latent=2", "encoder.hidden=8", "decoder.hidden=8", "training.max_steps=5",
                "corpus.text_field='1'", "corpus.label_field='0'", "corpus.valid_fraction=0.2",
                "corpus.test_fraction=0.2", "tokenizer.kind=word"]  # fmt: skip
    train(str(tmp_path / "text.tsv"), tmp_path / "run", settings=settings)
    done = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "run"), "--samples", "2", "--quality", "--json"]
    )
    found = json.loads(done.stdout)["quality"]
    assert {"distinct_1", "self_bleu", "novelty", "nearest", "reconstruction_bleu", "step",
            "walk_nll", "probe", "probe_majority"} <= set(found)  # fmt: skip
    assert found["novelty_real"] == 1
    assert found["length_real"] == 3
    assert "mig" not in found
    shown = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--samples", "2",
                                     "--quality"])  # fmt: skip
    assert "self-BLEU" in shown.stdout
    asked = ["evaluate", str(tmp_path / "run"), "--samples", "2", "--json", "--judge"]
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "lm")])
    assert "--judge is for --quality" in str(done.exception)
    monkeypatch.setattr(appraisal, "LEARNING", 2)
    more = [s for s in settings if not s.startswith(("latent", "encoder"))]
    more.append("labels.condition=false")
    train(str(tmp_path / "text.tsv"), tmp_path / "lm", recipe="lm", settings=more)
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "lm"), "--quality"])
    found = json.loads(done.stdout)["quality"]
    judge = judging.open_judge(tmp_path / "lm")
    text = Corpus.open(tmp_path / "run" / "corpus").test
    real = judge.tokenizer.decode([text[i].tolist() for i in range(len(text))])
    assert found["forward_ppl_real"] == pytest.approx(judging.score(judge, real).perplexity()[0])
    assert found["reverse_ppl"] > 1 and found["reverse_ppl_stderr_real"] > 0
    assert found["unknown_real"] == 0


@LASTING
def test_the_factors_of_the_grammar_are_looked_for(tmp_path, monkeypatch):
    every = Grammar.lines
    # Shapes are checked in tests: to draw all 150,000 takes minutes.
    monkeypatch.setattr(Grammar, "lines", lambda self, **more: every(self, n=1200, **more))
    settings = ["latent=2", "encoder.hidden=8", "decoder.hidden=8", "training.max_steps=2"]
    model = train("builtin:grammar", tmp_path / "run", settings=settings)
    data = Corpus.open(tmp_path / "run" / "corpus")
    found = appraisal._factors(model, data, pick(data.test, 100, 0), 0)
    assert set(found) == {
        "mig", "dci_disentanglement", "dci_completeness", "dci_informativeness",
        "factors_majority",
    }  # fmt: skip
    assert all(0 <= v <= 1 for v in found.values())


def words(sentence):
    return " ".join(f"w{token}" for token in sentence)


def drawn(count, seed):
    chance = random.Random(seed)
    return [[chance.randrange(6) for _ in range(chance.randint(4, 9))] for _ in range(count)]


def test_bleu_is_sacrebleus():
    written, first, second = (drawn(60, seed) for seed in range(3))
    metric = sacrebleu.metrics.BLEU(tokenize="none", smooth_method="none", force=True)
    theirs = metric.corpus_score(
        list(map(words, written)), [list(map(words, first)), list(map(words, second))]
    )
    pairs = [list(both) for both in zip(first, second, strict=True)]
    assert quality.bleu(written, pairs) == pytest.approx(theirs.score / 100, rel=1e-9)


def test_self_bleu_is_the_mean_of_sacrebleus():
    written = [*drawn(40, 5), [0, 1], [2]]  # some are shorter than BLEU's orders
    metric = sacrebleu.metrics.BLEU(
        tokenize="none", smooth_method="floor", smooth_value=quality.FLOOR, effective_order=True
    )
    lines = list(map(words, written))
    theirs = [
        metric.sentence_score(line, lines[:i] + lines[i + 1 :]).score / 100
        for i, line in enumerate(lines)
    ]
    assert quality.self_bleu(written) == pytest.approx(sum(theirs) / len(theirs), rel=1e-9)
