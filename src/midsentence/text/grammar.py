"""`builtin:grammar`: English sentences from a probabilistic grammar whose entropy is known exactly.

`Grammar` picks one value of every factor, uniformly and independently, and draws from the sentence
node of that combination. Every quantity is in nats per sentence. The grammar is unambiguous, so the
entropy of strings is the entropy of derivations that `pcfg` computes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import islice, product
from typing import TYPE_CHECKING

from ..errors import UserError
from . import lexicon as lex
from .morphology import past, plural, third, wants_an
from .pcfg import NOTHING, Choice, Node, Repeat, Seq, maybe, ranked, word, words_of

if TYPE_CHECKING:
    from .readers import Line


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
        ("past", "singular"): past,
        ("past", "plural"): past,
        ("present", "singular"): third,
    }

    def inflected(verbs: lex.Words, tense: str, number: str) -> Node:
        form = forms.get((tense, number), str)
        return ranked(tuple(map(form, verbs)))

    def nouns(base: lex.Words, number: str) -> Node:
        return ranked(base if number == "singular" else tuple(map(plural, base)))

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
    pairs = zip(tokens, [*tokens[1:], "."], strict=False)  # not strict: nothing has no next word
    return ["an" if w == "a" and wants_an(after) else w for w, after in pairs]


@dataclass(frozen=True)
class Drawn:
    """A sentence, the factors it was drawn with, and its log-probability in nats."""

    text: str
    factors: dict[str, str]
    log_prob: float


class Grammar:
    """Sentences with a known truth: exact log-probabilities, exact entropy, factors as labels.

    How much of the truth can be learnt: maximum likelihood with k free probabilities exceeds the
    entropy by about k / 2N nats a sentence. The English rules have k = 8,400, so 0.07 nats
    (0.25 %) from N = 60,000 lines; a learner that shares nothing but names between the 648
    combinations of factors has k = 106,000 and an excess of 0.9 nats.
    """

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
        words = words_of(self._start)
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
            for token in words_of(node):
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

    def lines(self, n: int = 150_000, seed: int = 0, label: str | None = None) -> Iterator[Line]:
        """The sentences as a corpus, labelled with one factor if `label` names it."""
        if label is not None and label not in self.factors:
            close = get_close_matches(label, self.factors, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"It has {', '.join(self.factors)}."
            raise UserError(f"builtin:grammar has no label '{label}'. {hint}")
        from .readers import Line

        drawn = islice(self._stream(seed), n)
        return (Line(text=d.text, label=d.factors[label] if label else None) for d in drawn)
