"""`builtin:grammar`: English sentences from a probabilistic grammar whose entropy is known exactly.

First a tiny engine (`Words`, `Seq`, `Choice`, `Repeat`), then the English, then `Grammar`, which
picks one value of every factor, uniformly and independently, and draws from the sentence node of
that combination. Every quantity is in nats per sentence.

For an unambiguous grammar the entropy of strings is the entropy of derivations,

    H(A) = sum_r p_r ( -log p_r + sum_{B in r} H(B) )

(Grenander 1976, Syntax-controlled probabilities; Chi 1999, Statistical properties of
probabilistic context-free grammars, Computational Linguistics 25(1)).
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import accumulate, islice, product
from typing import TYPE_CHECKING

from ..errors import UserError
from . import lexicon as lex

if TYPE_CHECKING:
    from .readers import Line

Ends = list[tuple[int, float]]  # one entry a derivation: where it ends, its log-probability


class Node(ABC):
    """A distribution over token sequences. Nodes are shared freely: they hold no drawing state."""

    entropy: float  # of a derivation, nats
    length: float  # expected number of tokens
    words: frozenset[str]  # every token it can produce

    @abstractmethod
    def sample(self, rng: random.Random, out: list[str]) -> float:
        """Append one draw to `out`; its log-probability in nats."""

    @abstractmethod
    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        """Every derivation of some `tokens[at:end]`, one entry each."""


class _Weighted:
    """Normalised weights: p_r, log p_r, the entropy of the choice, and a draw by bisection."""

    def __init__(self, weights: Iterable[float]) -> None:
        raw = list(weights)
        total = math.fsum(raw)
        self.probs = [w / total for w in raw]
        self.logs = [math.log(p) for p in self.probs]
        self.entropy = -math.fsum(p * lp for p, lp in zip(self.probs, self.logs, strict=True))
        self._edges = list(accumulate(self.probs))[:-1]  # the last one is 1 up to rounding

    def draw(self, rng: random.Random) -> int:
        return bisect_right(self._edges, rng.random())


class Words(Node):
    """One token out of a weighted class."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weighted = _Weighted(weights.values())
        self.tokens = list(weights)
        self.log_probs = dict(zip(self.tokens, self.weighted.logs, strict=True))
        self.entropy, self.length = self.weighted.entropy, 1.0
        self.words = frozenset(self.tokens)

    def sample(self, rng: random.Random, out: list[str]) -> float:
        i = self.weighted.draw(rng)
        out.append(self.tokens[i])
        return self.weighted.logs[i]

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        found = self.log_probs.get(tokens[at]) if at < len(tokens) else None
        return [] if found is None else [(at + 1, found)]


class Seq(Node):
    """Its parts one after the other, independently: H = sum of H(part)."""

    def __init__(self, *parts: Node) -> None:
        self.parts = parts
        self.entropy = math.fsum(part.entropy for part in parts)
        self.length = math.fsum(part.length for part in parts)
        self.words = frozenset().union(*(part.words for part in parts))

    def sample(self, rng: random.Random, out: list[str]) -> float:
        total = 0.0
        for part in self.parts:
            total += part.sample(rng, out)
        return total

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        ends: Ends = [(at, 0.0)]
        for part in self.parts:
            ends = [(e, a + b) for m, a in ends for e, b in part.parse(tokens, m)]
        return ends


class Choice(Node):
    """One branch out of several: H = sum_r p_r (-log p_r + H(branch_r))."""

    def __init__(self, branches: Iterable[tuple[float, Node]]) -> None:
        weights, nodes = zip(*branches, strict=True)
        self.weighted, self.nodes = _Weighted(weights), list(nodes)
        pairs = list(zip(self.weighted.probs, self.nodes, strict=True))
        self.entropy = self.weighted.entropy + math.fsum(p * node.entropy for p, node in pairs)
        self.length = math.fsum(p * node.length for p, node in pairs)
        self.words = frozenset().union(*(node.words for node in self.nodes))

    def sample(self, rng: random.Random, out: list[str]) -> float:
        i = self.weighted.draw(rng)
        return self.weighted.logs[i] + self.nodes[i].sample(rng, out)

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        branches = zip(self.weighted.logs, self.nodes, strict=True)
        return [(e, lp + b) for lp, node in branches for e, b in node.parse(tokens, at)]


class Repeat(Node):
    """The recursive rule R -> () with 1 - q | item R with q: a geometric number of items.

    H(R) = h(q) + q (H(item) + H(R)) is solved in closed form by
    H(R) = (h(q) + q H(item)) / (1 - q), with h the binary entropy.
    """

    def __init__(self, more: float, item: Node) -> None:
        if item.parse((), 0):  # else one string would have infinitely many derivations
            raise ValueError("a repeated item must not be empty")
        self.item, self.weighted = item, _Weighted((1 - more, more))
        self.entropy = (self.weighted.entropy + more * item.entropy) / (1 - more)
        self.length = more * item.length / (1 - more)
        self.words = item.words

    def sample(self, rng: random.Random, out: list[str]) -> float:
        stop, more = self.weighted.logs
        total = stop
        while self.weighted.draw(rng):
            total += more + self.item.sample(rng, out)
        return total

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        stop, more = self.weighted.logs
        here: Ends = [(at, stop)]
        ends: Ends = []
        while here:
            ends += here
            here = [(e, a + more + b) for m, a in here for e, b in self.item.parse(tokens, m)]
        return ends


NOTHING = Seq()


@cache
def word(token: str) -> Node:
    """One certain token."""
    return Words({token: 1.0})


def maybe(probability: float, node: Node) -> Node:
    """`node` with this probability, else nothing."""
    return Choice([(probability, node), (1 - probability, NOTHING)])


@cache
def ranked(phrases: tuple[str, ...], exponent: float = 1.0) -> Node:
    """Zipf over a list in order of rank: weight rank^-exponent."""
    weights = [rank**-exponent for rank in range(1, len(phrases) + 1)]
    if any(" " in phrase for phrase in phrases):
        parts = [Seq(*map(word, phrase.split())) for phrase in phrases]
        return Choice(zip(weights, parts, strict=True))
    return Words(dict(zip(phrases, weights, strict=True)))


@dataclass(frozen=True)
class Rules:
    """A family of grammars: what varies, and the sentence node for one value of each factor.

    `sentence` takes the factors by name. Different combinations must yield disjoint languages.
    """

    factors: dict[str, tuple[str, ...]]
    sentence: Callable[..., Node]


def english(words: lex.Lexicon = lex.ENGLISH) -> Rules:
    """The English rules. Each choice that two cells share is built once, hence the caches.

    Every sentence shows all of its factors: topic in the object, tense in the verb or auxiliary,
    number in the subject, form in the auxiliary and full stop, and sentiment in an adverb, an
    ending, or both, which is why those two cannot be optional independently.
    """
    # Names are flatter than Zipf, so that each is met some ten times in 60k lines.
    person, town = ranked(words.people, 0.6), ranked(words.towns, 0.6)
    the, audience = word("the"), ranked(words.audiences)
    forms: dict[tuple[str, str], Callable[[str], str]] = {
        ("past", "singular"): lex.past,
        ("past", "plural"): lex.past,
        ("present", "singular"): lex.third,
    }

    def inflected(verbs: lex.Words, tense: str, number: str) -> Node:
        form = forms.get((tense, number), str)
        return ranked(tuple(map(form, verbs)))

    def nouns(base: lex.Words, number: str) -> Node:
        return ranked(base if number == "singular" else tuple(map(lex.plural, base)))

    @cache
    def subject(topic: str, tense: str, number: str, sentiment: str) -> Node:
        one = number == "singular"
        agent = nouns(words.topics[topic].agents, number)
        bond = inflected(words.bonds[sentiment], tense, number)
        other = word("another" if one else "other")
        quality = maybe(0.3, ranked(words.qualities[sentiment]))
        described = Seq(ranked(words.determiners[number]), quality, agent)
        person_known = Repeat(0.08, Seq(word("who"), bond, other, agent))
        named = Seq(person, maybe(0.5, Seq(the, agent)) if one else Seq(word("and"), the, agent))
        return Choice([(0.87, Seq(described, person_known)), (0.13, named)])

    @cache
    def thing_and_place(topic: str) -> Node:
        found = words.topics[topic]
        adjective = maybe(0.25, ranked(found.adjectives))
        things = [
            (p, Seq(ranked(words.determiners[number]), adjective, nouns(found.objects, number)))
            for number, p in (("singular", 0.6), ("plural", 0.4))
        ]
        of_town = maybe(0.4, Seq(word("of"), town))
        place = Seq(ranked(words.prepositions), the, ranked(found.places), of_town)
        return Seq(Choice(things), maybe(0.25, place))

    @cache
    def ending(tense: str, sentiment: str, asked: bool) -> Node:
        feeling = ranked(words.feelings[sentiment])
        comma, and_ = word(","), word("and")
        be = {"past": "was", "present": "is", "future": "will"}[tense]
        infinitive = word("be") if tense == "future" else NOTHING
        if asked:
            return Seq(comma, and_, word(be), audience, infinitive, feeling)
        will = word("will") if tense == "future" else NOTHING
        third_form = "plural" if tense == "future" else "singular"  # the bare form after `will`
        effect = inflected(words.effects[sentiment], tense, third_form)
        felt = Seq(comma, and_, audience, word(be), infinitive, feeling)
        return Choice([(0.6, felt), (0.4, Seq(comma, word("which"), will, effect, audience))])

    def sentence(topic: str, tense: str, number: str, sentiment: str, form: str) -> Node:
        verbs, asked = words.topics[topic].verbs, form == "question"
        does = "does" if number == "singular" else "do"
        auxiliary = word({"past": "did", "present": does, "future": "will"}[tense])
        who = subject(topic, tense, number, sentiment)
        rest, when = thing_and_place(topic), ranked(words.times[tense])
        adverb, end = ranked(words.adverbs[sentiment]), ending(tense, sentiment, asked)

        def clause(adverb: Node, end: Node) -> Node:
            if asked:
                asking = Seq(auxiliary, who, adverb, ranked(verbs), rest, maybe(0.3, when))
                return Seq(asking, end, word("?"))
            if form == "negation":  # sadly did not go, but will sadly not go
                order = (auxiliary, adverb) if tense == "future" else (adverb, auxiliary)
                does_so = Seq(*order, word("not"), ranked(verbs))
            elif tense == "future":
                does_so = Seq(auxiliary, adverb, ranked(verbs))
            else:
                does_so = Seq(adverb, inflected(verbs, tense, number))
            body = Seq(who, does_so, rest)
            told = Choice([(0.6, body), (0.25, Seq(when, body)), (0.15, Seq(body, when))])
            return Seq(told, end, word("."))

        return Choice(
            [
                (0.62, clause(adverb, NOTHING)),
                (0.3, clause(NOTHING, end)),
                (0.08, clause(adverb, end)),
            ]
        )

    factors = {
        "topic": tuple(words.topics),
        "tense": lex.TENSES,
        "number": lex.NUMBERS,
        "sentiment": lex.SENTIMENTS,
        "form": lex.FORMS,
    }
    return Rules(factors, sentence)


def _spell(tokens: Sequence[str]) -> list[str]:
    """`a` becomes `an` before a vowel. One-to-one on what the rules write: no probability moves."""
    following = [*tokens[1:], "."]
    return [
        "an" if w == "a" and lex.wants_an(nxt) else w
        for w, nxt in zip(tokens, following, strict=True)
    ]


@dataclass(frozen=True)
class Drawn:
    """A sentence, the factors it was drawn with, and its log-probability in nats."""

    text: str
    factors: dict[str, str]
    log_prob: float


class Grammar:
    """Sentences with a known truth: exact log-probabilities, exact entropy, factors as labels."""

    def __init__(self, rules: Rules | None = None) -> None:
        rules = rules or english()
        self.factors = rules.factors
        self._cells = [
            dict(zip(self.factors, values, strict=True))
            for values in product(*self.factors.values())
        ]
        self._nodes = [rules.sentence(**cell) for cell in self._cells]
        self._start = Choice((1.0, node) for node in self._nodes)

    def entropy(self) -> float:
        """Nats per sentence, the choice of the factors included."""
        return self._start.entropy

    def mean_length(self) -> float:
        """Expected tokens per sentence, punctuation included."""
        return self._start.length

    def vocabulary(self) -> list[str]:
        """Every token that can occur, sorted."""
        words = self._start.words
        return sorted(words | {"an"} if "a" in words else words)

    def draw(self, n: int, seed: int = 0) -> list[Drawn]:
        """`n` independent sentences; a smaller `n` gives the beginning of the same list."""
        return list(islice(self._stream(seed), n))

    def _stream(self, seed: int) -> Iterator[Drawn]:
        rng = random.Random(seed)
        choice = self._start.weighted
        while True:
            i, out = choice.draw(rng), []  # type: int, list[str]
            log_prob = choice.logs[i] + self._nodes[i].sample(rng, out)
            yield Drawn(" ".join(_spell(out)), dict(self._cells[i]), log_prob)

    @cached_property
    def _cells_of(self) -> dict[str, int]:
        # One bit a cell: and-ing over a sentence leaves the few cells that know all its words.
        masks: dict[str, int] = {}
        for i, node in enumerate(self._nodes):
            for token in node.words:
                masks[token] = masks.get(token, 0) | 1 << i
        return masks

    def derivations(self, sentence: str) -> list[tuple[dict[str, str], float]]:
        """The factors and log-probability (nats) of every derivation: one at most."""
        written = sentence.split()
        tokens = ["a" if token == "an" else token for token in written]
        if _spell(tokens) != written:
            return []
        open_cells = (1 << len(self._nodes)) - 1
        for token in tokens:
            open_cells &= self._cells_of.get(token, 0)
        found = []
        while open_cells:
            i = (open_cells & -open_cells).bit_length() - 1
            open_cells &= open_cells - 1
            for end, log_prob in self._nodes[i].parse(tokens, 0):
                if end == len(tokens):
                    found.append((dict(self._cells[i]), self._start.weighted.logs[i] + log_prob))
        return found

    def log_prob(self, sentence: str) -> float:
        """Nats for the whole sentence, its end included; -inf outside the language."""
        found = self.derivations(sentence)
        return found[0][1] if found else -math.inf

    def factors_of(self, sentence: str) -> dict[str, str]:
        """The factors a sentence was drawn with, read off its words."""
        found = self.derivations(sentence)
        if not found:
            raise UserError(f"not a sentence of builtin:grammar: {sentence[:80]!r}")
        return found[0][0]

    def lines(self, n: int = 60_000, seed: int = 0, label: str | None = None) -> Iterator[Line]:
        """The sentences as a corpus, labelled with one factor if `label` names it."""
        if label is not None and label not in self.factors:
            close = get_close_matches(label, self.factors, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"It has {', '.join(self.factors)}."
            raise UserError(f"builtin:grammar has no label '{label}'. {hint}")
        from .readers import Line

        drawn = islice(self._stream(seed), n)
        return (Line(text=d.text, label=d.factors[label] if label else None) for d in drawn)
