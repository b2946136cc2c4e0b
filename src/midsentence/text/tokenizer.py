"""Strings <-> ids. Four kinds of token, one interface, built on HF `tokenizers`."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from ..errors import UserError
from ..opening import LARGE, Newer, known, read_json
from ..writing import write_whole
from .choosing import choose

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
HALF = re.compile("[\ud800-\udfff]")
"""Of a UTF-16 pair, which Python lets a string have."""
FORMAT = 1
KINDS = ("word", "char", "bpe", "unigram")

DEFAULT_SIZES = {"word": 20_000, "char": 8_000, "bpe": 8_192, "unigram": 8_192}
SMALLEST_LEARNED = 384
BYTES_A_PIECE = 200
"""A piece should be seen often enough to be learned: bytes of corpus for each, by default."""

MOST_COUNTED = 1 << 22
"""Different words that are counted at a time."""

LOOKED_AT = 20_000
LOOKED_AT_CHARS = 4_000_000
"""Lines and characters that `auto` looks at."""

# BPE training is quadratic in a word's length, so words, and runs of spaces, are cut before it sees
# them. The pieces put together are the text again, and a space stays with the word it leads.
PIECES = r" ?\S{1,64}|\s{1,64}(?!\S)|\s{1,64}"


class Tokenizer:
    """Sentences as ids: 0 to 3 are <pad>, <s>, </s>, <unk>. No text encodes to the first three.

    - ``word``: whitespace-separated words, the most frequent `vocab_size`, others ``<unk>`` (as is
      a literal ``<unk>`` in the text). Decoding gives the line up to whitespace.
    - ``char``: Unicode characters. Exact for characters seen in training; others are U+FFFD.
    - ``bpe``: byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019). Exact.
    - ``unigram``: unigram language model over bytes (Kudo 2018). Exact.

    `reason` says in a clause why this kind was chosen.
    """

    def __init__(self, kind: str, reason: str, inner: tokenizers.Tokenizer):
        self.kind, self.reason, self._inner = kind, reason, inner
        self._ids: dict[str, int] = inner.get_vocab()
        self._pieces = sorted(self._ids, key=self._ids.__getitem__)

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        kind: str = "auto",
        vocab_size: int | None = None,
        min_count: int = 1,
    ) -> "Tokenizer":
        """Learn a vocabulary from `lines`, which are read once and never held.

        `vocab_size` counts the four special ids; by default it is what `DEFAULT_SIZES` says, or
        less for a small corpus. Words, characters and bpe's pairs (also those seen once) seen less
        than `min_count` times are left out; unigram has no use for it. The same lines give the same
        ids.

        Raises UserError for an unknown kind, a size that is too small, or no text.
        """
        lines = iter(lines)
        reason = f"{kind} tokens were asked for"
        if kind == "auto":
            looked_at = _until(islice(lines, LOOKED_AT), len, LOOKED_AT_CHARS)
            kind, reason = choose(looked_at)
            lines = chain(looked_at, lines)
        if kind not in KINDS:
            raise UserError(f"tokenizer.kind = {kind!r} is not one of auto, {', '.join(KINDS)}")
        least = 261 if kind in ("bpe", "unigram") else 5
        if vocab_size is not None and vocab_size < least:
            raise UserError(
                f"tokenizer.vocab_size = {vocab_size} is too small for {kind}: {least} at least"
            )
        first = next(lines, None)
        if first is None:
            raise UserError("there is no text to learn a vocabulary from: give at least one line")
        lines = chain([first], lines)
        if kind in ("word", "char"):
            inner = _counted(lines, kind, vocab_size or DEFAULT_SIZES[kind], min_count)
        else:
            inner = _learned(lines, kind, vocab_size, min_count)
        return cls(kind, reason, inner)

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, special ones included."""
        return len(self._pieces)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Ids of each line, without ``<s>`` and ``</s>``: never 0, 1 or 2.

        What a user types is text, so a literal ``</s>`` is an unknown word and no control id.
        Raises UserError for a string that is not Unicode text (a lone surrogate).
        """
        for number, line in enumerate(lines, 1):
            if not line.isascii() and HALF.search(line):
                raise UserError(
                    f"line {number} holds half of a UTF-16 pair: it is not Unicode text"
                )
        if self.kind in ("word", "char"):
            # A look-up, which Python does faster and in less memory than a pre-tokenizer.
            find = self._ids.get
            return [[max(find(part, UNK), UNK) for part in _parts(self.kind, x)] for x in lines]
        found = self._inner.encode_batch_fast(list(lines), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The lines again; <pad>, <s> and </s> are skipped."""
        kept = [[int(i) for i in line if i >= UNK] for line in ids]
        if self.kind in ("word", "char"):
            # Read again it has to be one token again, which the five characters of <unk> are not.
            glue, unknown = (" ", SPECIALS[UNK]) if self.kind == "word" else ("", UNKNOWN)
            return [
                glue.join(unknown if i == UNK else self._pieces[i] for i in line) for line in kept
            ]
        return [str(self._inner.decode(line, skip_special_tokens=False)) for line in kept]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as a readable string; a byte that is no whole character shows as U+FFFD."""
        if self.kind in ("word", "char"):
            return [self._pieces[int(i)] for i in ids]
        return [str(self._inner.decode([int(i)], skip_special_tokens=False)) for i in ids]

    def save(self, path: Path) -> None:
        """One JSON file; it appears whole or not at all. Raises UserError for more than `load`
        would read again."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "reason": self.reason,
            "tokenizer": json.loads(self._inner.to_str()),
        }
        text = json.dumps(content, ensure_ascii=False)
        if len(text.encode()) > LARGE:
            raise UserError(
                f"a vocabulary of {self.vocab_size:,} tokens takes more than {LARGE:,} bytes: set "
                "tokenizer.vocab_size lower, or tokenizer.min_count higher"
            )
        write_whole(path, lambda p: p.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote. Raises UserError.

        Only the vocabulary, and BPE's merges, are taken from the file: how text is cut and put
        together is ours, and no expression of a stranger's is run.
        """
        content = read_json(path, LARGE)
        try:
            kind, reason = content["kind"], content["reason"]
            known(content["format"], FORMAT, path)
            if kind not in KINDS or not isinstance(reason, str):
                raise ValueError("another kind")
            held = content["tokenizer"]["model"]
            return cls(kind, reason, _made(kind, held["vocab"], held.get("merges", [])))
        except Newer:
            raise
        except Exception as error:  # `tokenizers` raises bare Exception
            first = str(error).partition("\n")[0][:200]
            raise UserError(f"{path} is not a tokenizer of midsentence ({first})") from None


def _parts(kind: str, line: str) -> Sequence[str]:
    return line.split() if kind == "word" else line


def _until(lines: Iterator[str], size: Callable[[str], int], enough: int) -> list[str]:
    """The first lines, up to the one that makes their sizes reach `enough`."""
    held: list[str] = []
    total = 0
    while total < enough and (line := next(lines, None)) is not None:
        held.append(line)
        total += size(line)
    return held


def _counted(
    lines: Iterator[str], kind: str, vocab_size: int, min_count: int
) -> tokenizers.Tokenizer:
    """A table of the most frequent words or characters; ties in alphabetical order."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(_parts(kind, line))
        if len(counts) > MOST_COUNTED:  # rare ones go, as often as need be: memory stays flat
            least = sorted(counts.values())[len(counts) // 2]
            counts = Counter({word: n for word, n in counts.items() if n > least})
    for special in SPECIALS:
        counts.pop(special, None)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked if count >= min_count][: vocab_size - len(SPECIALS)]
    table = {word: index for index, word in enumerate([*SPECIALS, *words])}
    return _made(kind, table)


def _learned(
    lines: Iterator[str], kind: str, vocab_size: int | None, min_count: int
) -> tokenizers.Tokenizer:
    """Byte-level BPE or unigram. No piece is a special: letters and punctuation never merge."""
    if vocab_size is None:
        most = DEFAULT_SIZES[kind]
        held = _until(lines, lambda line: len(line.encode()), most * BYTES_A_PIECE)
        total = sum(len(line.encode()) for line in held)
        vocab_size = min(most, max(SMALLEST_LEARNED, total // BYTES_A_PIECE))
        lines = chain(held, lines)
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": list(SPECIALS),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    trainer: Any
    if kind == "bpe":
        inner = _cut(tokenizers.Tokenizer(models.BPE()), kind)
        trainer = trainers.BpeTrainer(min_frequency=max(2, min_count), **common)
    else:
        inner = _cut(tokenizers.Tokenizer(models.Unigram()), kind)
        trainer = trainers.UnigramTrainer(unk_token=SPECIALS[UNK], **common)
    inner.train_from_iterator(lines, trainer)
    # Training registers the specials so that they match inside text. In one made afresh they don't.
    model = json.loads(inner.to_str())["model"]
    vocab = _settled(model["vocab"]) if kind == "unigram" else model["vocab"]
    return _made(kind, vocab, model.get("merges", []))


def _made(kind: str, vocab: Any, merges: Sequence[Any] = ()) -> tokenizers.Tokenizer:
    """A tokenizer from its vocabulary, which is checked: it may be anyone's.

    vocab: piece -> id, or for unigram (piece, score) by id. Raises ValueError, TypeError.
    """
    ids = dict(vocab) if kind != "unigram" else {piece: i for i, (piece, _) in enumerate(vocab)}
    if not all(isinstance(piece, str) and type(i) is int for piece, i in ids.items()):
        raise ValueError("a piece that is no text, or an id that is no number")
    if sorted(ids.values()) != list(range(len(vocab))):
        raise ValueError("its ids have gaps")
    if [ids.get(special) for special in SPECIALS] != [PAD, BOS, EOS, UNK]:
        raise ValueError("ids 0 to 3 are not the special ones")
    if kind in ("word", "char"):
        return _cut(tokenizers.Tokenizer(models.WordLevel(ids, unk_token=SPECIALS[UNK])), kind)
    if kind == "unigram":
        scores = [(str(piece), float(score)) for piece, score in vocab]
        if not all(map(math.isfinite, (score for _, score in scores))):
            raise ValueError("a score that is no finite number")
        return _cut(tokenizers.Tokenizer(models.Unigram(scores, UNK, False)), kind)
    pairs = [(str(left), str(right)) for left, right in merges]
    if not all({left, right, left + right} <= ids.keys() for left, right in pairs):
        raise ValueError("a merge of pieces that are not in the vocabulary")
    return _cut(tokenizers.Tokenizer(models.BPE(ids, pairs)), kind)


def _cut(inner: tokenizers.Tokenizer, kind: str) -> tokenizers.Tokenizer:
    """How text of this kind is cut before its pieces are sought, and put together again."""
    if kind in ("bpe", "unigram"):
        pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pieces, whole])
        inner.decoder = decoders.ByteLevel()
    # For other readers of tokenizer.json: `encode` looks words up by itself.
    elif kind == "word":
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.|\n)"), "isolated")
    return inner


def _settled(vocab: list[list[Any]]) -> list[list[Any]]:
    """Unigram pieces in one order with one score each, whatever order the trainer's hashes took.

    The trainer adds up in a random order, and gives bytes it never saw scores that grow by 1e-4
    from the lowest one in a random order: the former is rounded away, the latter made equal.
    """
    learned = vocab[len(SPECIALS) :]
    lowest = round(min(score for _, score in learned), 6)
    unseen = lowest + 256e-4 + 1e-5
    scores = {
        piece: lowest if len(piece) == 1 and score < unseen else round(score, 6)
        for piece, score in learned
    }
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [[special, -1e4] for special in SPECIALS] + [list(item) for item in ranked]
