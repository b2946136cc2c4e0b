"""The service, over a real socket: it answers as Python does, and no client can break it."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy, deepcopy

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra web")

from fastapi import APIRouter
from fastapi.responses import Response

from midsentence import TextVAE, UserError, directions
from midsentence.cli import web
from midsentence.fitted import FittedPrior
from midsentence.parts.priors import Mixture
from midsentence.parts.refinement import Refinement
from midsentence.space import Space
from midsentence.web import explorer, service
from midsentence.web import server as serving
from midsentence.web.card import Card
from midsentence.web.engine import Engine, Late, SharedSpace, SharedVAE, Stopped
from midsentence.web.gate import Limits
from served import Client, started, until
from test_cli import LINES, SMALL, call

HOSTILE = ["\ud800", "a\udfffb", "", "   ", "x" * 5000]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    (folder / "text.tsv").write_text(
        "".join(f"{'ab'[i % 2]}\t{line}\n" for i, line in enumerate(LINES * 6)), "utf-8"
    )
    done = call(
        f"train {folder}/text.tsv --out {folder}/run --max-steps 3 --text-field 1 --seed 1 {SMALL}"
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def model(run):
    return TextVAE.from_pretrained(run)


@pytest.fixture(scope="module")
def space(run, model):
    return Space.open(run, model=model)


@pytest.fixture
def serve(run, model, space):
    running = []

    def start(**how):
        found = started(service.create(model, space, Card.of(run, model, space), **how))
        running.append(found)
        return found[2]

    yield start
    for server, thread, _ in running:
        server.should_exit = True
        thread.join(10)


def test_the_numbers_of_a_fitted_prior_are_no_parameters(run, model):
    fitted = FittedPrior({"kind": "mog"}, Mixture(model.latent, model.vae.posterior))
    other = TextVAE(model.config, model.tokenizer, deepcopy(model.vae), fitted)
    found = [Card.of(run, each, None).about["parameters"] for each in (model, other)]
    assert found[0] == found[1] == sum(p.numel() for p in model.vae.parameters())


def test_answers_are_those_of_python(serve, model, space):
    client = serve()
    lines = LINES[:3]
    status, found = client.post("/v1/sample", n=4, seed=3, how={"temperature": 0.7})
    assert status == 200
    assert found["texts"] == model.sample(4, seed=3, temperature=0.7)
    z = model.encode(lines)
    status, found = client.post("/v1/encode", texts=lines)
    torch.testing.assert_close(torch.tensor(found["z"]), z)
    assert found["beyond"] == pytest.approx(space.beyond(z).tolist())
    status, found = client.post("/v1/decode", z=z.tolist())
    assert [w["text"] for w in found["written"]] == model.decode(z, greedy=True)
    status, found = client.post("/v1/reconstruct", texts=lines)
    assert [w["text"] for w in found["written"]] == model.reconstruct(lines)
    status, found = client.post("/v1/interpolate", a=lines[0], b=z[1].tolist(), steps=5, nll=True)
    same = space.interpolate(lines[0], z[1], 5, path="linear")
    assert [w["text"] for w in found["written"]] == [w.text for w in same]
    assert len(found["nll"]) == 5
    status, found = client.post("/v1/score", texts=lines, samples=7)
    assert found["scores"][1]["log_px"] == pytest.approx(model.score([lines[1]], 7)[0].log_px, 1e-5)
    status, found = client.post("/v1/neighbours", text=lines[0], n=3)
    assert [n["text"] for n in found["neighbours"]] == [
        n.text for n in space.neighbours(lines[0], 3)
    ]
    status, found = client.post("/v1/vary", text=lines[0], n=3, radius=0.5, seed=2)
    same = space.vary(lines[0], 3, 0.5, seed=2)
    assert [w["text"] for w in found["written"]] == [w.text for w in same]
    for path, body in {
        "analogy": {"a": lines[0], "b": lines[1], "c": lines[2]},
        "traverse": {"text": lines[0], "dimensions": 2, "steps": 3},
        "denoise": {"texts": lines},
        "outliers": {"texts": lines, "samples": 2},
        "cluster": {"count": 2},
    }.items():
        status, found = client.post(f"/v1/{path}", **body)
        assert status == 200, found


def test_directions_are_made_and_used(serve, model):
    client = serve()
    assert client.get("/v1/directions")[1] == {"directions": []}
    body = {"name": "kind", "from": LINES[:3], "to": LINES[3:6]}
    assert client.ask("POST", "/v1/direction", body)[0] == 200
    status, _ = client.post("/v1/edit", text=LINES[0], direction="kind", strength=2.0)
    assert status == 200
    status, found = client.post("/v1/toward", text=LINES[0], wanted=["kind"])
    assert status == 200
    status, found = client.ask("POST", "/v1/direction", body)[:2]
    assert status == 422
    assert "already" in found["error"]
    status, found = client.post("/v1/edit", text=LINES[0], direction="none")
    assert (status, found["error"]) == (422, "there is no direction 'none'. There are: kind")


def test_health_metrics_model_and_openapi(serve, model):
    client = serve()
    status, found = client.get("/health")
    assert (status, found["status"]) == (200, "ok")
    assert (
        found["decoded"] == model.decode(torch.zeros(1, model.latent), greedy=True, max_length=8)[0]
    )
    card = client.get("/v1/model")[1]
    assert card["latent"] == model.latent
    assert len(card["loc"]) == model.latent
    text = client.get("/metrics")[1]
    assert 'midsentence_requests_total{route="/health",status="200"} 1.0' in text
    spec = client.get("/openapi.json")[1]
    posts = [item["post"] for item in spec["paths"].values() if "post" in item]
    names = {p["requestBody"]["content"]["application/json"]["schema"]["$ref"] for p in posts}
    assert all(spec["components"]["schemas"][n.rpartition("/")[2]]["examples"] for n in names)


def test_examples_of_the_openapi_are_answered(serve, model):
    client = serve()
    spec = client.get("/openapi.json")[1]
    for path, item in sorted(spec["paths"].items()):
        if "post" not in item or path in ("/v1/edit", "/v1/toward"):  # these need a direction
            continue
        ref = item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        (example,) = spec["components"]["schemas"][ref.rpartition("/")[2]]["examples"]
        if "z" in example:
            example["z"] = [[0.0] * model.latent]
        status, found, _ = client.ask("POST", path, example)
        assert status == 200, (path, found)


WRONG = [
    ("/v1/sample", {"n": 0}), ("/v1/sample", {"n": 65}), ("/v1/sample", {"m": 1}),
    ("/v1/sample", {"n": 1, "seed": -1}), ("/v1/sample", {"n": 1, "how": {"temperature": 0}}),
    ("/v1/sample", {"n": 1, "how": {"max_length": 10**9}}), ("/v1/sample", {"n": 1, "label": 3}),
    ("/v1/decode", {"z": [[1.0]]}), ("/v1/decode", {"z": []}),
    ("/v1/decode", {"z": [[float("nan")] * 2]}), ("/v1/decode", {"z": [[float("inf")] * 2]}),
    ("/v1/encode", {"texts": ["a"] * 65}), ("/v1/encode", {"texts": [1]}),
    ("/v1/score", {"texts": ["a", "a" * 1050], "samples": 500}),
    ("/v1/score", {"texts": ["é" * 530], "samples": 500}),  # a byte may be a token
    ("/v1/outliers", {"texts": ["a", "é" * 2700], "samples": 100}),
    ("/v1/interpolate", {"a": "a", "b": "b", "path": "/etc/passwd"}),
    ("/v1/edit", {"text": "a", "direction": "../../etc/passwd"}),
    *[("/v1/encode", {"texts": [text]}) for text in HOSTILE],
    *[("/v1/analogy", {"a": text, "b": "b", "c": "c"}) for text in HOSTILE],
]  # fmt: skip


@pytest.fixture(scope="module")
def shared_client(run, model, space):
    server, thread, client = started(service.create(model, space, Card.of(run, model, space)))
    yield client
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(("path", "body"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_is_refused_in_one_line(shared_client, path, body):
    status, found, _ = shared_client.ask("POST", path, body)
    assert status == 422
    assert set(found) == {"error"}
    assert "\n" not in found["error"]
    assert len(found["error"]) < 300


def test_a_body_full_of_mistakes_is_refused_by_its_first(shared_client):
    bodies = {
        "decode": {"z": [["x"] * 65_000] * 3},
        "encode": {"texts": [1] * 300_000},
        "toward": {"text": ["x"] * 65_000, "wanted": [1] * 200_000},
    }
    for path, body in bodies.items():
        began = time.monotonic()
        assert shared_client.post(f"/v1/{path}", **body)[0] == 422
        assert time.monotonic() - began < 0.7


NO_JSON = [b"", b"{", b"[" * 100_000, b'{"n": 1' + b"0" * 5000 + b"}", b"\xff", b"null",
           b'{"n": NaN}']  # fmt: skip


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_is_refused(shared_client, body):
    status, found, _ = shared_client.ask("POST", "/v1/sample", body)
    assert status in (400, 422)
    assert set(found) == {"error"}


def test_a_sentence_cannot_leave_its_string(shared_client):
    link = http.client.HTTPConnection("127.0.0.1", shared_client.port, timeout=20)
    bad = "</script><script>alert(1)</script> & \u2028"
    body = json.dumps({"texts": [bad], "samples": 1})
    link.request("POST", "/v1/score", body, {"content-type": "application/json"})
    raw = link.getresponse().read().decode()
    link.close()
    assert not set("<>&\u2028") & set(raw)
    assert json.loads(raw)["scores"][0]["text"] == bad


def test_a_key_is_asked_for_on_every_route(serve):
    client = serve(key="secret")
    for path in ("/health", "/metrics", "/openapi.json", "/v1/model", "/nowhere", "/",
                 "/page/app.js", "/v1/export/atlas.csv", "/v1/export/projector.zip"):  # fmt: skip
        status, _, answer = client.ask("GET", path)
        assert status == 401
        assert "Basic" in answer.getheader("www-authenticate")
    for given in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"},
                  {"authorization": "Basic OnNlY3JldA=="}):  # fmt: skip
        assert client.ask("GET", "/v1/model", headers=given)[0] == 200
    for given in ({"authorization": "Bearer secre"}, {"authorization": "Basic !"},
                  {"authorization": "Basic \xff\xe9"}, {"authorization": "Basic /////w=="},
                  {"x-api-key": "\xff"}):  # fmt: skip
        assert client.ask("GET", "/v1/model", headers=given)[0] == 401


def test_other_names_and_other_sites_are_refused(serve):
    client = serve()
    assert client.ask("GET", "/health", headers={"host": "evil.example"})[0] == 400
    assert client.ask("GET", "/health", headers={"host": "localhost:1"})[0] == 200
    assert client.ask("GET", "/health", headers={"sec-fetch-site": "cross-site"})[0] == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    link["sec-fetch-dest"] = "document"
    assert client.ask("GET", "/", headers=link)[0] == 404  # let in: a service has no page
    for other in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors"}):
        assert client.ask("GET", "/", headers=link | other)[0] == 403
    for method, path in (("GET", "/v1/model"), ("POST", "/")):
        assert client.ask(method, path, headers=link)[0] == 403
    answer = client.ask("GET", "/health")[2]
    assert answer.getheader("access-control-allow-origin") is None
    assert answer.getheader("x-content-type-options") == "nosniff"


def test_a_page_of_another_site_is_refused_by_its_origin_too(serve):
    """Browsers say Sec-Fetch-Site neither to a LAN's address nor in the older versions."""
    client = serve(hosts=("192.168.0.5", "poems.example", "localhost"))
    here = {"host": "192.168.0.5:8000"}
    for origin, status in (
        ("http://192.168.0.5:8000", 200),
        ("https://poems.example", 200),  # a proxy before it, which has changed the Host
        ("http://evil.example", 403),
        ("null", 403),
    ):
        headers = here | {"origin": origin}
        assert client.ask("POST", "/v1/sample", {"n": 1}, headers)[0] == status
    assert client.ask("POST", "/v1/sample", {"n": 1}, here)[0] == 200
    told = here | {"origin": "http://evil.example", "sec-fetch-site": "same-origin"}
    assert client.ask("POST", "/v1/sample", {"n": 1}, told)[0] == 200


@pytest.mark.parametrize("name", ["https://poems.example", "poems.example:8000", "a/b", "", "a b"])
def test_a_name_that_no_host_header_has_is_refused(name):
    with pytest.raises(UserError, match=r"a name alone, without http:// and port"):
        serving.hosts("127.0.0.1", ["fine.example", name])


def test_names_and_numbers_of_hosts(capsys, monkeypatch):
    assert serving.hosts("::1", ["*", "Poems.example", "::2", "[::3]", "10.0.0.1"])[3:] == (
        "[::1]", "*", "poems.example", "[::2]", "[::3]", "10.0.0.1",
    )  # fmt: skip
    monkeypatch.setattr(serving.Server, "run", lambda self, sockets: None)
    with serving.listening("127.0.0.1", 0) as bound:
        serving.run(lambda: None, bound, "::1")
        assert f"http://[::1]:{bound.getsockname()[1]} " in capsys.readouterr().err


def test_a_port_is_taken_as_soon_as_it_is_asked_for():
    with serving.listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}: .*--port 0"):
            serving.listening("127.0.0.1", port)


def raw(client, content, seconds=5.0):
    """What is answered to bytes on a socket, until it is closed or `seconds` are over."""
    link = socket.create_connection(("127.0.0.1", client.port), timeout=seconds)
    found = b""
    try:
        link.sendall(content)
        while part := link.recv(65536):
            found += part
    except (TimeoutError, ConnectionError):
        pass
    link.close()
    return found


HEAD = b"POST /v1/sample HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_large_body_is_refused_before_it_is_read(serve):
    client = serve()
    began = time.monotonic()
    found = raw(client, HEAD + b"Content-Length: 99999999\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 3
    chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
    assert raw(client, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20).startswith(
        b"HTTP/1.1 413"
    )


def test_what_is_half_sent_is_not_waited_for(serve, monkeypatch):
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "IDLE_SECONDS", 1)
    client = serve(limits=Limits(receive=0.3))
    began = time.monotonic()
    assert raw(client, HEAD + b"Content-Length: 10\r\n\r\n{").startswith(b"HTTP/1.1 408")
    assert raw(client, b"") == b""  # silent
    assert raw(client, b"GET /health HT") == b""  # half a head
    # A whole request, then half of a second one on the same connection.
    found = raw(client, b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/mo")
    assert found.count(b"HTTP/1.1") == 1
    assert time.monotonic() - began < 4


def test_who_does_not_read_the_answer_is_let_go(monkeypatch):
    monkeypatch.setattr(serving, "IDLE_SECONDS", 1)
    monkeypatch.setattr(serving, "TAKE_SECONDS", 0.3)
    api = APIRouter()
    api.get("/large")(lambda: Response(b"a" * 50_000_000))
    server, thread, client = started(service.bare(api, ("localhost",)))
    for more in (b"", b"Connection: close\r\n"):
        with socket.create_connection(("127.0.0.1", client.port)) as link:
            link.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
            until(lambda: server.server_state.connections)
            until(lambda: not server.server_state.connections)
    server.should_exit = True
    thread.join(10)


def test_too_many_at_once_are_told_to_come_again(serve, monkeypatch):
    client = serve(limits=Limits(waiting=2))
    held = threading.Event()
    slow = SharedVAE.draw

    def draw(self, *args, **how):
        held.wait(10)
        return slow(self, *args, **how)

    monkeypatch.setattr(SharedVAE, "draw", draw)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.ask, "POST", "/v1/sample", {"n": 1}) for _ in range(4)]
        while sum(job.done() for job in asked) < 2:
            time.sleep(0.01)
        held.set()
        answers = [job.result() for job in asked]
    assert sorted(status for status, _, _ in answers) == [200, 200, 429, 429]
    assert all(a.getheader("retry-after") == "1" for status, _, a in answers if status == 429)


def test_a_body_is_not_read_where_there_is_no_room(serve):
    client = serve(limits=Limits(waiting=0))
    began = time.monotonic()
    assert raw(client, HEAD + b"Content-Length: 10\r\n\r\n{").startswith(b"HTTP/1.1 429")
    assert time.monotonic() - began < 3


def test_who_still_sends_its_body_takes_a_place_until_it_is_gone(serve):
    client = serve(limits=Limits(waiting=1))
    with socket.create_connection(("127.0.0.1", client.port)) as link:
        link.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")
        until(lambda: client.get("/v1/directions")[0] == 429)
    until(lambda: client.get("/v1/directions")[0] == 200)


def test_a_connection_too_many_takes_the_place_of_a_silent_one_or_none(serve, monkeypatch):
    monkeypatch.setattr(serving, "CONNECTIONS", 3)
    client = serve()
    ask = b"GET /v1/directions HTTP/1.1\r\nHost: localhost\r\n"
    half = HEAD + b"Content-Length: 10\r\n\r\n{"
    with ExitStack() as stack:

        def connected(said):
            link = socket.create_connection(("127.0.0.1", client.port), timeout=5)
            stack.enter_context(link).sendall(said)
            return link

        silent, *_ = [connected(said) for said in (ask + b"\r\n", half, half)]
        found = b""
        while not found.endswith(b"]}"):
            found += silent.recv(1 << 16)
        assert raw(client, ask + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert silent.recv(1) == b""  # it had its answer
        connected(half)
        time.sleep(0.2)
        assert raw(client, ask + b"\r\n") == b""  # all of them are being served


def test_what_takes_too_long_is_ended(serve):
    client = serve(seconds=0.0)
    assert client.post("/v1/sample", n=64)[0] == 503
    assert client.get("/v1/model")[0] == 200


def test_a_stale_direction_is_left_out_of_the_service(run, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    for name, weights in (("old", "0" * 64), ("way", None)):
        found = directions.Direction(torch.ones(4), torch.ones(4), 0.0)
        directions.write(folder, name, found, weights=weights)
    served = []
    monkeypatch.setattr(serving, "run", lambda *words: served.append(words))
    made = service.create
    monkeypatch.setattr(
        service, "create", lambda *words, **how: (served.append(how["found"]), made(*words, **how))
    )
    web.serve(folder, port=0)
    assert set(served[0]) == {"way"}
    assert "no direction old: " in capsys.readouterr().err


def test_a_prior_without_a_likelihood_is_said(run, monkeypatch):
    monkeypatch.setattr(serving, "run", lambda app, *_: app.close())
    seen = []
    monkeypatch.setattr(web, "warn_unavailable", seen.append)
    web.serve(run, port=0)
    assert [type(model) for model in seen] == [TextVAE]


def test_an_answer_of_many_parts_has_one_time_limit(serve, monkeypatch):
    """Scores are found sentence by sentence; each in time, together too late."""
    score = TextVAE.score
    slow = lambda *words, **how: (time.sleep(0.1), score(*words, **how))[1]  # noqa: E731
    monkeypatch.setattr(TextVAE, "score", slow)
    client = serve(seconds=0.5)
    assert client.post("/v1/score", texts=LINES[:1], samples=1)[0] == 200
    assert client.post("/v1/score", texts=LINES[:1] * 9, samples=1)[0] == 503


def test_requests_of_many_clients_are_one_batch_and_each_gets_its_own(model):
    rows = []
    engine = Engine(watch=rows.append)
    shared, begin = SharedVAE(model, engine), threading.Event()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(engine.call, begin.wait)
        z = [torch.randn(n, model.latent) for n in (1, 3, 2, 5)]
        written = [
            pool.submit(shared.decode, part, seed=i, temperature=1.0) for i, part in enumerate(z)
        ]
        read = [pool.submit(shared.encode, LINES[i : i + 2]) for i in range(3)]
        while len(engine.waiting) < 7:
            time.sleep(0.001)
        begin.set()
        assert first.result()
        for i, (part, job) in enumerate(zip(z, written, strict=True)):
            assert job.result() == model.decode(part, seed=i, temperature=1.0)
        for i, job in enumerate(read):
            torch.testing.assert_close(job.result(), model.encode(LINES[i : i + 2]))
    engine.close()
    assert sorted(rows) == [1, 6, 11]


def test_an_engine_refuses_what_waits_when_it_ends_and_forgets_who_left():
    engine, begin, done = Engine(seconds=0.05), threading.Event(), []
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(engine.call, lambda: begin.wait(5))
        with pytest.raises(Late):
            engine.call(lambda: done.append("late"))
        with pytest.raises(Late):
            first.result()
        engine.seconds = 5
        waits = pool.submit(engine.call, lambda: done.append("refused"))
        while len(engine.waiting) < 2:
            time.sleep(0.001)
        engine.close()
        begin.set()
        with pytest.raises(Stopped):
            waits.result()
    assert done == []
    with pytest.raises(Stopped):
        engine.call(lambda: None)


def test_an_engine_that_ends_does_not_wait_for_what_runs(monkeypatch):
    engine, begun, go_on, seen = Engine(), threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(engine.call, lambda: (begun.set(), go_on.wait(10)))
        begun.wait(5)
        engine.close()
        with pytest.raises(Stopped):
            runs.result(timeout=2)
        go_on.set()
    engine.thread.join(5)
    assert seen == []


def test_who_has_gone_away_is_not_worked_for(run, model, space):
    gate = service.create(model, space, Card.of(run, model, space))
    server, thread, client = started(gate)
    engine = gate.close.__self__
    done, go_on = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        runs = pool.submit(engine.call, lambda: go_on.wait(10))
        until(lambda: engine.running)
        engine.watch = done.append
        body = json.dumps({"texts": LINES[:9], "samples": 2}).encode()
        with socket.create_connection(("127.0.0.1", client.port)) as link:
            head = HEAD.replace(b"sample", b"score")
            link.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            until(lambda: engine.waiting)
        until(lambda: gate.busy == 0)
        go_on.set()
        runs.result()
        until(lambda: not engine.waiting)
    assert client.post("/v1/sample", n=1)[0] == 200
    assert len(done) == 3  # what was held, and a sample: its z and its words
    server.should_exit = True
    thread.join(10)


def test_refined_posteriors_are_found_apart(model):
    """A refinement's steps are of a batch as a whole: company would change the answer."""
    rows = []
    engine, begin = Engine(watch=rows.append), threading.Event()
    shared = SharedVAE(model, engine)
    shared.vae = copy(model.vae)
    shared.vae.refinement = Refinement(2, 1.0)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(engine.call, begin.wait)
        until(lambda: engine.running)
        read = [pool.submit(shared.encode, LINES[i : i + 2]) for i in range(3)]
        until(lambda: len(engine.waiting) == 3)
        begin.set()
        assert first.result()
        found = [job.result() for job in read]
    for i, z in enumerate(found):
        torch.testing.assert_close(z, shared.encode(LINES[i : i + 2]))
    engine.close()
    assert rows[:4] == [1, 2, 2, 2]


def test_a_space_can_be_asked_by_many_threads(space):
    engine = Engine()
    shared = SharedSpace.of(space, engine)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(shared.vary, LINES[i % 5], 3, seed=i) for i in range(12)]
        for i, job in enumerate(jobs):
            same = space.vary(LINES[i % 5], 3, seed=i)
            assert [w.text for w in job.result()] == [w.text for w in same]
    engine.close()


def test_it_ends_within_five_seconds_though_clients_hang(run, model, space):
    server, thread, client = started(service.create(model, space, Card.of(run, model, space)))
    links = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(5)]
    links[0].sendall(HEAD + b"Content-Length: 10\r\n\r\n{")
    links[1].sendall(b"GET /he")
    time.sleep(0.1)
    began = time.monotonic()
    server.should_exit = True
    thread.join(8)
    assert not thread.is_alive()
    assert time.monotonic() - began < 5
    for link in links:
        link.close()


def test_a_language_model_is_served_too(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(LINES * 3) + "\n", "utf-8")
    done = call(
        f"train {tmp_path}/text.txt --out {tmp_path}/lm --max-steps 2 --recipe lm "
        "--set decoder.hidden=8 --set tokenizer.kind=word"
    )
    assert done.returncode == 0, done.stderr
    model = TextVAE.from_pretrained(tmp_path / "lm")
    server, thread, client = started(
        service.create(model, None, Card.of(tmp_path / "lm", model, None),
                       more=explorer.routes(None))
    )  # fmt: skip
    assert client.get("/health")[0] == 200
    assert client.post("/v1/sample", n=2, seed=1)[1]["texts"] == model.sample(2, seed=1)
    for path, body in (("neighbours", {"text": LINES[0]}), ("read", {"text": LINES[0]}),
                       ("interpolate", {"a": LINES[0], "b": LINES[1]})):  # fmt: skip
        status, found = client.post(f"/v1/{path}", **body)
        assert status == 422
        assert "language model" in found["error"]
    status, found = client.get("/v1/map")
    assert (status, "language model" in found["error"]) == (404, True)
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_ends_when_told(run, ending):
    command = [sys.executable, "-m", "midsentence", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline() + process.stderr.readline()
        client = Client(int(re.search(r"http://localhost:(\d+)", said)[1]))
        until(lambda: alive(client))
        assert client.get("/health")[1]["status"] == "ok"
        began = time.monotonic()
        process.send_signal(ending)
        process.wait(10)
        assert time.monotonic() - began < 5
        assert "Traceback" not in process.stderr.read()


def test_it_ends_at_once_though_the_model_is_busy(run):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from midsentence import TextVAE\nfrom midsentence.cli import web\n"
        "TextVAE.draw = lambda *words, **how: (print('busy', flush=True), time.sleep(60))\n"
        "web.serve(Path(sys.argv[1]), port=0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process, ThreadPoolExecutor(3) as pool:
        said = process.stderr.readline() + process.stderr.readline()
        client = Client(int(re.search(r"http://localhost:(\d+)", said)[1]))
        until(lambda: alive(client))
        asked = [pool.submit(client.post, "/v1/sample", n=1) for _ in range(3)]
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
        assert time.monotonic() - began < 5
        ends = (503, {"error": "the service is ending"})
        assert [job.result() for job in asked] == [ends] * 3
        assert process.stderr.read() == ""


def test_an_empty_key_is_refused_and_an_open_door_is_said(run, tmp_path, capsys, monkeypatch):
    for command in ("serve", "explore", "explore --watch"):
        found = call(f"{command} {run} --port 0 --api-key ''")
        assert found.returncode == 1
        assert b"--api-key is empty: give a key" in found.stderr
        assert found.stderr.count(b"\n") == 1
    monkeypatch.setenv("MIDSENTENCE_API_KEY", "")
    assert b"--api-key is empty" in call(f"serve {run} --port 0").stderr
    monkeypatch.delenv("MIDSENTENCE_API_KEY")
    found = call(f"explore {run} --port 0 --watch --umap")
    assert b"leave them out" in found.stderr
    for key in ("sch\u00f6n", "key ", " key", "ke\ny"):
        with pytest.raises(UserError, match="no header can hold this --api-key"):
            web.serve(run, port=0, api_key=key)
    monkeypatch.setattr(serving, "run", lambda app, *_: app.close())
    for folder, watch in ((run, False), (tmp_path, True)):
        web.explore(folder, host="0.0.0.0", port=0, watch=watch)
        assert "anyone who reaches this port" in capsys.readouterr().err
        web.explore(folder, host="0.0.0.0", port=0, watch=watch, api_key="secret")
        assert "anyone" not in capsys.readouterr().err


def alive(client):
    try:
        return client.get("/v1/model")[0] == 200
    except OSError:
        return False
