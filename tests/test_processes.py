"""Several processes compute what one does: order, noise, gradients, state; and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lasting import LASTING
from midsentence import UserError, evaluation, launch, pipeline
from midsentence.cli import app
from midsentence.learning import checkpoint
from several import CASES, FAST, settings, train_all

PEOPLE = ["anna", "ben", "carla", "dirk", "emma", "finn", "greta", "hugo"]
THINGS = ["a book", "two trees", "the sea", "some bread", "a small house", "their old songs"]
HERE = Path(__file__).parent
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = [f"{p} {v} {t}" for p in PEOPLE for v in ("sees", "likes", "paints") for t in THINGS]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def much(corpus):
    """Text that keeps an evaluation busy for a while, in groups of which each is soon done."""
    path = Path(corpus).with_name("much.txt")
    path.write_text(Path(corpus).read_text() * 200)
    return path


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Every case trained by one process."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(corpus, folder, CASES if "TORTURE" in os.environ else LONG)
    torch.set_num_threads(threads)
    return folder


def together(count, *command):
    """The processes of one run, started as torchrun starts them."""
    port = str(20_000 + os.getpid() % 20_000)
    common = {**os.environ, **QUIET, "WORLD_SIZE": str(count), "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]  # fmt: skip


def ended(children):
    said = [child.communicate(timeout=300)[1] for child in children]
    assert [child.returncode for child in children] == [0] * len(children), said
    return said


def under_way(run, parent):
    """Wait until some steps are made."""
    steps = run / "metrics.jsonl"
    while not steps.exists() or steps.stat().st_size < 2000:
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.1)


def children(parent):
    """Numbers of the processes that this number began, the oldest first."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True)
    return [*map(int, found.stdout.split())]


def figures(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    clock = ("seconds", "words_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def assert_same(run, other):
    mine, theirs = (checkpoint.latest(r / "checkpoints")[0] for r in (run, other))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        found, wanted = tensor.double(), theirs[name].double()
        if "qkv.bias" in name:
            # Attention is the same whatever is added to all keys: that gradient is nothing but
            # rounding, which Adam takes for a direction.
            third = len(found) // 3
            found[third : 2 * third] = wanted[third : 2 * third]
        assert torch.allclose(found, wanted, atol=1e-6), (name, (found - wanted).abs().max())
    for a, b in zip(figures(run), figures(other), strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            close = value if isinstance(value, str) else pytest.approx(value, abs=1e-6, rel=1e-6)
            assert b[name] == close, (name, a, b)


# Four on two cores take far longer a step: these have few.
BRIEF = ("plain, briefly", "in pieces, briefly")
LONG = tuple(name for name in CASES if name not in BRIEF)


@pytest.mark.parametrize(("count", "names"), [(2, LONG), pytest.param(4, BRIEF, marks=LASTING)])
def test_the_same_training_by_one_process_and_by_several(corpus, alone, tmp_path, count, names):
    ended(together(count, HERE / "several.py", corpus, tmp_path, 0, "afresh", *names))
    for name in names:
        assert_same(alone / name, tmp_path / name)
        quick = [evaluation.evaluations(run / name)["quick"] for run in (alone, tmp_path)]
        assert quick[0] == pytest.approx(quick[1], abs=1e-5)
        texts = [(run / name / "samples.json").read_text() for run in (alone, tmp_path)]
        assert texts[0] == texts[1]
        assert (tmp_path / name / "report.html").exists()


@LASTING
def test_going_on_with_fewer_and_again_with_more(corpus, alone, tmp_path):
    """Two processes begin, one goes on, two end: as if there had been no stop."""
    script, names = HERE / "several.py", ("plain", "in pieces")
    ended(together(2, script, corpus, tmp_path, 4, "afresh", *names))
    train_all(corpus, tmp_path, names, stop=8, resume=True)
    for name in names:
        assert checkpoint.latest(tmp_path / name / "checkpoints")[1]["position"]["step"] == 9
    ended(together(2, script, corpus, tmp_path, 0, "resume", *names))
    for name in names:
        assert_same(alone / name, tmp_path / name)
        texts = [(run / name / "samples.json").read_text() for run in (alone, tmp_path)]
        assert texts[0] == texts[1]


def torchrun(port, *command, rank=0, nodes=1, each=2):
    """What one of some machines runs, as the manual has it; here all are on loopback."""
    started = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes,
               "--node-rank", rank,
               "--nproc-per-node", each, "--master-addr", "127.0.0.1", "--master-port", port,
               "-m", "midsentence", *command]  # fmt: skip
    return subprocess.Popen(
        [*map(str, started)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, **QUIET, "GLOO_SOCKET_IFNAME": "lo"}, start_new_session=True,
    )  # fmt: skip


def node(rank, port, corpus, out, *asked, nodes=2, each=1):
    settings = [part for setting in asked for part in ("--set", setting)]
    command = ["train", corpus, "--out", out, *settings]
    return torchrun(port, *command, rank=rank, nodes=nodes, each=each)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@LASTING
def test_two_nodes_train_as_one_process_does(corpus, alone, tmp_path):
    port = free_port()
    said = ended([node(rank, port, corpus, tmp_path, *settings("plain")) for rank in range(2)])
    assert_same(alone / "plain", tmp_path)
    assert "valid bound" in said[0]
    assert "valid bound" not in said[1]


@LASTING
def test_when_a_node_is_lost_the_other_ends_with_one_line(corpus, tmp_path):
    port, long = free_port(), [*settings("plain"), "training.max_steps=100000"]
    nodes = [node(rank, port, corpus, tmp_path / "run", *long) for rank in range(2)]
    under_way(tmp_path / "run", nodes[0])
    for child in [*children(nodes[1].pid), nodes[1].pid]:
        os.kill(child, signal.SIGKILL)
    _, said = nodes[0].communicate(timeout=60)
    nodes[1].communicate()
    assert nodes[0].returncode != 0
    complaints = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert len(complaints) == 1, said
    assert "--resume" in complaints[0]
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def test_parts_that_cannot_be_shared_out_are_refused(corpus, tmp_path, monkeypatch):
    from midsentence import processes

    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(UserError, match="shared out among 2 processes"):
        pipeline.train(corpus, tmp_path / "run", settings=[*FAST, "training.parts=3"])


def test_when_one_is_killed_all_end_with_one_line(corpus, tmp_path):
    command = ["train", corpus, "--out", tmp_path / "run", "--devices", 2]
    asked = [part for s in [*FAST, "training.max_steps=100000"] for part in ("--set", s)]
    parent = subprocess.Popen(
        [sys.executable, "-m", "midsentence", *map(str, command), *asked],
        stderr=subprocess.PIPE, text=True, env={**os.environ, **QUIET},
    )  # fmt: skip
    under_way(tmp_path / "run", parent)
    os.kill(children(parent.pid)[1], signal.SIGKILL)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 1
    complaints = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert len(complaints) == 1, said
    assert "--resume" in complaints[0]
    assert "Traceback" not in said
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def command(*given, stdin=None, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "midsentence", *map(str, given)], stdin=stdin, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **QUIET}, **more,
    )  # fmt: skip


def assert_one_line(said):
    complaints = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert len(complaints) == 1 and "Traceback" not in said, said
    return complaints[0]


def test_one_killed_while_the_corpus_is_prepared(tmp_path):
    """The first waits for its text; the other is killed, or the first is."""
    for which in (1, 0):
        out = tmp_path / str(which)
        parent = command("train", "-", "--out", out, "--devices", 2, stdin=subprocess.PIPE)
        while not list(out.glob("corpus/.train.lines")):
            assert parent.poll() is None, parent.communicate()
            time.sleep(0.1)
        time.sleep(1)
        os.kill(children(parent.pid)[which], signal.SIGKILL)
        _, said = parent.communicate("a b c\n" * 400, timeout=60)
        assert parent.returncode == 1
        assert "--resume" in assert_one_line(said)


def given_away(text, folder):
    """A named pipe, whose lines only one process can have, and who writes into it."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(text,), daemon=True)
    writer.start()
    return pipe, writer


@pytest.mark.parametrize("which", [1, pytest.param(0, marks=LASTING)])
def test_one_killed_while_a_model_is_evaluated(much, alone, tmp_path, which, monkeypatch, capfd):
    """The other one may be too busy to notice: then it does not outlive the grace."""
    monkeypatch.setattr(launch, "GRACE", 10.0)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    pipe, writer = given_away(much.read_text(), tmp_path)

    def kill():
        writer.join(timeout=60)  # both are there, and the first has read everything
        time.sleep(1)
        os.kill(children(os.getpid())[-2:][which], signal.SIGKILL)

    threading.Thread(target=kill).start()
    asked = "evaluate", alone / "plain", pipe, "--samples", 50
    assert launch.launch(2, [*map(str, asked)]) == 1
    assert_one_line(capfd.readouterr().err)


@LASTING
def test_under_torchrun_the_first_is_killed_and_the_other_says_so(corpus, tmp_path):
    port, long = free_port(), [*settings("plain"), "training.max_steps=100000"]
    parent = node(0, port, corpus, tmp_path / "run", *long, nodes=1, each=2)
    under_way(tmp_path / "run", parent)
    os.kill(children(parent.pid)[0], signal.SIGKILL)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0
    complaints = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert len(complaints) == 1 and "--resume" in complaints[0], said


@LASTING
def test_under_torchrun_one_killed_while_a_model_is_evaluated(much, alone):
    """torchrun ends the other one before it can notice."""
    long = ("evaluate", alone / "plain", much, "--samples", 2_500)
    parent = torchrun(free_port(), *long)
    time.sleep(12)
    os.kill(children(parent.pid)[1], signal.SIGKILL)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0
    complaints = [line for line in said.splitlines() if line.startswith("midsentence:")]
    assert len(complaints) == 1 and "what was saved is whole" in complaints[0], said


def test_evaluate_and_sample_by_two_say_what_one_says(corpus, alone, tmp_path):
    run = alone / "iwae"
    text = Path(corpus).read_text()
    pipe, _ = given_away(text, tmp_path)
    sampling = ("sample", run, "-n", 9, "--seed", 3)
    measuring = ("evaluate", run, "--json", "--samples", 20)
    written, measured = (
        CliRunner().invoke(app, [*map(str, given)], catch_exceptions=False).stdout
        for given in (sampling, (*measuring, corpus))
    )
    for given, stdin in (sampling, None), ((*measuring, pipe), None), ((*measuring, "-"), text):
        two = command(*given, "--devices", 2, stdin=subprocess.PIPE)
        found, said = two.communicate(stdin, timeout=100)
        assert two.returncode == 0, said
        if given is sampling:
            assert found == written and len(found.splitlines()) == 9
        else:
            assert json.loads(found) == pytest.approx(json.loads(measured), rel=1e-5, abs=1e-6)


def test_ctrl_c_saves_once_and_all_end(corpus, tmp_path):
    asked = [part for s in [*FAST, "training.max_steps=100000"] for part in ("--set", s)]
    command = ["train", corpus, "--out", str(tmp_path / "run"), "--devices", "2", *asked]
    parent = subprocess.Popen(
        [sys.executable, "-m", "midsentence", *command], stderr=subprocess.PIPE, text=True,
        env={**os.environ, **QUIET}, start_new_session=True,
    )  # fmt: skip
    under_way(tmp_path / "run", parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130, said
    assert said.count("stopped and saved") == 1
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


SLOW = """
import sys, time
from midsentence import pipeline, processes
from midsentence.learning import checkpoint
save = checkpoint.save
def slow(*arguments):
    time.sleep(1)
    save(*arguments)
    print("saved", time.monotonic(), file=sys.stderr)
checkpoint.save = slow
corpus, out, *settings = sys.argv[1:]
from midsentence.learning.trainer import Trainer
fit = Trainer.fit
def timed(self):
    fit(self)
    print("done", time.monotonic(), file=sys.stderr)
    raise SystemExit
Trainer.fit = timed
pipeline.train(corpus, out, settings=settings)
"""


def test_nobody_ends_before_the_first_has_saved(corpus, tmp_path):
    """A launcher gives who is left twenty seconds, which may not be enough for a large model."""
    asked = [*FAST, "training.max_steps=2"]
    both = together(2, "-c", SLOW, corpus, tmp_path / "run", *asked)
    first, second = ended(both)
    saved = max(float(line.split()[1]) for line in first.splitlines() if "saved" in line)
    done = [float(line.split()[1]) for line in second.splitlines() if "done" in line]
    assert len(done) == 1 and done[0] >= saved


def test_a_signal_s_name_reaches_the_user(capfd, monkeypatch, tmp_path):
    """Where the first process itself is killed, its launcher speaks for it."""
    (tmp_path / "midsentence.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '0' else time.sleep(99)\n"
    )
    monkeypatch.setattr(launch, "GRACE", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert launch.launch(2, []) == 1
    assert "ended by SIGKILL" in capfd.readouterr().err
