"""Files -> lines: what is read, what is refused with file and line number, and how it is split."""

import csv
import gzip
import io
import json
import os
import re
import threading
import time
import tracemalloc
from itertools import count, islice

import pytest

from midsentence.errors import UserError
from midsentence.text import builtin, sources
from midsentence.text.readers import Line, read
from midsentence.text.splitting import split


@pytest.fixture
def file(tmp_path):
    def make(content, name="text.txt"):
        path = tmp_path / name
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return make


def texts(source, **fields):
    return [line.text for line in read(source, **fields)]


def refused(source, message, **fields):
    with pytest.raises(UserError, match=message) as caught:
        list(read(source, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a b\nc\n", ["a b", "c"]),
        ("no end", ["no end"]),
        (b"\xef\xbb\xbfbom\nb", ["bom", "b"]),
        ("a\r\nb\rc\n\rd\r", ["a", "b", "c", "d"]),
        ("\n\n  a  \n \t \n\nb\n\n", ["a", "b"]),
        ("one\u2028line\u0085still\x0bone\n", ["one\u2028line still one"]),
        ("a\tb\x1b[31mc\x7f", ["a b [31mc"]),
        ("one 'quote\" more\n", ["one 'quote\" more"]),
        ("é漢😀\n", ["é漢😀"]),
    ],
)
@pytest.mark.parametrize("name", ["text.txt", "text", "text.txt.gz"])
def test_lines_of_text(file, name, content, expected):
    assert texts(file(content, name)) == expected


@pytest.mark.parametrize("before", [65_530, 65_535, 65_536, 65_539, 65_540])
def test_line_ends_and_characters_across_blocks(file, before):
    for mark in ("\r\n", "\r", "\n", "漢\n"):
        assert texts(file("x" * before + mark + "y")) == ["x" * before + mark.strip(), "y"]


def test_a_line_end_cut_in_two_is_counted_once(file):
    lines = b"".join(b"x" * (i % 97) + b"\r\n" for i in range(30_000))
    refused(file(lines + b"\0"), r"text\.txt:30001: a NUL byte")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\n\nbad \xff\n", r"text\.txt:3: not UTF-8 \(byte 5 of the line\)"),
        (b"fine\r\nlatin \xe9t\xe9\n", r"text\.txt:2: not UTF-8"),
        (b"cut \xe6\xbc", r"text\.txt:1: not UTF-8"),
        (b"surrogate \xed\xa0\x80", r"text\.txt:1: not UTF-8"),
        (b"a\nb\nx\0y\n", r"text\.txt:3: a NUL byte"),
        ("a\n".encode("utf-16"), r"text\.txt:1: UTF-16"),
        (b"\xfe\xff" + "a\n".encode("utf-16-be"), r"text\.txt:1: UTF-16"),
        (b"", r"text\.txt holds no line"),
        (b"\xef\xbb\xbf", r"text\.txt holds no line"),
        (b"\n \r\n\t\n", r"text\.txt holds no line"),
        (gzip.compress(b"hello", mtime=0), r"text\.txt:1: compressed by gzip"),
        (b"ok\n" + b"x" * 101 + b"\n", r"text\.txt:2: longer than 100 characters"),
    ],
)
def test_refused_with_file_and_line(file, content, message):
    refused(file(content), message, max_chars=100)


def test_lines_as_long_as_allowed_are_read(file):
    assert texts(file("  " + "漢" * 100 + "  \nb"), max_chars=100) == ["漢" * 100, "b"]
    line = json.dumps({"other": "x" * 5000, "text": "漢" * 100})
    assert texts(file(line, "a.jsonl"), max_chars=100) == ["漢" * 100]


@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz", "text.csv.gz", "text.jsonl.gz"])
@pytest.mark.parametrize("filler", [b"x", b" ", b'"'])
def test_a_line_of_any_size_is_refused_in_little_memory(file, name, filler):
    source = file(b"a\n" * (name[-5:-3] != "nl") + filler * 20_000_000, name)
    tracemalloc.start()
    try:
        refused(source, r":[12]: longer than 100,000 characters")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_quote_never_closed_does_not_swallow_the_file(file):
    content = 'text,label\nfine,1\n"open,2\n' + ("more " * 100 + ",3\n") * 10_000
    tracemalloc.start()
    try:
        refused(file(content, "a.csv"), r"a\.csv:3: a quote that opens here is never closed")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    refused(file('text\nfine\n"open\nx\n', "a.csv"), r"a\.csv:3: unexpected end of data")


def test_files_that_cannot_be_opened(file, tmp_path):
    source = file("a")
    assert f"Did you mean {source}?" in refused(source.replace("text", "txet"), "no such file")
    refused(str(tmp_path / "none" / "a.txt"), "no such file: there is no folder")
    refused(str(tmp_path), "is a folder")
    refused("a\0b", "cannot be opened")
    refused("x" * 5000, "cannot be opened")
    refused(file("plain", "plain.TXT.gz")[:-3], "no such file")
    (tmp_path / "plain.gz").write_bytes(b"not gzip")
    refused(str(tmp_path / "plain.gz"), r"plain\.gz:1: cannot be read")
    whole = gzip.compress("".join(f"line {i * 7919 % 1000}\n" for i in range(90_000)).encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    assert int(re.findall(r"cut\.gz:(\d+):", refused(str(tmp_path / "cut.gz"), "cannot be"))[0]) > 1


def test_tables_with_names_and_with_numbers(file):
    rows = [Line("good food", "1"), Line('bad "service"', "0")]
    plain = '1\tgood food\n0\tbad "service"\n'
    for name in ("a.txt", "a.tsv", "a.tsv.gz", "a"):
        assert list(read(file(plain, name), text_field="1", label_field="0")) == rows
        named = file("mark\twords\n" + plain, name)
        assert list(read(named, text_field="words", label_field="mark")) == rows
    table = io.StringIO()
    csv.writer(table).writerows([["id", "text"], ["0", "one, two"], ["1", 'a "b"\nc'], ["2", " "]])
    for name in ("a.csv", "a.csv.gz"):
        assert texts(file(table.getvalue(), name)) == ["one, two", 'a "b" c']
    assert texts(file("only column\nis text\n", "a.csv")) == ["only column", "is text"]
    assert texts(file(plain, "a.txt")) == ["1 good food", '0 bad "service"']
    assert next(read(file("x\t \n", "a.tsv"), text_field="0", label_field="1")).label is None


@pytest.mark.parametrize(
    ("content", "name", "fields", "message"),
    [
        ("1\tx\n", "a.tsv", {}, r"a\.tsv:1: 2 columns \('1', 'x'\).*--text-field"),
        ("a,b\n1,2\n", "a.csv", {"text_field": "c"}, "1: no column 'c': there are 'a', 'b'"),
        ("a\x1b[2J,b\n1,2\n", "a.csv", {}, r"2 columns \('a\\x1b\[2J', 'b'\)"),
        ("a\x1b[2J,b\n1,2\n", "a.csv", {"text_field": "c"}, r"there are 'a\\x1b\[2J', 'b'"),
        ("words,b\n1,2\n", "a.csv", {"text_field": "word"}, "did you mean 'words'"),
        (
            "text,b\n1,2\n3\n",
            "a.csv",
            {"label_field": "b"},
            r"a\.csv:3: has 1 columns: there is no 1",
        ),
        ("1\tx\n\nx\n", "a.txt", {"text_field": "1"}, r"a\.txt:3: has 1 columns"),
        ("label\tSentence\n1\tx\n", "a.tsv", {"text_field": "1"}, "header.*--text-field Sentence"),
        ("1\tx\n", "a.txt", {"text_field": "²"}, "no column '²'"),
        ("1\tx\n", "a.txt", {"text_field": "-1"}, "no column '-1'"),
        ("text\n", "a.csv", {}, "holds no line"),
        ('{"text": "a"}\n{"text": \n', "a.jsonl", {}, r"a\.jsonl:2: not JSON"),
        ("[" * 90_000, "a.jsonl", {}, r"a\.jsonl:1: not JSON"),
        ("[1]\n", "a.jsonl", {}, r"a\.jsonl:1: not a JSON object"),
        ('{"t": "a"}\n', "a.jsonl", {}, r"a\.jsonl:1: no text under 'text' but 't'"),
        ('{"text": 5}\n', "a.jsonl", {}, r"a\.jsonl:1: no text under 'text'"),
        ('{"text": "a"}\n', "a.jsonl", {"label_field": "y"}, r"a\.jsonl:1: no label 'y' .* null"),
        ('[{"text": "a"}]\n', "a.json", {}, r"a\.json:1: not an object .*: write it as \.jsonl"),
        ('\n{\n"text": "a"}\n', "a.json.gz", {"text_field": "text"}, r"a\.json\.gz:2: not an obj"),
        ('{"text": "a", "y": []}', "a.jsonl", {"label_field": "y"}, "is no string or number"),
        ('{"text": "\\ud800"}\n', "a.jsonl", {}, r"a\.jsonl:1: half of a UTF-16 pair"),
    ],
)
def test_tables_refused(file, content, name, fields, message):
    refused(file(content, name), message, **fields)


def test_json_lines(file):
    content = (
        '\n{"text": "a\\nb\\u0000", "y": 1}\r\n\r\n{"y": null, "text": " c "}\n{"text": "", "y": 2}'
        '\n{"text": "d"}'  # a label that others have: its name is right
    )
    for name in ("a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json", "a.json.gz"):
        found = list(read(file(content, name), label_field="y"))
        assert found == [Line("a b", "1"), Line("c", None), Line("d", None)]


def test_standard_input_is_bytes_and_stays_open(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf1\ta\r\n2\t\xc3\xa9\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert texts("-", text_field="1") == ["a", "é"]
    assert not stdin.buffer.closed
    refused("-", "standard input holds no line")


def test_standard_input_may_be_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    refused("-", "standard input is closed")


def test_a_pipe_is_read_as_it_comes(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    answered = threading.Event()
    in_time = []

    def write():
        with path.open("wb", buffering=0) as pipe:
            for piece in (b"\xef", b"\xbb\xbffir", b"st\nsec"):
                pipe.write(piece)
            in_time.append(answered.wait(10))
            pipe.write(b"ond\n")

    writer = threading.Thread(target=write)
    writer.start()
    lines = read(str(path))
    assert next(lines).text == "first"
    answered.set()
    assert [line.text for line in lines] == ["second"]
    writer.join()
    assert in_time == [True]


def test_a_pipe_may_take_its_time_once_it_is_open(tmp_path, monkeypatch):
    """As `<(sort huge.txt)` does."""
    monkeypatch.setattr(sources, "PATIENCE", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        with path.open("w") as pipe:
            time.sleep(0.6)
            pipe.write("first\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert texts(str(path)) == ["first"]
    writer.join()
    refused(str(path), "a pipe that nothing is written to")


def test_a_row_wider_than_the_first_is_not_cut(tmp_path):
    """A comma in the text without quotes round it would move its label, or end the sentence."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\na dog,good\na house, indeed,bad\n")
    refused(
        str(path), r"a\.csv:3: 3 columns where the first row has 2: put quotes", label_field="label"
    )
    path.write_text("text\na dog\na house, and then\n")
    refused(str(path), "2 columns where the first row has 1")
    path.write_text(
        'text,label\na dog,good,,\n"a house, indeed",bad\n'
    )  # a spreadsheet's empty cells
    assert texts(str(path)) == ["a dog", "a house, indeed"]


def test_split_is_by_group_and_text_and_the_seed():
    lines = [Line(f"line {i % 4000}", group=None) for i in range(8000)]
    lines += [Line(f"grouped {i}", group=f"g{i % 300}") for i in range(3000)]
    parts = list(split(lines, valid=0.1, test=0.2))
    assert [line for _, line in parts] == lines
    for key in (lambda x: x.text, lambda x: x.group or x.text):
        sides = {}
        for part, line in parts:
            sides.setdefault(key(line), set()).add(part)
        assert all(len(side) == 1 for side in sides.values())
    share = [sum(p == name for p, _ in parts) / len(parts) for name in ("train", "valid", "test")]
    assert share == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    # Where a line falls depends on nothing but itself: not on its neighbours, nor on a label.
    assert list(split(lines[::-1], valid=0.1, test=0.2)) == parts[::-1]
    assert parts != list(split(lines, valid=0.1, test=0.2, seed=1))
    assert {p for p, _ in split(lines, valid=0, test=0)} == {"train"}
    labelled = [Line(x.text, "label", x.group) for x in lines]
    assert [p for p, _ in split(labelled, valid=0.1, test=0.2)] == [p for p, _ in parts]


def test_split_holds_nothing():
    endless = (Line(str(n)) for n in count())
    assert len(list(islice(split(endless), 1000))) == 1000


@pytest.mark.parametrize(("valid", "test"), [(0.5, 0.5), (-0.1, 0), (2, 0), (float("nan"), 0)])
def test_fractions_that_leave_nothing_are_refused(valid, test):
    with pytest.raises(UserError, match="valid_fraction"):
        list(split([Line("a")], valid=valid, test=test))


def test_unknown_builtins_are_listed():
    refused("builtin:icd11", "there is no builtin:icd11.*icd10, grammar")
    refused("builtin:grammar", "leave --text-field out", text_field="x")
    refused("builtin:icd10", "one label field: chapter", label_field="x")
    assert list(builtin.CORPORA) == ["icd10", "grammar"]


def test_the_grammar_is_a_corpus():
    drawn = list(islice(read("builtin:grammar", label_field="tense"), 200))
    assert all(line.text for line in drawn)
    assert {line.label for line in drawn} > {"past"}


def test_icd10_is_cached_and_grouped_by_category(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(builtin.metadata, "version", lambda name: "9")
    calls = []

    def phrases():
        calls.append(1)
        yield "A00", "Infections", "Cholera"
        yield "A00", "Infections", "Classical cholera"

    monkeypatch.setattr(builtin, "_phrases", phrases)
    for _ in range(2):
        assert list(read("builtin:icd10")) == [
            Line("Cholera", None, "A00"),
            Line("Classical cholera", None, "A00"),
        ]
    assert next(read("builtin:icd10", label_field="chapter")).label == "Infections"
    assert len(calls) == 1
    (cache,) = (tmp_path / "midsentence").iterdir()
    cache.write_bytes(cache.read_bytes()[:-9])
    refused("builtin:icd10", "the cache cannot be used.*delete it")


def test_icd10_without_its_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise builtin.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(builtin.metadata, "version", missing)
    refused("builtin:icd10", r'pip install "midsentence\[demo\]"')
