"""The grammar's probabilities and entropy are the truth others are held against: prove them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain, combinations

import jaxtyping
import pytest

from midsentence.errors import UserError
from midsentence.text import lexicon as lex
from midsentence.text.grammar import Grammar, Rules, english
from midsentence.text.morphology import past, plural, third
from midsentence.text.pcfg import NOTHING, Choice, Node, Repeat, Seq, Words, maybe, word, words_of


@pytest.fixture(scope="module", autouse=True)
def unchecked() -> Iterator[None]:
    """No shapes to check here, and checking each of some million small calls costs twenty-fold."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar()


def strings(node: Node, repeats: int) -> list[tuple[str, float]]:
    """Every derivation of a node with at most `repeats` rounds of each Repeat: (text, p)."""
    if isinstance(node, Words):
        return [(token, math.exp(lp)) for token, lp in node.log_probs.items()]
    if isinstance(node, Choice):
        branches = zip(node.weighted.probs, node.children, strict=True)
        return [(s, p * q) for p, branch in branches for s, q in strings(branch, repeats)]
    if isinstance(node, Repeat):
        stop, more = node.weighted.probs
        item = strings(node.item, repeats)
        rounds = [[("", 1.0)]]
        for _ in range(repeats):
            rounds.append([(f"{s} {t}", p * q * more) for s, p in rounds[-1] for t, q in item])
        return [(s, p * stop) for some in rounds for s, p in some]
    assert isinstance(node, Seq)
    found = [("", 1.0)]
    for part in node.children:
        found = [(f"{s} {t}", p * q) for s, p in found for t, q in strings(part, repeats)]
    return found


def enumerated(grammar: Grammar, repeats: int = 0) -> dict[str, float]:
    pairs = [(" ".join(text.split()), p) for text, p in strings(grammar._start, repeats)]
    assert len({text for text, _ in pairs}) == len(pairs), "a string has two derivations"
    return dict(pairs)


def toy(more: float) -> Grammar:
    animal = Words({"cat": 3.0, "dog": 1.0})

    def sentence(mood: str, time: str) -> Node:
        verb = word({"now": "sees", "then": "saw"}[time])
        clauses = Repeat(more, Seq(word("that"), verb, animal))
        end = word({"tell": ".", "ask": "?"}[mood])
        return Seq(animal, clauses, maybe(0.3, word("again")), verb, animal, end)

    return Grammar(Rules({"mood": ("tell", "ask"), "time": ("now", "then")}, sentence))


def entropy(probs: dict[str, float]) -> float:
    return -math.fsum(p * math.log(p) for p in probs.values())


def test_a_small_grammar_by_brute_force() -> None:
    grammar = toy(more=0.02)
    # The tail of more than five rounds holds 0.02^6 of the mass.
    probs = enumerated(grammar, repeats=5)
    assert math.fsum(probs.values()) == pytest.approx(1, abs=1e-9)
    assert entropy(probs) == pytest.approx(grammar.entropy(), abs=1e-7)
    length = math.fsum(p * len(text.split()) for text, p in probs.items())
    assert length == pytest.approx(grammar.mean_length(), abs=1e-7)
    for text, p in list(probs.items())[::37]:
        assert grammar.log_prob(text) == pytest.approx(math.log(p), abs=1e-12)


def test_the_english_rules_by_brute_force() -> None:
    grammar = Grammar(english(lex.ENGLISH.cut(topics=1, words=1)))
    probs = enumerated(grammar)  # no relative clause: each open sentence keeps its share of mass
    without = 1 - math.fsum(probs.values())
    related = 0.87 * 0.08
    assert without == pytest.approx(related, abs=1e-9)
    for text, p in list(probs.items())[::101]:
        assert grammar.log_prob(text) == pytest.approx(math.log(p), abs=1e-12)


def test_repetition_in_closed_form() -> None:
    item, q = Words({"a": 1.0, "b": 2.0, "c": 5.0}), 0.4
    rounds = range(200)
    terms = [(1 - q) * q**n * (n * item.entropy - math.log((1 - q) * q**n)) for n in rounds]
    assert Repeat(q, item).entropy == pytest.approx(math.fsum(terms), abs=1e-10)
    with pytest.raises(ValueError, match="empty"):
        Repeat(0.5, maybe(0.5, item))


class Positions:
    """The position automaton of a node: one state an occurrence of a word class (Glushkov 1961).

    A grammar is unambiguous iff no two different paths of this automaton read the same string.
    """

    def __init__(self, node: Node) -> None:
        self.labels: list[Words] = []
        self.follow: list[list[int]] = []
        self.empty, self.first, self.last = self.add(node)
        assert all(len(set(nexts)) == len(nexts) for nexts in self.follow)

    def link(self, before: list[int], after: list[int]) -> None:
        for p in before:
            self.follow[p] += after

    def add(self, node: Node) -> tuple[bool, list[int], list[int]]:
        if isinstance(node, Words):
            self.labels.append(node)
            self.follow.append([])
            return False, [len(self.labels) - 1], [len(self.labels) - 1]
        if isinstance(node, Choice):
            empties, firsts, lasts = zip(*map(self.add, node.children), strict=True)
            assert sum(empties) <= 1, "nothing can be derived in two ways"
            return any(empties), [*chain(*firsts)], [*chain(*lasts)]
        if isinstance(node, Repeat):
            _, first, last = self.add(node.item)
            self.link(last, first)
            return True, first, last
        assert isinstance(node, Seq)
        empty, first, last = True, [], []
        for part in node.children:
            part_empty, part_first, part_last = self.add(part)
            self.link(last, part_first)
            first = first + part_first if empty else first
            last = last + part_last if part_empty else part_last
            empty = empty and part_empty
        return empty, first, last

    def ambiguous(self) -> bool:
        final, meets = set(self.last), {}

        def meet(p: int, q: int) -> bool:
            a, b = self.labels[p], self.labels[q]
            key = (id(a), id(b))
            if key not in meets:
                meets[key] = not a.log_probs.keys().isdisjoint(b.log_probs)
            return meets[key]

        # Pairs of different states that some string reaches both, however it got there.
        forks = (pair for nexts in [self.first, *self.follow] for pair in combinations(nexts, 2))
        open_pairs = [pair for pair in forks if meet(*pair)]
        seen = set(open_pairs)
        while open_pairs:
            p, q = open_pairs.pop()
            if p in final and q in final:
                return True
            for pair in ((r, s) for r in self.follow[p] for s in self.follow[q] if meet(r, s)):
                if pair[0] == pair[1]:
                    return True
                if pair not in seen and pair[::-1] not in seen:
                    seen.add(pair)
                    open_pairs.append(pair)
        return False


def test_the_ambiguity_check_finds_ambiguity() -> None:
    a, b = word("a"), word("b")
    assert Positions(Choice([(1, a), (1, Words({"a": 1, "c": 1}))])).ambiguous()
    assert Positions(Seq(maybe(0.5, a), b, maybe(0.5, a), Repeat(0.5, a))).ambiguous()
    assert not Positions(Seq(maybe(0.5, a), b, Repeat(0.5, a))).ambiguous()
    assert not Positions(Seq(a, NOTHING)).ambiguous()


def test_no_sentence_of_a_topic_has_two_derivations() -> None:
    topics = {"court": lex.TOPICS["court"]}
    rules = english(lex.Lexicon(**vars(lex.ENGLISH) | {"topics": topics}))
    assert not Positions(Grammar(rules)._start).ambiguous()


def test_no_sentence_belongs_to_two_topics(grammar: Grammar) -> None:
    """Every sentence has an object, and no sentence of another topic has that word at all."""
    words: dict[str, set[str]] = {topic: set() for topic in lex.TOPICS}
    for cell, node in zip(grammar._cells, grammar._nodes, strict=True):
        words[cell["topic"]] |= words_of(node)
    for topic, found in lex.TOPICS.items():
        things = {*found.objects, *map(plural, found.objects)}
        assert len(things) == 2 * len(found.objects)
        for other in set(lex.TOPICS) - {topic}:
            assert not things & words[other], (topic, other)


def test_lists_are_whole() -> None:
    english_words = lex.ENGLISH
    for topic in lex.TOPICS.values():
        for found in vars(topic).values():
            assert len(set(found)) == len(found)
    ordinary = set(
        Grammar(
            english(lex.Lexicon(**vars(english_words) | {"people": ("x",), "towns": ("y",)}))
        ).vocabulary()
    )
    names = [*english_words.people, *english_words.towns]
    assert len(set(names)) == len(names)
    assert not ordinary & set(names)


def test_what_is_drawn_is_scored_alike(grammar: Grammar) -> None:
    for drawn in grammar.draw(2000, seed=3):
        ((factors, log_prob),) = grammar.derivations(drawn.text)
        assert log_prob == pytest.approx(drawn.log_prob, abs=1e-10)
        assert factors == drawn.factors == grammar.factors_of(drawn.text)
        assert list(factors) == list(grammar.factors)


def test_entropy_agrees_with_monte_carlo(grammar: Grammar) -> None:
    n = 20_000
    drawn = grammar.draw(n, seed=1)
    for values, truth in (
        ([-d.log_prob for d in drawn], grammar.entropy()),
        ([float(len(d.text.split())) for d in drawn], grammar.mean_length()),
    ):
        mean = math.fsum(values) / n
        variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
        assert abs(mean - truth) < 4 * math.sqrt(variance / n)
    assert 20 < grammar.entropy() < 30
    assert min(len(d.text.split()) for d in drawn) >= 6


def test_factors_are_uniform_and_independent(grammar: Grammar) -> None:
    n = 20_000
    drawn = grammar.draw(n, seed=2)
    for one, two in combinations(grammar.factors, 2):
        counts = Counter((d.factors[one], d.factors[two]) for d in drawn)
        cells = len(grammar.factors[one]) * len(grammar.factors[two])
        assert len(counts) == cells
        chi2 = sum((c - n / cells) ** 2 / (n / cells) for c in counts.values())
        freedom = cells - 1
        assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        ".",
        "the sailor happily repaired the boat",  # no end
        "the sailor happily repaired the boat . .",
        "the sailor happily repaired the boat ?",
        "the sailor repaired the boat .",  # no sentiment
        "the sailors happily repairs the boat .",  # number
        "tomorrow the sailor happily repaired the boat .",  # tense
        "the sailor happily repaired the soup .",  # topic
        "the sailor happily repaired the boat , and everyone was upset .",  # sentiment
        "the sailor happily repaired a oar .",
        "the sailor happily repaired an boat .",
        "the sailor happily repaired the boat <unk> .",
    ],
)
def test_what_is_not_english_has_no_probability(grammar: Grammar, sentence: str) -> None:
    assert grammar.log_prob(sentence) == -math.inf
    with pytest.raises(UserError, match="not a sentence"):
        grammar.factors_of(sentence)


def test_a_probability_by_hand(grammar: Grammar) -> None:
    def zipf(rank: int, size: int) -> float:
        return 1 / rank / sum(1 / r for r in range(1, size + 1))

    p = 1 / (12 * 3 * 2 * 3 * 3)  # factors
    p *= 0.62 * 0.6  # an adverb, no ending; no time
    p *= 0.87 * zipf(1, 4) * 0.7 * zipf(1, 12) * 0.92  # the sailor
    p *= zipf(1, 12) * zipf(1, 12)  # happily repaired
    p *= 0.6 * zipf(2, 4) * 0.75 * zipf(9, 24) * 0.75  # an oar
    sentence = "the sailor happily repaired an oar ."
    assert grammar.log_prob(sentence) == pytest.approx(math.log(p), abs=1e-10)
    assert grammar.factors_of(sentence) == {
        "topic": "sea",
        "tense": "past",
        "number": "singular",
        "sentiment": "positive",
        "form": "statement",
    }


def test_a_seed_fixes_the_sentences(grammar: Grammar) -> None:
    ten = grammar.draw(10, seed=7)
    assert ten == grammar.draw(200, seed=7)[:10] == Grammar().draw(10, seed=7)
    assert ten != grammar.draw(10, seed=8)


def test_the_vocabulary(grammar: Grammar) -> None:
    vocabulary = grammar.vocabulary()
    assert vocabulary == sorted(set(vocabulary))
    assert 2000 <= len(vocabulary) <= 4000
    drawn = {token for d in grammar.draw(2000) for token in d.text.split()}
    assert drawn <= set(vocabulary)


def test_lines_carry_a_label(grammar: Grammar) -> None:
    drawn = grammar.draw(50, seed=4)
    plain = list(grammar.lines(50, seed=4))
    labelled = list(grammar.lines(50, seed=4, label="topic"))
    assert [line.text for line in plain] == [d.text for d in drawn]
    assert {line.label for line in plain} == {None}
    assert [line.label for line in labelled] == [d.factors["topic"] for d in drawn]
    with pytest.raises(UserError, match=r"no label 'topics'\. Did you mean 'topic'\?"):
        grammar.lines(label="topics")
    with pytest.raises(UserError, match="It has topic, tense"):
        grammar.lines(label="xyz")


@pytest.mark.parametrize(
    ("form", "base", "written"),
    [
        (plural, "boat", "boats"),
        (plural, "fisherman", "fishermen"),
        (plural, "dish", "dishes"),
        (plural, "ruby", "rubies"),
        (plural, "donkey", "donkeys"),
        (third, "carry", "carries"),
        (third, "lash", "lashes"),
        (past, "tow", "towed"),
        (past, "hum", "hummed"),
        (past, "scrub", "scrubbed"),
        (past, "refuel", "refuelled"),
        (past, "bury", "buried"),
        (past, "hide", "hid"),
    ],
)
def test_inflection(form: object, base: str, written: str) -> None:
    assert callable(form) and form(base) == written
