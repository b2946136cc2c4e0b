"""Strings <-> ids. Four kinds of token, one interface, built on HF `tokenizers`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from ..errors import UserError

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
KINDS = ("word", "char", "bpe", "unigram")

LOOKED_AT = 20_000
"""Lines that `auto` looks at."""

# BPE training is quadratic in a word's length, so words are cut before it sees them. The pieces put
# together are the text again, and a space stays with the word it leads.
PIECES = r" ?\S{1,64}|\s+(?!\S)|\s+"

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class Tokenizer:
    """Sentences as ids. Ids 0 to 3 are <pad>, <s>, </s>, <unk>; no text ever encodes to the first three.

    - ``word``: whitespace-separated words, the most frequent `vocab_size`, others ``<unk>`` (as is
      a literal ``<unk>`` in the text). Decoding gives the line up to whitespace.
    - ``char``: Unicode characters. Exact for characters seen in training.
    - ``bpe``: byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019). Exact.
    - ``unigram``: unigram language model over bytes (Kudo 2018). Exact.
    """

    def __init__(self, kind: str, reason: str, inner: tokenizers.Tokenizer):
        self.kind, self.reason, self._inner = kind, reason, inner

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        kind: str = "auto",
        vocab_size: int | None = None,
        min_count: int = 1,
    ) -> "Tokenizer":
        """Learn a vocabulary. `vocab_size` counts the four special ids.

        Raises UserError for an unknown kind or a size that is too small.
        """
        lines = iter(lines)
        reason = f"{kind} tokens were asked for"
        if kind == "auto":
            looked_at = list(islice(lines, LOOKED_AT))
            kind, reason = choose(looked_at)
            lines = chain(looked_at, lines)
        if kind not in KINDS:
            raise UserError(f"tokenizer.kind = {kind!r} is not one of auto, {', '.join(KINDS)}")
        least = 261 if kind in ("bpe", "unigram") else 5
        if vocab_size is not None and vocab_size < least:
            raise UserError(f"tokenizer.vocab_size = {vocab_size} is too small: {least} at least")
        if kind in ("word", "char"):
            split = str.split if kind == "word" else list
            inner = _counted(lines, split, vocab_size or 20_000, min_count, kind)
        else:
            inner = _learned(lines, kind, vocab_size, min_count)
        return cls(kind, reason, inner)

    @property
    def vocab_size(self) -> int:
        return int(self._inner.get_vocab_size())

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Ids of each line, without ``<s>`` and ``</s>``."""
        # What a user types is text: a literal "</s>" is a word we do not know, never a control id.
        return [
            [UNK if i < UNK else i for i in encoding.ids]
            for encoding in self._inner.encode_batch_fast(list(lines), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The lines again; <pad>, <s> and </s> are skipped."""
        texts = []
        for line in ids:
            kept = [int(i) for i in line if i >= UNK]
            if self.kind == "word":
                texts.append(" ".join(self._piece(i) for i in kept))
            elif self.kind == "char":
                texts.append("".join(self._piece(i) for i in kept))
            else:
                texts.append(self._inner.decode(kept, skip_special_tokens=False))
        return texts

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as a readable string."""
        if self.kind in ("word", "char"):
            return [self._piece(int(i)) for i in ids]
        return [self._inner.decode([int(i)], skip_special_tokens=False) for i in ids]

    def _piece(self, index: int) -> str:
        return str(self._inner.id_to_token(index))

    def save(self, path: Path) -> None:
        content = {
            "format": 1,
            "kind": self.kind,
            "reason": self.reason,
            "tokenizer": json.loads(self._inner.to_str()),
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read what `save` wrote. Raises UserError."""
        try:
            content = json.loads(path.read_text("utf-8"))
            inner = tokenizers.Tokenizer.from_str(json.dumps(content["tokenizer"]))
            return cls(content["kind"], content["reason"], inner)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise UserError(f"{path} is not a tokenizer of midsentence ({error})") from None


def _counted(
    lines: Iterator[str], split: Any, vocab_size: int, min_count: int, kind: str
) -> tokenizers.Tokenizer:
    """A table of the most frequent words or characters; ties in alphabetical order."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(split(line))
    for special in SPECIALS:
        counts.pop(special, None)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, count in ranked if count >= min_count][: vocab_size - len(SPECIALS)]
    table = {word: index for index, word in enumerate([*SPECIALS, *words])}
    inner = tokenizers.Tokenizer(models.WordLevel(table, unk_token=SPECIALS[UNK]))
    inner.pre_tokenizer = (
        pre_tokenizers.WhitespaceSplit()
        if kind == "word"
        else pre_tokenizers.Split(Regex(r"(?m:.|\n)"), "isolated")
    )
    return inner


def _learned(
    lines: Iterator[str], kind: str, vocab_size: int | None, min_count: int
) -> tokenizers.Tokenizer:
    if vocab_size is None:
        # A word piece should be seen often enough to be learned: 200 bytes of corpus for each.
        held = list(lines)
        vocab_size = min(8192, max(384, sum(len(line.encode()) for line in held) // 200))
        lines = iter(held)
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    common = {
        "vocab_size": vocab_size,
        "special_tokens": list(SPECIALS),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    if kind == "bpe":
        inner = tokenizers.Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(min_frequency=max(2, min_count), **common)
    else:
        inner = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(unk_token=SPECIALS[UNK], **common)
    inner.pre_tokenizer = cut
    inner.train_from_iterator(lines, trainer)
    tree = json.loads(inner.to_str())
    # Training registers the specials so that they match inside text. Ours never should.
    tree["added_tokens"] = []
    if kind == "unigram":
        for entry in tree["model"]["vocab"][: len(SPECIALS)]:
            entry[1] = -1e4
    inner = tokenizers.Tokenizer.from_str(json.dumps(tree))
    inner.decoder = decoders.ByteLevel()
    return inner


def choose(lines: Sequence[str]) -> tuple[str, str]:
    """(kind, why) for a corpus that begins with `lines`."""
    letters = [ord(c) for line in lines for c in line if c.isalpha()]
    unspaced = sum(any(a <= c <= b for a, b in UNSPACED) for c in letters)
    if letters and unspaced > len(letters) / 2:
        share = round(100 * unspaced / len(letters))
        return "char", f"{share} % of the letters are of scripts written without spaces"
    words = [word for line in lines for word in line.split()]
    # A lone capital is a placeholder (Penn Treebank writes N for numbers), not case.
    cased = sum(len(word) > 1 and any(c.isupper() for c in word) for word in words)
    glued = sum(len(word) > 1 and word[-1] in ',;:!?"' and word[0].isalnum() for word in words)
    types = len(set(words))
    if not cased and len(words) >= 2 * len(lines) and glued <= len(words) / 500:
        if types <= max(200, len(words) / 5):
            return "word", "lower-case text with its punctuation set apart is tokenised already"
        return "bpe", "the text is lower-case, but most words are too rare to be learned whole"
    return "bpe", "raw text (case, punctuation, or no spaces): bytes lose nothing"
