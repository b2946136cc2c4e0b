"""Nothing leaves the machine: a whole life of a model, with every socket watched and no network."""

import json
import subprocess
import sys

import pytest

LIFE = """
import json, sys
tried = []

def hook(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.send",
                         "urllib.", "http.client", "smtplib", "ftplib")):
        tried.append(f"{event} {arguments}")

sys.addaudithook(hook)
if "prove" in sys.argv:
    import socket
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except OSError:
        pass
else:
    from importlib.util import find_spec
    from pathlib import Path
    from midsentence import TextVAE, pipeline
    from midsentence.evaluation import evaluate_file
    from midsentence.export import export
    from midsentence.prior_fitting import fit_prior
    from several import FAST
    corpus, out = sys.argv[1:]
    pipeline.train(corpus, out, settings=[*FAST, "training.max_steps=4", "training.parts=1"])
    fit_prior(out, "mog", ["components=2"], steps=2)
    model = TextVAE.from_pretrained(out)
    model.sample(3), model.score(["a b c"], 5), model.interpolate("a b", "b c", 3)
    evaluate_file(model, corpus, 5)
    pipeline.write_report(Path(out))
    export(out, out + "-published")
    if find_spec("fastapi"):
        from midsentence.web import explorer, server, service, watching
print(json.dumps(tried))
"""


APART = ["unshare", "-rn"]


@pytest.fixture(autouse=True)
def _apart():
    try:
        subprocess.run([*APART, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")


def lived(*arguments):
    command = [*APART, sys.executable, "-c", LIFE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=__file__.rpartition("/")[0])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_training_and_writing_ask_nobody(tmp_path):
    """In a network namespace without routes, and no name is even looked up."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{a} {b} {c}" for a in "abcdefg" for b in "abcde" for c in "abcd"))
    assert lived(path, tmp_path / "run") == []
    assert (tmp_path / "run" / "report.html").exists()
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_what_is_tried_is_seen():
    tried = lived("prove")
    assert any("127.0.0.1" in event for event in tried)
