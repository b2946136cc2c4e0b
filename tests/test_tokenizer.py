"""Strings <-> ids: what each kind keeps, what `auto` picks, and that nothing takes for ever."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midsentence.errors import UserError
from midsentence.text.tokenizer import BOS, EOS, KINDS, PAD, SPECIALS, UNK, Tokenizer

TOKENISED = [
    f"the {noun} , which was {kind} , {verb} in the {place} ."
    for noun in ("cat", "dog", "old man")
    for kind in ("big", "small", "ill")
    for verb in ("slept", "sang")
    for place in ("garden", "hall")
]
CASED = [f"Tom's {a} isn't {b}; Mary said: “Hi!”" for a in ("cat", "dog") for b in ("big", "old")]
CHINESE = ["秦川雄帝宅，函谷壯皇居。", "綺殿千尋起，離宮百雉餘。", "连薨遥接汉，飞观迥凌虚。"]
THAI = ["ผมรักคุณ", "วันนี้อากาศดี"]
JAPANESE = ["これはペンです。", "東京に行きたい"]
CONTROL_NAMES = "<s> a </s> <pad> b <unk>"

any_text = st.text(st.characters(exclude_categories=["Cs"]))
spaced = st.text(" \t\u3000\x00\x1fab<s>/'é😀")


def trained(kind, lines=CASED + TOKENISED, **more):
    return Tokenizer.train(lines, kind=kind, **more)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def exact(request):
    return trained(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_are_the_same_in_every_kind(kind):
    tokenizer = trained(kind)
    assert (PAD, BOS, EOS, UNK) == (0, 1, 2, 3)
    assert tokenizer.pieces([0, 1, 2, 3]) == list(SPECIALS)
    assert tokenizer.decode([[BOS, EOS, PAD]]) == [""]


@pytest.mark.parametrize("kind", KINDS)
def test_typed_control_names_never_become_control_ids(kind):
    # Often enough that a trainer which could learn them as pieces would.
    tokenizer = trained(kind, [CONTROL_NAMES] * 300)
    ids = tokenizer.encode([CONTROL_NAMES])[0]
    assert ids
    assert min(ids) >= UNK
    if kind == "word":
        assert ids == [UNK, *tokenizer.encode(["a"])[0], UNK, UNK, *tokenizer.encode(["b"])[0], UNK]
    else:
        assert UNK not in ids
        assert tokenizer.decode([ids]) == [CONTROL_NAMES]


@given(st.one_of(any_text, spaced))
@settings(max_examples=300, deadline=None)
def test_bytes_give_the_line_back_exactly(exact, line):
    ids = exact.encode([line])[0]
    assert min(ids, default=UNK + 1) > UNK
    assert exact.decode([ids]) == [line]


@given(st.lists(st.one_of(any_text, spaced), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_words_and_characters_that_were_learnt_come_back(lines):
    # The first line keeps a vocabulary from being empty.
    lines = ["a", *(" ".join(w for w in line.split() if w not in SPECIALS) for line in lines)]
    for kind in ("word", "char"):
        tokenizer = trained(kind, lines)
        assert tokenizer.decode(tokenizer.encode(lines)) == lines


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  two  in front, three behind   ",
        "👩‍👩‍👧 é e\u0301",
        "a\x00b\x07c\u2028d\ufeff",
        "don't 中文",
    ],
)
def test_bytes_give_hard_lines_back(exact, line):
    assert exact.decode(exact.encode([line])) == [line]


def test_characters_are_exact_where_known():
    tokenizer = trained("char", ["ab  c\tü漢", "<s>"])
    assert tokenizer.vocab_size == 4 + len(set("ab  c\tü漢<s>"))
    assert tokenizer.decode(tokenizer.encode(["漢  b<s>\t"])) == ["漢  b<s>\t"]
    assert tokenizer.encode(["aZ"])[0][1] == UNK
    assert tokenizer.decode(tokenizer.encode(["aZ"])) == ["a\ufffd"]  # one character for one
    assert tokenizer.encode(["a\ufffd"]) == tokenizer.encode(["aZ"])


def test_words_come_back_up_to_whitespace():
    tokenizer = trained("word", ["b a  a", "c <unk> b a"])
    # By frequency, then by the alphabet; <unk> is not counted twice.
    assert tokenizer.pieces(range(tokenizer.vocab_size)) == [*SPECIALS, "a", "b", "c"]
    assert tokenizer.encode(["c \u3000 a\x1cnever <unk>"]) == [[6, 4, UNK, UNK]]
    assert tokenizer.decode([[6, 4, UNK]]) == ["c a <unk>"]


def test_vocabularies_are_cut_as_asked():
    lines = ["a a a b b c"]
    assert trained("word", lines, vocab_size=6).vocab_size == 6
    assert trained("word", lines, min_count=2).vocab_size == 6
    assert trained("word", lines, min_count=2).encode(["c"]) == [[UNK]]
    assert trained("bpe", vocab_size=270).vocab_size == 270
    assert trained("bpe").vocab_size <= 384  # a small corpus teaches no 8,000 pieces


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (CHINESE, "char"), (THAI, "char"), (JAPANESE, "char"), (TOKENISED, "word"), (CASED, "bpe"),
        (["so we said hi."] * 9, "bpe"), (["raw text, with commas, glued on"] * 9, "bpe"),
        (["안녕 하세요 여러분, 반가워요!"] * 9, "bpe"),
        ([f"x{i} y{i * 7} z{i * 13}" for i in range(400)], "bpe"),
        (["penn <unk> N years old"] * 9, "word"),
        (["یہ ایک کتاب ہے۔ وہ کہاں، اب؟"] * 9, "bpe"),
        (["یہ ایک کتاب ہے ۔ وہ کہاں ، اب ؟"] * 9, "word"),
        (["यह एक किताब है।"] * 9, "bpe"), (["यह एक किताब है ।"] * 9, "word"),
        (["ይህ መጽሐፍ ነው። ያ፣ ምንድን ነው"] * 9, "bpe"), (["up 5% of the dogs’ #food - he 's"] * 9, "word"),
    ],
)  # fmt: skip
def test_auto_looks_at_the_corpus_and_says_why(lines, kind):
    tokenizer = Tokenizer.train(lines)
    assert tokenizer.kind == kind
    assert len(tokenizer.reason) > 20
    assert "\n" not in tokenizer.reason


def test_auto_loses_none_of_the_lines_it_looked_at():
    lines = (f"the {word} ." for word in ["cat"] * 30_000 + ["dog"])
    tokenizer = Tokenizer.train(lines)
    assert tokenizer.kind == "word"
    assert tokenizer.pieces(range(4, tokenizer.vocab_size)) == [".", "the", "cat", "dog"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filler", ["ab", " ", "漢"])
def test_a_giant_word_takes_no_time(kind, filler):
    line = "x" + filler * (1_000_000 // len(filler)) + "y"
    began = time.monotonic()
    tokenizer = trained(kind, [line, "a small word"])
    ids = tokenizer.encode([line])
    assert tokenizer.decode(ids) == [" ".join(line.split()) if kind == "word" else line]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.kind, again.reason) == (tokenizer.kind, tokenizer.reason)
    assert again.vocab_size == tokenizer.vocab_size
    assert again.encode([*CASED, CONTROL_NAMES]) == tokenizer.encode([*CASED, CONTROL_NAMES])


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_in_another_process(kind, tmp_path):
    """Hash seeds differ between processes: no order may come from them."""
    program = (
        "import sys; from pathlib import Path; from midsentence.text.tokenizer import Tokenizer\n"
        "lines = Path(sys.argv[1]).read_text('utf-8').split('\\n')\n"
        "Tokenizer.train(lines, kind=sys.argv[2]).save(Path(sys.argv[3]))"
    )
    lines = CASED + TOKENISED + CHINESE
    (tmp_path / "lines").write_text("\n".join(lines), "utf-8")
    there, here = tmp_path / "there.json", tmp_path / "here.json"
    subprocess.run([sys.executable, "-c", program, tmp_path / "lines", kind, there], check=True)
    trained(kind, lines).save(here)
    assert here.read_bytes() == there.read_bytes()


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="one of auto, word"):
        trained("words")
    with pytest.raises(UserError, match="too small for bpe: 261"):
        trained("bpe", vocab_size=100)
    for kind in ("auto", *KINDS):
        with pytest.raises(UserError, match="no text"):
            trained(kind, [])
    with pytest.raises(UserError, match="line 2 holds half"):
        trained("bpe").encode(["fine", "\ud800"])


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(path)
    trained("word").save(path)
    good = json.loads(path.read_text("utf-8"))
    bad = [{**good, "kind": "none"}, {**good, "format": 0}, {**good, "tokenizer": {}}, [], 3]
    swapped = json.loads(json.dumps(good))
    swapped["tokenizer"]["model"]["vocab"] |= {"<pad>": 1, "<s>": 0}
    for content in [json.dumps(x) for x in (*bad, swapped)] + [
        path.read_text("utf-8")[:-9],
        "[" * 9999,
    ]:
        path.write_text(content, "utf-8")
        with pytest.raises(UserError, match=r"tokenizer\.json is (not a tokenizer|damaged)"):
            Tokenizer.load(path)
