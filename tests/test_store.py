"""The corpus on disk: written in chunks, whole or not at all, and damage is found."""

import json
import tracemalloc

import numpy as np
import pytest

from midsentence.errors import UserError
from midsentence.text import store as store_module
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.readers import Line
from midsentence.text.store import TokenStore
from midsentence.text.tokenizer import UNK, Tokenizer

LINES = [
    Line("the cat sleeps", "calm"), Line("the dog barks at the cat", "loud"), Line("été", None),
    Line("the 漢 sleeps", "calm"),
]  # fmt: skip
WORDS = {"kind": "word"}


@pytest.fixture
def tokenizer():
    return Tokenizer.train([line.text for line in LINES], kind="word")


def sentences(count):
    return [f"person {i % 97} sees thing {i}" for i in range(count)]


def test_what_is_written_is_read(tmp_path, tokenizer):
    store = TokenStore.write(tmp_path / "s", LINES, tokenizer)
    assert len(store) == 4
    assert isinstance(store.tokens, np.memmap)
    assert store.tokens.dtype == np.uint16
    assert store.lengths.tolist() == [3, 6, 1, 3]
    assert store.sizes.tolist() == [len(line.text.encode()) for line in LINES]
    assert [ids.tolist() for ids in store] == tokenizer.encode([line.text for line in LINES])
    assert store[-1].tolist() == store[np.int64(3)].tolist()
    assert store.text(tokenizer, [1, 0]) == [LINES[1].text, LINES[0].text]
    assert store.label_names == ["calm", "loud"]
    assert store.labels.tolist() == [0, 1, -1, 0]
    again = TokenStore.open(tmp_path / "s")
    assert again.tokens.tolist() == store.tokens.tolist()
    assert again.labels.tolist() == [0, 1, -1, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_labels_keep_the_numbers_they_had(tmp_path, tokenizer):
    names = ["loud", "calm"]
    store = TokenStore.write(
        tmp_path / "s", [*LINES, Line("x", "new")], tokenizer, label_names=names
    )
    assert store.label_names == ["loud", "calm", "new"]
    assert store.labels.tolist() == [1, 0, -1, 1, 2]
    assert TokenStore.write(tmp_path / "n", [Line("the")], tokenizer).labels is None


def test_long_sentences_are_dropped_and_counted(tmp_path, tokenizer):
    store = TokenStore.write(tmp_path / "s", LINES, tokenizer, max_tokens=3)
    assert store.dropped == 1
    assert store.text(tokenizer, range(3)) == [LINES[0].text, LINES[2].text, LINES[3].text]
    assert store.labels.tolist() == [0, -1, 0]
    none = TokenStore.write(tmp_path / "s", LINES, tokenizer, max_tokens=0)
    assert (len(none), none.dropped, none.lengths.tolist()) == (0, 4, [])


@pytest.mark.parametrize(("lines", "chars"), [(1, 1 << 20), (3, 1 << 20), (4096, 10), (4096, 30)])
def test_chunks_leave_no_trace(tmp_path, tokenizer, monkeypatch, lines, chars):
    whole = TokenStore.write(tmp_path / "whole", LINES * 5, tokenizer)
    monkeypatch.setattr(store_module, "CHUNK_LINES", lines)
    monkeypatch.setattr(store_module, "CHUNK_CHARS", chars)
    TokenStore.write(tmp_path / "parts", LINES * 5, tokenizer)
    assert len(whole) == 20
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes()


def test_large_vocabularies_get_wider_numbers(tmp_path):
    tokenizer = Tokenizer.train(
        [" ".join(f"w{i:05}" for i in range(70_000))], kind="word", vocab_size=70_004
    )
    store = TokenStore.write(tmp_path / "s", [Line("w69999 w00000")], tokenizer)
    assert store.tokens.dtype == np.uint32
    assert store.tokens.tolist() == [70_003, 4]


def test_writing_streams(tmp_path, tokenizer, monkeypatch):
    """Twenty times the lines, the same memory but for `lengths`: 8 bytes a line, a few copies."""
    monkeypatch.setattr(store_module, "CHUNK_LINES", 50)
    peaks = []
    for count in (500, 10_000):
        tracemalloc.start()
        TokenStore.write(tmp_path / "s", (Line(f"the cat {i}") for i in range(count)), tokenizer)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * 8 * 10_000


def test_a_failure_leaves_what_was_there(tmp_path, tokenizer):
    TokenStore.write(tmp_path / "s", LINES, tokenizer)

    def failing():
        yield from LINES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenStore.write(tmp_path / "s", failing(), tokenizer)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert len(TokenStore.open(tmp_path / "s")) == 4


def test_damage_is_found(tmp_path, tokenizer):
    folder = tmp_path / "s"
    with pytest.raises(UserError, match="no whole token store"):
        TokenStore.open(folder)
    TokenStore.write(folder, LINES, tokenizer)
    for file in sorted(folder.iterdir()):
        held = file.read_bytes()
        for content in (held[:-1], b"", None):
            if content is None and file.name == "manifest.json":
                continue  # early ones have none
            file.unlink() if content is None else file.write_bytes(content)
            with pytest.raises(UserError, match="no whole token store"):
                TokenStore.open(folder)
            file.write_bytes(held)
        if file.name != "manifest.json":
            file.write_bytes(bytes([held[0] ^ 1]) + held[1:])
            with pytest.raises(UserError, match="SHA-256 differs"):
                TokenStore.open(folder)
            file.write_bytes(held)
    (folder / "manifest.json").unlink()  # as in early stores, which can still be at odds
    meta = json.loads((folder / "meta.json").read_text())
    for change in ({"dtype": "float16"}, {"format": 0}, {"sentences": -1}, {"tokens": None}):
        (folder / "meta.json").write_text(json.dumps(meta | change))
        with pytest.raises(UserError, match="no whole token store"):
            TokenStore.open(folder)
    (folder / "meta.json").write_text(json.dumps(meta))
    offsets = np.fromfile(folder / "offsets.bin", np.int64)
    for place, value in ((0, 1), (1, 99), (-1, 5)):
        bad = offsets.copy()
        bad[place] = value
        bad.tofile(folder / "offsets.bin")
        with pytest.raises(UserError, match=r"offsets\.bin does not fit"):
            TokenStore.open(folder)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "all.txt"
    path.write_text("\n".join(sentences(1000)))
    return str(path)


def held(corpus, part):
    store = getattr(corpus, part)
    return store.text(corpus.tokenizer, range(len(store)))


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_corpus_is_split_tokenised_and_opened_again(source, tmp_path):
    corpus = prepare(source, tmp_path / "c", tokenizer_settings=WORDS, max_tokens=256)
    parts = [len(corpus.train), len(corpus.valid), len(corpus.test)]
    assert sum(parts) == 1000
    assert 20 < parts[1] < 90 > parts[2] > 20
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "manifest.json", "test", "tokenizer.json", "train", "valid",
    ]  # fmt: skip
    # The vocabulary is the training part's: other words are unknown elsewhere, never here.
    assert UNK not in corpus.train.tokens
    assert UNK in corpus.valid.tokens
    again = Corpus.open(tmp_path / "c")
    for part in ("train", "valid", "test"):
        assert held(again, part) == held(corpus, part)


def test_the_same_seed_gives_the_same_files(source, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(source, tmp_path / name, seed=seed, tokenizer_settings={"kind": "bpe"})
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_given_parts_are_not_split_off(source, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("thing sees person\nperson sees person\n")
    corpus = prepare(source, tmp_path / "v", valid=str(own), tokenizer_settings=WORDS)
    assert held(corpus, "valid") == ["thing sees person", "person sees person"]
    assert len(corpus.test) > 20
    assert len(corpus.train) + len(corpus.test) == 1000
    both = prepare(source, tmp_path / "b", valid=str(own), test=str(own), tokenizer_settings=WORDS)
    assert [len(both.train), len(both.valid), len(both.test)] == [1000, 2, 2]
    none = prepare(
        source, tmp_path / "n", valid=str(own), test_fraction=0, tokenizer_settings=WORDS
    )
    assert [len(none.train), len(none.test)] == [1000, 0]


def test_labels_are_numbered_alike_in_every_part(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_text("\n".join(f"{'abc'[i % 3]}\tline {i}" for i in range(600)))
    corpus = prepare(
        str(path), tmp_path / "c", text_field="1", label_field="0", tokenizer_settings=WORDS
    )
    names = corpus.train.label_names
    assert sorted(names) == ["a", "b", "c"]
    for store in (corpus.train, corpus.valid, corpus.test):
        assert store.label_names == names
        assert set(store.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("one line\n", {}, r"all\.txt has too few lines that differ for a (train|valid) part"),
        ("a\nb\nc\n" * 50, {"valid_fraction": 0}, "give --valid FILE or raise"),
        ("a b c\n" * 50, {"valid": "all.txt", "max_tokens": 2}, "every train line of .* is over"),
        ("", {}, r"all\.txt holds no line"),
        ("a\n", {"valid": "none.txt"}, r"none\.txt: no such file"),
        ("a\n", {"valid": "-", "test": "-"}, "standard input can be read once only"),
        ("a\n" * 9, {"valid": "all.txt", "tokenizer_settings": {"kind": "x"}}, "is not one of"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(tmp_path, monkeypatch, text, settings, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all.txt").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        prepare("all.txt", tmp_path / "run" / "corpus", **settings)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["all.txt"]


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="holds no prepared corpus"):
        Corpus.open(tmp_path)


def test_a_label_that_is_different_everywhere_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_NAMES", 50)
    monkeypatch.setattr(store_module, "CHUNK_LINES", 8)
    (tmp_path / "a.tsv").write_text("".join(f"a b {i}\t{i}\n" for i in range(200)))
    with pytest.raises(UserError, match="more than 50 different values"):
        prepare(str(tmp_path / "a.tsv"), tmp_path / "c", text_field="0", label_field="1")
    (tmp_path / "a.tsv").write_text("".join(f"a b {i}\t{i % 9}{'x' * 99}\n" for i in range(200)))
    monkeypatch.setattr(store_module, "MOST_NAME_CHARS", 900)
    prepare(str(tmp_path / "a.tsv"), tmp_path / "d", text_field="0", label_field="1")
    monkeypatch.setattr(store_module, "MOST_NAME_CHARS", 899)
    with pytest.raises(UserError, match=r"more than 899 characters in all: choose another --label"):
        prepare(str(tmp_path / "a.tsv"), tmp_path / "c", text_field="0", label_field="1")
