"""Any corpus is trained on or refused with its line, in bounded time and memory; --on-bad."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from midsentence import UserError, cli
from midsentence.text import arrow
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.readers import files, read
from midsentence.text.tolerance import Bad
from several import FAST

HERE, LONG = Path(__file__).parent, "TORTURE" in os.environ
GOOD = b"".join(b"line number %d is good\n" % i for i in range(300))
TRAIN = """
import json, os, resource, signal, sys, time
from pathlib import Path
import torch
from midsentence import UserError, pipeline
from midsentence.text import sources
from several import FAST

def trained(source, out):
    settings = [*FAST, "training.max_steps=3", "training.parts=1"]
    began = time.monotonic()
    try:
        wrote = pipeline.train(source, out, settings=settings).sample(2, seed=1)
        said = "trained on" if len(wrote) == 2 else str(wrote)
    except UserError as error:
        said = str(error)
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says is the parent's, if that is larger
        peak = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM")).split()[1]
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return said, time.monotonic() - began, int(peak) // 1024

sources.PATIENCE = 1.0
if "TORTURE" not in os.environ:
    sources.MOST_UNPACKED >>= 2
torch.set_num_threads(1)
for path in sys.argv[2:]:
    if os.fork() == 0:
        signal.alarm(60)
        try:
            found = trained(path, f"{sys.argv[1]}/{Path(path).name}")
            print(json.dumps([path, *found]), flush=True)
        finally:
            os._exit(0)
    os.wait()
"""
"""Each in a child of one process: what all of them import is imported once."""


def text(data):
    return lambda path: path.write_bytes(data)


def bomb(path):
    """One line of 3 GB."""
    path.write_bytes(gzip.compress(b"a" * 100_000_000, 1) * 30)


def bomb_of_lines(path):
    block = gzip.compress((b"a b c d e f g h" * 10 + b"\n") * 100_000, 9)
    with path.open("wb") as file:
        for _ in range(30 if LONG else 8):
            file.write(block)


HARD = {
    "not_utf8.txt": (text(GOOD + b"caf\xe9\n"), r":301: not UTF-8 \(byte 4 of the line\)"),
    "nul.txt": (text(GOOD + b"a\0b\n" + GOOD), ":301: a NUL byte"),
    "line_of_10_mb.txt": (text(GOOD + b"word " * 2_000_000 + b"\n" + GOOD), ":301: longer than"),
    "word_of_1_mb.txt": (text(GOOD + b"w" * 1_000_000 + b"\n"), ":301: longer than"),
    "empty.txt": (text(b""), "no line of text"),
    "blank.txt": (text(b"\n \n\t\r\n\xe2\x80\x83\n"), "no line of text"),
    "one_line.txt": (text(b"only one"), "too few lines"),
    "bom.txt": (text(b"\xef\xbb\xbf" + GOOD), "trained on"),
    "crlf.txt": (text(GOOD.replace(b"\n", b"\r\n")), "trained on"),
    "cr.txt": (text(GOOD.replace(b"\n", b"\r")), "trained on"),
    "separators.txt": (text(GOOD.replace(b" ", "\u2028".encode())), "trained on"),
    "utf16.txt": (text(GOOD.decode().encode("utf-16")), ":1: UTF-16"),
    "utf16_bare.txt": (text(GOOD.decode().encode("utf-16-le")), ":1: a NUL byte"),
    "gzip_by_another_name.txt": (text(gzip.compress(GOOD)), ":1: compressed by gzip"),
    "cut.txt.gz": (text(gzip.compress(GOOD)[:-20]), "cannot be read"),
    "not_gzip.txt.gz": (text(GOOD), "cannot be read"),
    "bomb.txt.gz": (bomb, ":1: longer than"),
    "bomb_of_lines.txt.gz": (bomb_of_lines, "more than 100 times its size"),
    "pipe.txt": (os.mkfifo, "a pipe that nothing is written to"),
    "folder.txt": (lambda path: path.mkdir(), "is a folder"),
    "device.txt": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "circle.txt": (lambda path: path.symlink_to(path), "cannot be opened"),
    "quote.csv": (text(b'text\n"never closed\n' + GOOD * 300), "quote that opens here"),
    "few_columns.tsv": (text(b"a\ttext\n1\tx\n2\n"), ":3: has 1 columns"),
    "deep.jsonl": (text(b'{"text": "a"}\n' + b"[" * 90_000 + b"\n"), ":2: not JSON"),
    "cut.parquet": (text(b"PAR1" + GOOD), "cannot be read"),
    "cut.arrow": (text(GOOD), "cannot be read"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard")
    for name, (make, _) in HARD.items():
        make(folder / name)
    (folder / "runs").mkdir()
    command = [sys.executable, "-c", TRAIN, folder / "runs", *(folder / name for name in HARD)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {Path(path).name: (folder / "runs", *more) for path, *more in lines}


@pytest.mark.parametrize("name", HARD)
def test_a_hard_corpus(found, name):
    if name.endswith(("parquet", "arrow")):
        pytest.importorskip("pyarrow", reason="the data extra is not installed")
    runs, said, seconds, megabytes = found[name]
    assert seconds < 60 and megabytes < 1000
    assert re.search(HARD[name][1], said), said
    assert (runs / name).exists() == (said == "trained on")


BAD = b"good one\nbad \xff one\nno\0ne\n" + b"x" * 300 + b"\ngood two\n"


@pytest.mark.parametrize("width", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("skip", ["good one", "good two"]),
        ("replace", ["good one", "bad \ufffd one", "no ne", "good two"]),
    ],
)
def test_bad_lines_are_skipped_or_mended_and_counted(tmp_path, monkeypatch, how, wanted, width):
    path = tmp_path / "bad.txt"
    path.write_bytes(BAD)
    monkeypatch.setattr("midsentence.text.readers.BLOCK", width)
    monkeypatch.setattr("midsentence.text.readers.RECORD", 100)
    bad = Bad(how)
    found = [line.text for line in read(str(path), max_chars=25, bad=bad)]
    assert found == wanted
    assert bad.count == 3 and bad.first.startswith(f"{path}:2: not UTF-8")
    assert str(bad).startswith("3 lines could not be read and were")
    with pytest.raises(UserError, match=r"bad\.txt:2: not UTF-8"):
        list(read(str(path), max_chars=25))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\nnot json\n{"text": 3}\n{"text": "two"}\n'),
        ("a.tsv", "n\ttext\n1\tone\n2\n3\n4\ttwo\n"),
        ("a.csv", 'n,text\n1,one\n2\n3,"x"y\n4,two\n'),
        # A stray quote ends at the next one or nowhere, and takes no good record with it.
        ("a.csv", 'text,n\n"open, x\none,1\n"open, y\n"two",2\n'),
        ("a.csv", 'n,text\n"1,x\n2,one\n3,two\n4,"x\n'),
    ],
)
@pytest.mark.parametrize("most", [1, 1 << 20])
def test_bad_records_are_skipped(tmp_path, monkeypatch, name, content, most):
    monkeypatch.setattr("midsentence.text.tables.RECORD", most)
    path = tmp_path / name
    path.write_text(content)
    bad = Bad("skip")
    assert [line.text for line in read(str(path), bad=bad)] == ["one", "two"]
    assert bad.count == 2
    assert re.match(rf"{path}:[23]: ", bad.first)


def test_the_reason_for_too_little_text_is_told(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xff\n" * 9)
    with pytest.raises(
        UserError, match=r"no line of text.* \(9 lines could .* first .*:1: not UTF"
    ):
        list(read(str(path), bad=Bad("skip")))
    path.write_bytes(b"\xff\n" * 9 + b"one\n")
    with pytest.raises(UserError, match=r"too few lines .* \(9 lines could not be read"):
        prepare(str(path), tmp_path / "corpus", on_bad="skip")


def test_an_unknown_way_is_named():
    with pytest.raises(UserError, match="'ignore' is not one of error, skip, replace"):
        Bad("ignore")


def test_a_training_says_what_was_left_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(GOOD + b"\xff\xff\n")
    said = []
    prepare(str(path), tmp_path / "corpus", on_bad="skip", told=said.append)
    assert said == [f"1 lines could not be read and were left out, first {path}:301: not UTF-8 "
                    "(byte 1 of the line): save it as UTF-8"]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "code", "wanted"),
    [
        ("error", 1, r"text\.txt:301: not UTF-8 \(byte 1 of the line\)"),
        ("skip", 0, r"2 lines could not be read and were left out, first .*text\.txt:301: not"),
        (
            "replace",
            0,
            r"2 lines could not be read and were mended or left out, first .*\.txt:301: not",
        ),
        ("ignore", 1, "'ignore': input should be 'error', 'skip' or 'replace'"),
    ],
)
def test_the_flag(tmp_path, monkeypatch, capsys, how, code, wanted):
    path, out = tmp_path / "text.txt", tmp_path / "run"
    path.write_bytes(GOOD + b"\xff\xff\nno\0ne\n")
    asked = [part for s in [*FAST, "training.max_steps=2"] for part in ("--set", s)]
    command = ["midsentence", "train", path, "--out", out, "--on-bad", how, *asked]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == code
    said = capsys.readouterr().err
    assert re.search(wanted, said), said
    assert code == 0 or said.count("\n") == 1
    if code == 0:
        held = Corpus.open(out / "corpus")
        assert sum(map(len, (held.train, held.valid, held.test))) == 300 + 2 * (how == "replace")


def test_several_files_and_patterns(tmp_path):
    for name in ("b.txt", "a.txt", "c.tsv", "a[1].txt"):
        (tmp_path / name).write_text(f"from {name}\n")
    (tmp_path / "d.txt").mkdir()
    names = [str(tmp_path / name) for name in ("a.txt", "a[1].txt", "b.txt", "c.tsv")]
    assert files(str(tmp_path / "*.txt")) == names[:3]
    assert files([names[3], str(tmp_path / "*.txt")]) == [names[3], *names[:3]]
    assert files(names[1]) == names[1:2]  # a name that is there is no pattern
    assert [line.text for line in read(names[:2])] == ["from a.txt", "from a[1].txt"]
    with pytest.raises(UserError, match="no file is called like that"):
        files(str(tmp_path / "*.csv"))
    with pytest.raises(UserError, match=r"d\*: only folders are called like that"):
        files([names[0], str(tmp_path / "d*")])
    with pytest.raises(UserError, match=r"gone\.txt: no such file"):
        list(read([names[0], str(tmp_path / "gone.txt")]))


def test_a_pipe_with_a_name_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        time.sleep(0.2)
        with path.open("wb") as file:
            for _ in range(3):
                file.write(GOOD)
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    assert sum(1 for _ in read(str(path))) == 900
    writer.join()


def test_other_kinds_of_arrow_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the data extra is not installed")
    texts = ["anna", "ben", "anna"]
    words = pyarrow.array(texts).dictionary_encode()
    for number, column in enumerate((words, pyarrow.array(texts, pyarrow.string_view()))):
        table = pyarrow.table({"text": column})
        path = tmp_path / f"{number}.arrow"
        with pyarrow.ipc.new_stream(str(path), table.schema) as file:
            file.write_table(table)
        assert [line.text for line in read(str(path))] == texts


def test_parquet_and_arrow(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the data extra is not installed")
    from pyarrow import feather, parquet

    texts = [f"sentence {i}" if i % 7 else None for i in range(5000)]
    table = pyarrow.table({"n": range(5000), "text": texts, "kind": ["x", None] * 2500})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed")
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table, max_chunksize=700)
    wanted = [(t, "x" if i % 2 == 0 else None) for i, t in enumerate(texts) if t]
    for name in ("a.parquet", "a.feather", "a.arrow"):
        found = [(line.text, line.label) for line in read(str(tmp_path / name), label_field="kind")]
        assert found == wanted, name
        with pytest.raises(UserError, match="no column 'txt' but 'text', 'kind'"):
            list(read(str(tmp_path / name), text_field="txt"))
    sizes = [len(batch.column("text")) for batch in arrow._opened(f"{tmp_path}/a.feather")[1]([])]
    assert max(sizes) == arrow.ROWS  # though the file is one batch
    double = pyarrow.table([pyarrow.array(["a"])] * 2, names=["text", "text"])
    feather.write_feather(double, tmp_path / "double.feather", compression="uncompressed")
    with pytest.raises(UserError, match=r"double\.feather:1: cannot be read"):
        list(read(str(tmp_path / "double.feather")))
    parquet.write_table(table.drop_columns(["text"]), tmp_path / "b.parquet")
    assert next(read(str(tmp_path / "b.parquet"))).text == "x"  # the only column of strings
    odd = pyarrow.table({"id": ["a"], "text": [b"words"], "n\x1b[31m": [["x"]]})
    parquet.write_table(odd, tmp_path / "c.parquet")
    for field, said in (
        (None, "column 'text' is of type 'binary', not text"),
        ("text", "column 'text' is of type 'binary', not text"),
        ("n\x1b[31m", r"is of type 'list<.*>', not text"),
        ("words", "no column 'words' but 'id'"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            list(read(str(tmp_path / "c.parquet"), text_field=field))
        assert str(caught.value).isprintable()


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "midsentence\[data\]"'):
        list(read(str(tmp_path / "a.parquet")))


def test_a_preparation_that_was_killed_is_done_again(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(GOOD)
    folder = tmp_path / "corpus"
    (folder / ".train.123.part").mkdir(parents=True)
    (folder / ".train.lines").write_text("half")
    held = prepare(str(path), folder)
    assert len(held.train) + len(held.valid) + len(held.test) == 300
    assert not list(folder.glob(".*"))
