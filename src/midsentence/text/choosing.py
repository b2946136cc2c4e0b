"""Which kind of token a text asks for: what ``tokenizer.kind = "auto"`` does."""

import unicodedata
from collections.abc import Sequence

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x3040, 0x312F),  # kana, bopomofo
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),  # half-width kana
    (0x20000, 0x3FFFF),
)

OPENING, CLOSING = frozenset("\"'([{¿¡"), frozenset(',;:!?")]}')
APOSTROPHES = frozenset("’׳")
STOPS = frozenset(".。।۔።")


def choose(lines: Sequence[str]) -> tuple[str, str]:
    """(kind, why) for a corpus that begins with `lines`."""
    letters = [ord(c) for line in lines for c in line if c.isalpha()]
    unspaced = sum(any(a <= c <= b for a, b in UNSPACED) for c in letters)
    if letters and unspaced > len(letters) / 2:
        share = round(100 * unspaced / len(letters))
        return "char", f"{share} % of the letters are of scripts written without spaces"
    words = [word for line in lines for word in line.split()]
    # A lone capital is a placeholder (Penn Treebank writes N for numbers), not case.
    cased = any(len(word) > 1 and word != word.lower() for word in words)
    glued = sum(
        len(word) > 1
        and ((_closes(word[-1]) and word[0].isalnum()) or (_opens(word[0]) and len(word) > 3))
        for word in words
    )
    # A full stop also ends abbreviations, but not one line in five.
    stopped = sum(len(line) > 1 and line[-1] in STOPS and line[-2].isalnum() for line in lines)
    set_apart = glued <= len(words) / 200 and stopped <= len(lines) / 5
    if cased or not set_apart or len(words) < 2 * len(lines):
        return "bpe", "raw text (case, punctuation, or no spaces): bytes lose nothing"
    if len(set(words)) > max(200, len(words) / 5):
        return "bpe", "the text is lower-case, but most words are too rare to be learned whole"
    return "word", "lower-case text with its punctuation set apart is tokenised already"


def _opens(c: str) -> bool:
    return c in OPENING or unicodedata.category(c) in ("Ps", "Pi")


def _closes(c: str) -> bool:
    """Of ASCII only `CLOSING`: others, as % and #, are part of what they stand beside."""
    if c.isascii():
        return c in CLOSING
    return unicodedata.category(c) in ("Pe", "Pf", "Po") and c not in APOSTROPHES
