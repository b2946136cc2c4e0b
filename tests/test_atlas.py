"""The map and the explorer's routes: numbers that can be checked, over a real socket."""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra web")

from midsentence import TextVAE, UserError, launch
from midsentence import space as space_module
from midsentence.cli import web
from midsentence.measuring.survey import survey
from midsentence.space import Space
from midsentence.text.batches import collate
from midsentence.web import atlas as maps
from midsentence.web import explorer, service, watching
from midsentence.web.atlas import Atlas
from midsentence.web.card import Card
from midsentence.web.engine import Engine, Stopped
from midsentence.web.gate import LOOPBACK
from midsentence.writing import busy, claimed
from served import started, until
from test_cli import LINES, SMALL, call

EXTRA = ['anna sees <b>"bread"</b>', "=cmd()"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    rows = (f"{'ab'[i % 2]}\t{line}\n" for i, line in enumerate(LINES * 6))
    (folder / "text.tsv").write_text("".join(rows), "utf-8")
    done = call(
        f"train {folder}/text.tsv --out {folder}/run --max-steps 3 --text-field 1 --seed 1 "
        f"--label-field 0 --set labels.condition=false {SMALL}"
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def space(run):
    return Space.open(run)


@pytest.fixture(scope="module")
def atlas(space):
    return Atlas.of(space, EXTRA)


@pytest.fixture(scope="module")
def client(run, space, atlas):
    more = explorer.routes(atlas, run)
    app = service.create(space.model, space, Card.of(run, space.model, space), more=more)
    server, thread, found = started(app)
    yield found
    server.should_exit = True
    thread.join(10)


def test_the_plane_is_that_of_the_greatest_variance(space, atlas):
    mean = space.cloud.mean.double().numpy()
    centred = mean - mean.mean(0)
    values = np.linalg.svd(centred, full_matrices=False)[1] ** 2
    xy = atlas.views["pca"].xy[: len(mean)]
    np.testing.assert_allclose((xy**2).sum(0), values[:2], rtol=1e-3)
    assert abs(np.corrcoef(xy.T)[0, 1]) < 1e-3


def test_a_place_of_the_plane_comes_back_to_itself(atlas):
    z = atlas.at(0.3, -0.2, "pca")
    np.testing.assert_allclose(atlas.project(z[None])[0], [0.3, -0.2], atol=1e-5)
    with pytest.raises(UserError, match="no view"):
        atlas.at(0, 0, "umap")


def test_a_place_of_another_view_is_near_its_points(atlas):
    atlas.views["other"] = type(atlas.views["pca"])(atlas.views["pca"].xy * 3 + 1)
    x, y = atlas.views["other"].xy[4]
    torch.testing.assert_close(atlas.at(x, y, "other"), atlas.mean[4], atol=1e-4, rtol=1e-3)
    del atlas.views["other"]


def test_the_map_has_every_sentence(client, space, atlas):
    found = client.get("/v1/map")[1]
    assert found["count"] == len(space.cloud) + len(EXTRA)
    assert found["text"][-2:] == EXTRA
    assert found["held"][-2:] == [1, 1]
    assert found["label_names"] == ["a", "b"]
    assert set(found["label"][:-2]) == {0, 1}
    assert found["length"] == [len(ids) for ids in space.model.tokenizer.encode(found["text"])]
    assert len(set(map(len, (found[k] for k in ("x", "y", "text", "cluster", "held"))))) == 1
    values = client.get("/v1/map/dimension/1")[1]["values"]
    assert values == pytest.approx(atlas.mean[:, 1].tolist(), abs=1e-4)
    assert client.get("/v1/map/dimension/4")[0] == 404
    assert client.get("/v1/map/view/umap")[0] == 404
    rows = client.post("/v1/map/search", query="ANNA")[1]["rows"]
    assert rows == [i for i, text in enumerate(found["text"]) if "anna" in text]


def test_the_nll_of_the_map_is_a_bound_a_token(space):
    atlas, engine = Atlas.of(space), Engine()
    atlas.find_nll(engine).join()
    engine.close()
    model, lines = space.model, atlas.lines[:20]
    found = survey(model.vae, model.ids(lines))
    bound = found.log_px - found.kl.sum(1)
    tokens = torch.tensor([len(model.tokenizer.encode([s])[0]) + 1 for s in lines])
    # One sample each, of another batch: the means agree within their error.
    gap = torch.tensor(atlas.nll[:20]) + bound / tokens
    assert gap.mean().abs() < 5 * gap.std() / 20**0.5 + 0.05
    assert atlas.done == len(atlas)


def test_one_sentence_is_a_map(space):
    one = replace(
        space.cloud, mean=space.cloud.mean[:1], variance=space.cloud.variance[:1],
        draw=space.cloud.draw[:1], text=lambda rows: ["anna"] * len(rows),
        label=None,
    )  # fmt: skip
    atlas = Atlas.of(Space(one, space.held, space.model))
    assert np.isfinite(atlas.views["pca"].xy).all()


def test_one_dimension_is_a_line(space):
    cloud, held = (
        replace(c, mean=c.mean[:, :1], variance=c.variance[:, :1], draw=c.draw[:, :1])
        for c in (space.cloud, space.held)
    )
    atlas = Atlas.of(Space(cloud, held, space.model))
    centred = cloud.mean[:, 0] - cloud.mean[:, 0].mean()
    np.testing.assert_allclose(atlas.views["pca"].xy[:, 0], centred, atol=1e-6)
    assert not atlas.views["pca"].xy[:, 1].any()
    assert atlas.at(0.5, 3.0, "pca").item() == pytest.approx(float(cloud.mean.mean()) + 0.5)


def test_the_nll_of_the_map_is_found_however_busy_the_model_is(space):
    atlas, engine = Atlas.of(space), Engine(seconds=0.0)
    atlas.find_nll(engine).join()
    engine.close()
    assert atlas.done == len(atlas)
    assert np.isfinite(atlas.nll).all()


def test_the_nll_of_the_map_is_that_of_sentences_with_their_labels(tmp_path, monkeypatch):
    rows = (f"{'ab'[i % 2] if i % 3 else ''}\t{line}\n" for i, line in enumerate(LINES * 2))
    (tmp_path / "text.tsv").write_text("".join(rows), "utf-8")
    done = call(f"train {tmp_path}/text.tsv --out {tmp_path}/run --max-steps 2 --text-field 1 "
                f"--label-field 0 {SMALL}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    space, asked = Space.open(tmp_path / "run"), []
    monkeypatch.setattr(
        maps, "survey", lambda vae, some: (asked.extend(some.labels), survey(vae, some))[1]
    )
    atlas, engine = Atlas.of(space, EXTRA), Engine()
    atlas.find_nll(engine).join()
    engine.close()
    names = [*space.model.labels, None]
    own = [*space.cloud.names, None]
    assert [names[row] for row in asked] == [own[row] for row in atlas.label]
    assert {names[row] for row in asked[: -len(EXTRA)]} >= {"a", "b"}
    assert asked[-len(EXTRA) :] == [-1, -1]


def test_a_click_is_decoded(client, space, atlas):
    found = client.post("/v1/map/point", x=0.1, y=0.2, n=3, seed=5)[1]
    z = atlas.at(0.1, 0.2, "pca")
    assert found["z"] == pytest.approx(z.tolist(), abs=1e-5)
    assert found["written"]["text"] == space.written(z[None])[0].text
    drawn = space.written(z.repeat(3, 1), seed=5, temperature=1.0)
    assert [w["text"] for w in found["samples"]] == [w.text for w in drawn]
    assert [n["text"] for n in found["neighbours"]] == [n.text for n in space.neighbours(z, 5)]


def test_a_sentence_is_read_word_by_word(client, space):
    model, line = space.model, LINES[4]
    found = client.post("/v1/read", text=line)[1]
    z = model.encode([line])
    assert found["mean"] == pytest.approx(z[0].tolist(), abs=1e-5)
    assert [t["token"] for t in found["tokens"]] == [*line.split(), "</s>"]
    batch = collate(model.tokenizer.encode([line]))
    with torch.no_grad():
        whole = -float(model.vae.log_px(batch, z[None]))
    assert found["nll"] == pytest.approx(whole, rel=1e-4)
    assert sum(t["nll"] for t in found["tokens"]) == pytest.approx(whole, rel=1e-4)
    kl = survey(model.vae, model.ids([line])).kl[0].tolist()
    assert found["kl"] == pytest.approx(kl, rel=1e-4, abs=1e-6)
    assert found["reconstruction"]["text"] == model.reconstruct([line])[0]


def test_exports_have_a_row_for_every_point(client, atlas):
    found = atlas_csv(client)
    assert [row["text"] for row in found] == atlas.lines
    assert float(found[3]["x"]) == pytest.approx(atlas.views["pca"].xy[3, 0], abs=1e-3)
    content = client.raw("/v1/export/projector.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        tensors = [row.split("\t") for row in file.read("tensors.tsv").decode().splitlines()]
        metadata = file.read("metadata.tsv").decode().splitlines()
    assert np.array(tensors, float).shape == tuple(atlas.mean.shape)
    assert len(metadata) == len(atlas) + 1
    texts = [row.split("\t")[0] for row in metadata[1:]]
    assert texts == atlas.lines  # its reader knows no quotes


def test_an_export_is_made_once_for_all(run, space, atlas, monkeypatch):
    made, table = [], explorer._table
    monkeypatch.setattr(explorer, "_table", lambda *words: (made.append(words), table(*words))[1])
    app = service.create(space.model, space, Card.of(run, space.model, space),
                         more=explorer.routes(atlas))  # fmt: skip
    server, thread, client = started(app)
    names = ["projector.zip", "atlas.csv"] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.raw, (f"/v1/export/{name}" for name in names)))
    assert len(set(found)) == len(made) == 2
    server.should_exit = True
    thread.join(10)


def atlas_csv(client):
    return list(csv.DictReader(io.StringIO(client.raw("/v1/export/atlas.csv").decode())))


def test_a_training_can_be_watched(client, run):
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    found = client.get("/v1/watch")[1]
    assert found["records"] == [json.loads(line) for line in lines]
    assert found["next"] == len(lines)
    assert found["running"] is False
    found = client.get(f"/v1/watch?after={len(lines)}")[1]
    assert (found["records"], found["next"]) == ([], len(lines))
    assert client.get("/v1/watch?after=-1")[0] == 422


def test_a_run_without_its_corpus_has_no_map(run, space):
    app = service.create(space.model, None, Card.of(run, space.model, None),
                         more=explorer.routes(None))  # fmt: skip
    server, thread, client = started(app)
    status, found = client.get("/v1/map")
    assert (status, found["error"]) == (404, "this run has no corpus to make a map of")
    assert client.post("/v1/sample", n=1)[0] == 200
    model, (a, b) = space.model, LINES[:2]
    read = client.post("/v1/read", text=a)[1]
    assert read["mean"] == pytest.approx(model.encode([a])[0].tolist(), abs=1e-5)
    assert read["reconstruction"]["text"] == model.reconstruct([a])[0]
    assert (read["neighbours"], read["x"]) == ([], None)
    ends = {"a": a, "b": model.encode([b])[0].tolist()}
    for way in ("linear", "spherical"):
        body = ends | {"steps": 5, "path": way, "nll": True}
        found = client.ask("POST", "/v1/interpolate", body)[1]
        assert [w["text"] for w in found["written"]] == model.interpolate(a, b, 5, path=way)
        assert len(found["nll"]) == 5
    status, found, _ = client.ask("POST", "/v1/interpolate", ends | {"path": "density"})
    assert (status, found["error"]) == (422, "this run has no corpus to move about in")
    server.should_exit = True
    thread.join(10)


def test_umap_says_what_to_install(atlas, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"midsentence\[map\]"):
        atlas.add_umap()


def test_a_run_is_served_while_it_is_trained(run, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "EVERY", 0.05)
    folder = tmp_path / "run"
    folder.mkdir()
    app = watching.Latest(folder, LOOPBACK, None)
    server, thread, client = started(app)
    assert client.get("/v1/model")[1]["latent"] == 0
    assert client.get("/v1/map")[0] == 404
    (folder / "metrics.jsonl").write_text('{"step": 1}\n', "utf-8")
    found = client.get("/v1/watch")[1]
    assert found == {"records": [{"step": 1}], "next": 1, "running": False, "samples": []}
    with claimed(folder):  # as a training has it
        assert client.get("/v1/watch")[1]["running"] is True
    shutil.copytree(run, folder, dirs_exist_ok=True)
    until(lambda: client.get("/v1/model")[1]["latent"] == 4)
    assert client.get("/v1/model")[1]["training"] is True
    assert client.get("/v1/map")[1]["count"] > 0
    assert len(client.get("/v1/watch")[1]["samples"]) == 8
    assert client.get("/v1/watch")[1]["running"] is False
    with claimed(folder):  # gone on with, after it was measured
        assert client.get("/v1/watch")[1]["running"] is True
    shutil.rmtree(folder)
    assert client.get("/v1/watch")[1]["running"] is busy(folder) is False
    server.should_exit = True
    thread.join(10)


def test_a_run_that_cannot_be_watched_whole_says_so_once(run, tmp_path, monkeypatch, capsys):
    """Without its corpus there is a model and no map; of a damaged one there is nothing to show."""
    monkeypatch.setattr(watching, "EVERY", 0.01)
    for name, left in (("whole", "corpus"), ("broken", "tokenizer.json")):
        folder = shutil.copytree(run, tmp_path / name)
        gone = folder / left
        shutil.rmtree(gone) if gone.is_dir() else gone.write_text("")
        app = watching.Latest(folder, LOOPBACK, None)
        until(lambda: app.weights or len(app.trouble) == 3)  # noqa: B023
        app.close()
    said = capsys.readouterr().err
    assert said.count("no map: ") == 1
    assert said.count("tokenizer.json is damaged") == 1


def test_a_model_that_is_just_being_replaced_is_looked_at_again(run, tmp_path, monkeypatch):
    """The manifest is written before the files, and until they are there the old ones count."""
    monkeypatch.setattr(watching, "EVERY", 0.05)
    folder = shutil.copytree(run, tmp_path / "run")
    model = TextVAE.from_pretrained(folder)
    with torch.no_grad():
        next(model.vae.parameters()).add_(0.1)
    model.save_pretrained(tmp_path / "next")
    before, after = (json.loads((f / "manifest.json").read_text("utf-8"))["files"]
                     for f in (folder, tmp_path / "next"))  # fmt: skip
    app = watching.Latest(folder, LOOPBACK, None)
    server, thread, client = started(app)
    weights = lambda: client.get("/v1/model")[1].get("weights")  # noqa: E731
    until(lambda: weights() == before["model.safetensors"])
    looked, open_again = [], TextVAE.from_pretrained
    monkeypatch.setattr(
        TextVAE, "from_pretrained", lambda *a, **k: (open_again(*a, **k), looked.append(1))[0]
    )
    manifest = {"format": 1, "files": after, "before": before}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    until(lambda: looked)
    assert weights() == before["model.safetensors"]
    for name in after:
        shutil.copy(tmp_path / "next" / name, folder / name)
    until(lambda: weights() == after["model.safetensors"])
    server.should_exit = True
    thread.join(10)
    with pytest.raises(Stopped):  # it is the newest that is closed
        app.app.close.__self__.call(lambda: None)


def test_train_watch_shows_a_page_and_ends_with_the_training(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(LINES * 6) + "\n", "utf-8")
    command = ["train", tmp_path / "text.txt", "--watch", "--out", tmp_path / "run",
               "--set", "training.epochs=1000000", *SMALL.split()]  # fmt: skip
    training = subprocess.Popen(
        [sys.executable, "-m", "midsentence", *map(str, command)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = ""
    while not (shown := re.search(r"http://localhost:(\d+) ", said)):
        said += (line := training.stderr.readline())
        assert line, said
    training.send_signal(signal.SIGINT)
    said += training.communicate(timeout=60)[1]
    assert training.returncode == 130, said
    assert "Traceback" not in said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(shown[1])), timeout=5)


def test_who_watches_a_training_of_several_is_none_of_them(tmp_path, monkeypatch):
    several = (*launch.GROUP, "TORCHELASTIC_RUN_ID")
    for name in several:
        monkeypatch.setenv(name, "2")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, env, **how: started.append(env))
    web.Watched(tmp_path, lambda *words: None)("start", None)
    assert started[0] == {name: value for name, value in os.environ.items()
                          if name not in several} | {web.CHILD: str(os.getpid())}  # fmt: skip


def test_explore_says_what_is_wrong_before_it_does_what_takes_long(run, monkeypatch):
    monkeypatch.setattr(space_module, "open_if_it_can", lambda *words: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"none\.txt"):
        web.explore(run, corpus="none.txt", port=0)
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr(TextVAE, "from_pretrained", lambda *words, **how: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"midsentence\[map\]"):
        web.explore(run, umap=True, port=0)
    for more in ({"sentences": 500}, {"own_prior": True}, {"umap": True}, {"corpus": "-"}):
        with pytest.raises(UserError, match="leave them out"):
            web.explore(run, watch=True, port=0, **more)


def test_explore_says_what_is_wrong(tmp_path, run):
    assert b"no such folder" in call(f"explore {tmp_path}/none").stderr
    assert b"no such folder" in call(f"explore {tmp_path}/none --watch").stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = call(f"explore {run} --port {port}")
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}".encode() in found.stderr
    assert found.stderr.count(b"\n") == 1


def test_who_watches_a_training_ends_with_it_however_it_ends(run, tmp_path):
    program = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:], start_new_session=True,\n"
        "                         env=os.environ | {'MIDSENTENCE_WATCHES': str(os.getpid())})\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-m", "midsentence", "explore", run, "--watch", "--port", "0"]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    assert re.search(r"http://localhost:\d+ ", parent.stderr.readline())
    parent.kill()
    parent.communicate()
    until(lambda: not Path(f"/proc/{child}").exists() or zombie(child))


def zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
