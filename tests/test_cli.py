"""The command line as a person meets it: exit codes, pipes, one-line mistakes."""

import io
import json
import os
import shlex
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from midsentence import UserError, console, pipeline
from midsentence.cli import main
from midsentence.cli.options import chunks

PEOPLE = ("anna", "ben", "carla", "dirk", "emma", "finn")
VERBS = ("sees", "likes", "paints", "sells")
LINES = [
    f"{p} {v} {what}" for p in PEOPLE for v in VERBS for what in ("a book", "the sea", "bread")
]
SMALL = (  # of the recipe that few lines do not get by themselves: it soon writes something
    "--recipe default --set latent=4 --set encoder.embedding=8 --set encoder.hidden=8 "
    "--set decoder.embedding=8 --set decoder.hidden=16 --set training.batch_tokens=128 "
    "--set tokenizer.kind=word --set corpus.max_tokens=32"
)


@dataclass
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


def call(command, stdin="", cwd=None):
    """A command line in this process: torch takes seconds to load into a new one."""
    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdin, Path.cwd())
    sys.argv = ["midsentence", *shlex.split(command)]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    os.chdir(cwd or before[2])
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv, sys.stdin = before[:2]
        os.chdir(before[2])
    return Done(ended.value.code or 0, out.getvalue().encode(), err.getvalue().encode())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, text.txt, and a run made of it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("\n".join(LINES) + "\n")
    done = call(f"train text.txt --out run --max-steps 60 {SMALL}", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "run"
    assert b"valid bound" in done.stderr
    return folder


def test_help_opens_with_examples_and_does_not_load_torch():
    done = call("--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert text.index("Examples") < text.index("Commands")
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "midsentence", "--help"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert b" torch" not in listing.stderr
    assert b" numpy" not in listing.stderr


def test_sample_repeats_by_seed_and_speaks_json(home):
    first = call("sample run -n 4 --seed 3", cwd=home).stdout
    assert first == call("sample run -n 4 --seed 3", cwd=home).stdout
    assert first != call("sample run -n 4 --seed 4", cwd=home).stdout
    rows = call("sample run -n 4 --seed 3 --jsonl", cwd=home).stdout.decode().splitlines()
    assert [json.loads(row)["text"] for row in rows] == first.decode().splitlines()


@pytest.mark.parametrize("how", ["--greedy", "--beam 3", "--temperature 0.5 --top-k 5",
                                 "--top-p 0.9", "--typical 0.9", "--max-length 2"])  # fmt: skip
def test_every_way_of_writing(home, how):
    done = call(f"sample run -n 2 {how}", cwd=home)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.decode().splitlines()) == 2


def test_reconstruct_reads_files_and_pipes_alike(home):
    (home / "two.txt").write_text("anna sees a book\nfinn sells bread\n")
    from_file = call("reconstruct run two.txt", cwd=home)
    from_pipe = call("reconstruct run -", "anna sees a book\nfinn sells bread\n", cwd=home)
    assert from_file.returncode == 0
    assert from_file.stdout == from_pipe.stdout
    assert len(from_file.stdout.decode().splitlines()) == 2


def test_encode_and_decode_are_a_pipe(home):
    encoded = call("encode run -", "anna sees a book\n", cwd=home).stdout.decode()
    row = json.loads(encoded)
    assert row["text"] == "anna sees a book"
    assert len(row["z"]) == 4
    decoded = call("decode run -", encoded, cwd=home).stdout
    assert decoded == call("reconstruct run -", "anna sees a book\n", cwd=home).stdout
    assert call("encode run text.txt --npy z.npy", cwd=home).returncode == 0
    assert np.load(home / "z.npy").shape == (len(LINES), 4)
    assert len(call("decode run z.npy", cwd=home).stdout.decode().splitlines()) == len(LINES)
    assert b"make it first" in call("encode run text.txt --npy no/z.npy", cwd=home).stderr
    again = call("encode run text.txt --npy z.npy", cwd=home)
    assert again.returncode == 1
    assert b"exists" in again.stderr


def test_interpolate_marks_repeats(home):
    done = call('interpolate run "anna sees a book" "anna sees a book" --steps 3', cwd=home)
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("0.00  ")
    assert lines[1:] == ["0.50  ...", "1.00  ..."]
    rows = call(
        'interpolate run "anna sees a book" "ben likes bread" --jsonl --path spherical', cwd=home
    )
    assert [json.loads(row)["t"] for row in rows.stdout.decode().splitlines()][-1] == 1.0


def test_ctrl_c_while_the_command_loads_is_one_line():
    script = (
        "import sys\n"
        "class Late:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'midsentence.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Late())\n"
        "import midsentence.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "midsentence: interrupted\n")


def test_score_says_how_many_words_it_does_not_know(home):
    done = call("score run - --samples 3", "anna sees a zebra\nben xx a yy\n", home)
    assert done.stdout.startswith(b"log_px\t") and len(done.stdout.splitlines()) == 3
    assert done.stderr == b"not in the vocabulary, or written so, and scored as <unk>: 3 tokens\n"
    rows = call("score run - --samples 3 --jsonl", "anna sees a zebra\n", home).stdout
    assert json.loads(rows)["unknown"] == 1
    assert not call("score run text.txt --samples 3", cwd=home).stderr


def test_score_and_evaluate_agree(home):
    rows = call("score run text.txt --samples 7 --jsonl", cwd=home).stdout.decode().splitlines()
    scores = [json.loads(row) for row in rows]
    assert {"log_px", "stderr", "kl", "tokens", "bytes", "text"} <= set(scores[0])
    assert [s["text"] for s in scores] == LINES
    table = json.loads(call("evaluate run text.txt --samples 7 --json", cwd=home).stdout)
    assert table["sentences"] == len(LINES)
    assert table["tokens"] == sum(s["tokens"] for s in scores)
    assert table["bytes"] == sum(s["bytes"] for s in scores)
    mean = -sum(s["log_px"] for s in scores) / len(scores)
    assert table["nll"] == pytest.approx(mean, abs=0.3)


def test_lines_may_be_as_long_as_those_of_the_corpus(tmp_path):
    (tmp_path / "lines.txt").write_text("short\n" + "x" * 50 + "\n")
    longest = SimpleNamespace(max_chars=50)
    model = SimpleNamespace(config=SimpleNamespace(corpus=longest))
    assert list(chunks(model, str(tmp_path / "lines.txt"), 1)) == [["short"], ["x" * 50]]
    longest.max_chars = 49
    with pytest.raises(UserError, match="longer than 49 characters"):
        list(chunks(model, str(tmp_path / "lines.txt")))


def test_what_was_changed_of_a_run_is_in_the_command_to_go_on(home, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "train", lambda *_, **how: None)
    said = call("train text.txt --out run --resume --max-steps 9 --set optimizer.lr=1", cwd=home)
    assert said.returncode == 130
    assert said.stderr.endswith(
        b"train text.txt --out run --set optimizer.lr=1 --set training.max_steps=9 --resume\n"
    )
    said = call("train text.txt --out run --max-steps 9", cwd=home)
    assert said.stderr.endswith(b"train text.txt --out run --resume\n")


def test_compare_report_recipes_corpora(home):
    assert b"Perplexity" in call("compare run run", cwd=home).stdout
    (home / "[bold]").symlink_to(home / "run")
    assert b"[bold] (" in call("compare [bold]", cwd=home).stdout
    assert "| run |" in call("compare run --markdown", cwd=home).stdout.decode()
    assert json.loads(call("compare run --json", cwd=home).stdout)
    assert call("report run", cwd=home).stdout.decode().strip() == "run/report.html"
    assert b"Bowman" in call("recipes").stdout
    assert b"builtin:grammar" in call("corpora").stdout


def test_a_training_nobody_reads_goes_on_to_its_end(home):
    command = f"train text.txt --out unheard --max-steps 8 --set training.validations=4 {SMALL}"
    done = subprocess.run(
        f"{sys.executable} -m midsentence {command} 2>&1 | head -n 1",
        shell=True, capture_output=True, cwd=home, check=False,
    )  # fmt: skip
    assert done.stdout.count(b"\n") == 1 and not done.stderr
    assert (home / "unheard" / "report.html").exists()


def test_head_gets_its_lines_and_nobody_complains(home):
    command = f"{sys.executable} -m midsentence sample run -n 3000 --max-length 30 | head -n 2"
    done = subprocess.run(
        command, shell=True, cwd=home, capture_output=True, timeout=120, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("trian", 2, "No such command 'trian'"),
        ("sample", 2, "Missing argument"),
        ("sample run --temprature 1", 2, "--temprature"),
        ("sample nowhere", 1, "nowhere: no such folder"),
        ("sample text.txt", 1, "no such folder"),
        ("sample run --greedy --beam 3", 1, "choose one of"),
        ("sample run --top-p 1.5", 1, "probabilities"),
        ("sample run -n 0", 2, "-n"),
        ("train nothere.txt --out x", 1, "nothere.txt: no such file"),
        ("train txt.txt --out x", 1, "Did you mean text.txt?"),
        ("train . --out x", 1, "is a folder"),
        ("train empty.txt --out x", 1, "empty.txt holds no line of text"),
        ("train text.txt --out run", 1, "already holds a run"),
        ("train text.txt --out x --recipe ptbb", 1, "Did you mean 'ptb'?"),
        ("train text.txt --out x --set encoder.hiden=3", 1, "Did you mean 'hidden'?"),
        ("train builtin:gramar --out x", 1, "there are: "),
        ("train binary.txt --out x", 1, "binary.txt:2: not UTF-8"),
        ("train text.txt --out caf\udce9", 1, "the name 'caf?' is not UTF-8: rename it"),
        ("train text.txt caf\udce9.txt --out x", 1, "'caf?.txt' is not UTF-8"),
        ("interpolate run a b --path curved", 1, "not one of linear, spherical"),
        ("compare .", 1, "has no evaluation yet"),
        ("decode run bad.jsonl", 1, "bad.jsonl:1: expected"),
        ("decode run short.jsonl", 1, "z must be (N, 4)"),
    ],
)
def test_a_mistake_gets_one_line_and_the_right_code(home, command, code, message):
    (home / "empty.txt").write_bytes(b"\n\n")
    (home / "binary.txt").write_bytes(b"fine\n\xff\xfe broken\n")
    (home / "bad.jsonl").write_text("nothing\n")
    (home / "short.jsonl").write_text("[1, 2]\n")
    done = call(command, cwd=home)
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert message in said
    assert len(said.strip().splitlines()) == 1, said
    assert said.startswith("midsentence: ")
    assert not (home / "x").exists() or not list((home / "x").iterdir())


@pytest.mark.parametrize(
    ("command", "where"),
    # The second is more than a buffer, and what it could not take is gone.
    [("corpora", "standard output"), ("recipes", "standard output or a file")],
)
def test_a_full_disk_under_the_output_is_one_line(capsys, monkeypatch, command, where):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr("sys.argv", ["midsentence", command])
        with pytest.raises(SystemExit) as ended:
            main()
        full.flush()  # as Python does while closing
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"midsentence: {where}: No space left on device\n"


def test_a_line_number_is_no_picture(capsys):
    console.err.print("poems.txt:100: not UTF-8", markup=False)
    console.table({"a:100:b": {"nll": 1.0}})
    said = capsys.readouterr()
    assert "poems.txt:100:" in said.err and "a:100:b" in said.out


def test_ctrl_c_saves_and_says_how_to_go_on(home):
    endless = "--set training.epochs=100000 --set training.patience=0"
    words = shlex.split(f"train text.txt --out long {endless} {SMALL}")
    process = subprocess.Popen(
        [sys.executable, "-m", "midsentence", *words],
        cwd=home, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    metrics = Path(home / "long" / "metrics.jsonl")
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"midsentence train text.txt --out long --resume" in said
    steps = len(metrics.read_text().splitlines())
    done = call(
        "train text.txt --out long --resume --set training.max_steps=100 --set training.epochs=1",
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    assert b"resumed at step" in done.stderr
    assert len(metrics.read_text().splitlines()) >= steps


def test_training_reads_a_pipe(home):
    done = call(f"train - --out piped --max-steps 3 {SMALL}", "\n".join(LINES) + "\n", cwd=home)
    assert done.returncode == 0, done.stderr


def test_no_colour_where_none_is_wanted(home):
    command = [sys.executable, "-m", "midsentence", "compare", "run"]
    done = subprocess.run(
        command, cwd=home, capture_output=True, check=True, timeout=120,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert b"Perplexity" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr
