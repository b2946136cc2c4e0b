"""Nothing leaves the machine: a whole life of a model, with every socket watched and no network."""

import json
import shutil
import subprocess
import sys

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
    from pathlib import Path
    from midsentence import TextVAE, pipeline
    from midsentence.prior_fitting import fit_prior
    from several import FAST
    corpus, out = sys.argv[1:]
    pipeline.train(corpus, out, settings=[*FAST, "training.max_steps=4", "training.parts=1"])
    fit_prior(out, "mog", ["components=2"], steps=2)
    model = TextVAE.from_pretrained(out)
    model.sample(3), model.score(["a b c"], 5), model.interpolate("a b", "b c", 3)
    pipeline.write_report(Path(out))
print(json.dumps(tried))
"""


def lived(*arguments):
    apart = ["unshare", "-rn"] if _can_be_apart() else []
    command = [*apart, sys.executable, "-c", LIFE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=__file__.rpartition("/")[0])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _can_be_apart():
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


def test_training_and_writing_ask_nobody(tmp_path):
    """In a network namespace without routes, where that may be had; no name is even looked up."""
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{a} {b} {c}" for a in "abcdefg" for b in "abcde" for c in "abcd"))
    assert lived(path, tmp_path / "run") == []
    assert (tmp_path / "run" / "report.html").exists()
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_what_is_tried_is_seen():
    tried = lived("prove")
    assert any("127.0.0.1" in event for event in tried)
