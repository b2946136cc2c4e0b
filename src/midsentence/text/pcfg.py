"""A tiny engine of probabilistic grammars: nodes that draw, parse, and know their exact entropy.

`Words`, `Seq`, `Choice` and `Repeat` (the recursive rule) are all there is. Every quantity is in
nats. The entropy of a derivation is

    H(A) = sum_r p_r ( -log p_r + sum_{B in r} H(B) )

(Grenander 1976, Syntax-controlled probabilities; Chi 1999, Statistical properties of
probabilistic context-free grammars, Computational Linguistics 25(1)).
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate

Ends = list[tuple[int, float]]  # one entry a derivation: where it ends, its log-probability


class Node(ABC):
    """A distribution over token sequences. Nodes are shared freely: they hold no drawing state."""

    entropy: float  # of a derivation, nats
    length: float  # expected number of tokens
    children: Sequence[Node] = ()

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
        self.children = parts
        self.entropy = math.fsum(part.entropy for part in parts)
        self.length = math.fsum(part.length for part in parts)

    def sample(self, rng: random.Random, out: list[str]) -> float:
        total = 0.0
        for part in self.children:
            total += part.sample(rng, out)
        return total

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        ends: Ends = [(at, 0.0)]
        for part in self.children:
            ends = [(e, a + b) for m, a in ends for e, b in part.parse(tokens, m)]
        return ends


class Choice(Node):
    """One branch out of several: H = sum_r p_r (-log p_r + H(branch_r))."""

    def __init__(self, branches: Iterable[tuple[float, Node]]) -> None:
        weights, nodes = zip(*branches, strict=True)
        self.weighted, self.children = _Weighted(weights), nodes
        pairs = list(zip(self.weighted.probs, nodes, strict=True))
        self.entropy = self.weighted.entropy + math.fsum(p * node.entropy for p, node in pairs)
        self.length = math.fsum(p * node.length for p, node in pairs)

    def sample(self, rng: random.Random, out: list[str]) -> float:
        i = self.weighted.draw(rng)
        return self.weighted.logs[i] + self.children[i].sample(rng, out)

    def parse(self, tokens: Sequence[str], at: int) -> Ends:
        branches = zip(self.weighted.logs, self.children, strict=True)
        return [(e, lp + b) for lp, node in branches for e, b in node.parse(tokens, at)]


class Repeat(Node):
    """The recursive rule R -> () with 1 - q | item R with q: a geometric number of items.

    H(R) = h(q) + q (H(item) + H(R)) is solved in closed form by
    H(R) = (h(q) + q H(item)) / (1 - q), with h the binary entropy.
    """

    def __init__(self, more: float, item: Node) -> None:
        if item.parse((), 0):  # else one string would have infinitely many derivations
            raise ValueError("a repeated item must not be empty")
        self.item, self.children = item, (item,)
        self.weighted = _Weighted((1 - more, more))
        self.entropy = (self.weighted.entropy + more * item.entropy) / (1 - more)
        self.length = more * item.length / (1 - more)

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


def words_of(node: Node) -> set[str]:
    """Every token a node can produce. Each shared node is visited once."""
    words: set[str] = set()
    seen, todo = {id(node)}, [node]
    while todo:
        current = todo.pop()
        if isinstance(current, Words):
            words.update(current.tokens)
        fresh = [child for child in current.children if id(child) not in seen]
        seen.update(map(id, fresh))
        todo += fresh
    return words


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
