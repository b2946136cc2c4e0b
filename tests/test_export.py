"""A folder to publish is a model like any other, tells nothing it should not, and its ONNX graphs
write PyTorch's text."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from huggingface_hub import ModelCard

from midsentence import TextVAE, UserError, assembly, config, onnx_export, opening, pipeline
from midsentence.evaluation import evaluations
from midsentence.export import export, for_tokenizers
from midsentence.generate import Decoding, generate
from midsentence.prior_fitting import fit_prior
from midsentence.text.tokenizer import BOS, EOS, KINDS, PAD, Tokenizer
from old_runs import HERE
from test_cli import call
from test_training import FAST, PEOPLE, THINGS
from tiny import REAL_ENCODERS, tiny

PAGE = (Path(__file__).parent.parent / "docs" / "export.md").read_text("utf-8")
SECRET = "the-home-of-anna"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with labels whose corpus lies where nobody should be told."""
    home = tmp_path_factory.mktemp(SECRET)
    rows = [f"{v}\t{p} {v} {t}" for p in PEOPLE for v in ("sees", "likes") for t in THINGS]
    for name in ("text.tsv", "held.tsv"):
        (home / name).write_text("\n".join(rows) + "\n")
    asked = [*FAST, "training.max_steps=40", 'corpus.text_field="1"', 'corpus.label_field="0"']
    pipeline.train(str(home / "text.tsv"), home / "run", settings=asked, test=f"{home}/held.tsv")
    return home / "run"


@pytest.fixture(scope="module")
def fitted(run, tmp_path_factory):
    """(the same run with a fitted prior, what was exported of it)."""
    home = tmp_path_factory.mktemp("fitted")
    shutil.copytree(run, home / "run")
    fit_prior(home / "run", "mog", ["components=2"], steps=5)
    return home / "run", export(home / "run", home / "out")


def test_the_folder_opens_as_the_run_does(fitted):
    run, out = fitted
    before, after = TextVAE.from_pretrained(run), TextVAE.from_pretrained(out)
    assert after.fitted.settings == before.fitted.settings
    assert after.sample(20, seed=3) == before.sample(20, seed=3)
    assert after.score(["anna sees the sea"], 10) == before.score(["anna sees the sea"], 10)
    opening.verify(out, assembly.FILES)
    done = call(f"sample {out} -n 3 --seed 1")
    assert done.stdout.decode().splitlines() == before.sample(3, seed=1)


def test_of_several_sources_the_names_are_told(tmp_path):
    model = TextVAE.from_pretrained(HERE / "run-format-1")
    model.config.corpus.source = ["/home/me/secret/poems.txt", "builtin:grammar"]
    model.config.corpus.valid = r"C:\secret\held out.txt"
    model.save_pretrained(tmp_path / "own")
    out = export(tmp_path / "own", tmp_path / "out")
    told = TextVAE.from_pretrained(out).config.corpus
    assert (told.source, told.valid) == ("poems.txt builtin:grammar", "held out.txt")
    assert all(b"secret" not in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_an_exported_folder_can_be_exported_again(fitted, tmp_path):
    _, out = fitted
    again = export(out, tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "tokenizer.hf.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    assert "has not been evaluated" in (again / "README.md").read_text()


def test_nothing_of_the_corpus_or_where_it_lies_is_in_the_folder(fitted):
    _, out = fitted
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        "model.safetensors", "config.toml", "tokenizer.json", "manifest.json", "config.json",
        "README.md", "tokenizer.hf.json", "prior/about.toml", "prior/tensors.safetensors",
        "prior/manifest.json",
    }  # fmt: skip
    for path in (out / name for name in names):
        assert SECRET.encode() not in path.read_bytes(), path
        assert b"anna sees" not in path.read_bytes().split(b"## Samples")[0], path
    source = config.load(out / "config.toml").corpus
    assert (source.source, source.test) == ("text.tsv", "held.tsv")


def test_the_card_says_what_the_run_knows(fitted):
    run, out = fitted
    card, model = ModelCard.load(out / "README.md"), TextVAE.from_pretrained(run)
    assert card.data.library_name == "midsentence"
    assert card.data.language == "und"
    assert card.data.license is None
    assert "\n# license: fill this in" in (out / "README.md").read_text()
    table = evaluations(run)["quick"]
    assert f"| Perplexity | {table['ppl']:,.2f} |" in card.text
    assert f"{model.tokenizer.vocab_size} tokens (word)" in card.text
    assert "text.tsv" in card.text and "40 steps" in card.text
    assert "Posterior collapsed" in card.text
    shown = card.text.split("## Samples")[1].split("## Limits")[0]
    lines = [line[4:] for line in shown.splitlines() if line.startswith("    ")]
    assert lines == model.sample(10, seed=model.config.seed)


def test_config_json_says_what_the_model_is(fitted):
    run, out = fitted
    facts, model = json.loads((out / "config.json").read_text()), TextVAE.from_pretrained(run)
    assert facts["model_type"] == "midsentence"
    assert (facts["latent"], facts["vocab_size"]) == (4, model.tokenizer.vocab_size)
    assert facts["decoder"] == model.config.decoder
    assert facts["labels"] == model.labels == ["sees", "likes"]
    assert facts["fitted_prior"]["kind"] == "mog"
    assert facts["eos_token_id"] == EOS
    own = TextVAE.from_pretrained(run, prior="own")
    assert facts["parameters"] == sum(p.numel() for p in own.vae.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_reads_the_vocabulary(kind, tmp_path):
    lines = ["Anna sees the sea.", "海 und  Ödland 👍🏽", "trees\u00a0and bread"]
    ours = Tokenizer.train(lines * 20, kind=kind)
    lines.append("Zoo")  # has a character, and a word, that are new
    ours.save(tmp_path / "tokenizer.json")
    for_tokenizers(tmp_path / "tokenizer.json").save(str(tmp_path / "hf.json"))
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "hf.json"))
    for line, ids in zip(lines, ours.encode(lines), strict=True):
        assert theirs.encode(line).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode([ids])[0]
    literal = "<pad> <s> </s>"  # as docs/export.md has it
    wanted = [PAD, BOS, EOS] if kind == "word" else ours.encode([literal])[0]
    assert theirs.encode(literal).ids == wanted


def test_a_language_model_is_exported_with_an_exact_nll(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"{p} sees {t}" for p in PEOPLE for t in THINGS))
    small = [each for each in FAST if not each.startswith(("latent", "encoder"))]
    pipeline.train(
        str(tmp_path / "text.txt"), tmp_path / "lm", recipe="lm",
        settings=[*small, "training.max_steps=5"],
    )  # fmt: skip
    out = export(tmp_path / "lm", tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "The NLL is exact" in text and "latent space" not in text and "| KL |" not in text
    assert len(TextVAE.from_pretrained(out).sample(3)) == 3
    with pytest.raises(UserError, match=r"latent = 0|pip install"):
        export(tmp_path / "lm", tmp_path / "no", onnx=True)
    assert not (tmp_path / "no").exists()


def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.toml").write_text("")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for command, said in (
        (f"{run} --out {full}", "is not empty: choose another --out"),
        (f"{run} --out {full / 'mine.txt'}", "is not empty"),
        (f"{tmp_path / 'none'} --out {tmp_path / 'new'}", "no such folder"),
        (f"{begun} --out {tmp_path / 'new'}", "this is not a finished model"),
        (f"{run} --out {full / 'mine.txt' / 'new'}", "cannot be written"),
        (f"{run} --out {tmp_path / 'new'} --onnx", 'pip install "midsentence[onnx]"'),
    ):
        done = call(f"export {command}")
        assert done.returncode == 1
        assert said in done.stderr.decode() and done.stderr.count(b"\n") == 1
        assert done.stdout == b""
    assert {path.name for path in tmp_path.iterdir()} == {"full", "begun"}
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_an_empty_folder_may_be_filled(run, tmp_path):
    (tmp_path / "out").mkdir()
    done = call(f"export {run} --out .", cwd=tmp_path / "out")
    assert done.stdout.decode().strip() == str((tmp_path / "out").resolve())
    assert TextVAE.from_pretrained(tmp_path / "out").latent == 4


# ONNX: skipped where the extra is not installed.

LATENTS, LONGEST = 100, 20
INJECTIONS = [
    ("lstm", ["state", "input", "add", "gate", "skip"]),
    ("gru", ["input", "add", "skip"]),
    ("transformer", ["state", "input", "add", "gate", "skip", "memory"]),
]
if "TORTURE" in os.environ:
    INJECTIONS += [
        ("lstm", ["state"]),
        ("gru", ["state"]),
        ("transformer", ["state"]),
        ("transformer", ["add", "memory"]),
        ("transformer", ["input", "skip"]),
    ]


@pytest.fixture(scope="module")
def ort():
    return pytest.importorskip("onnxruntime", reason='pip install "midsentence[onnx]"')


def session(ort, path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def greedy(start, step, **asked):
    """What docs/export.md does, told apart by nothing but NumPy."""
    names = [each.name for each in step.get_inputs()][1:]
    state = start.run(None, asked)
    word, written = np.full(len(asked["z"]), BOS), []
    for _ in range(LONGEST):
        log_p, *state = step.run(None, {"word": word, **dict(zip(names, state, strict=True))})
        assert np.allclose(np.exp(log_p).sum(1), 1, atol=1e-5)
        assert not np.exp(log_p[:, :EOS]).any()
        word = log_p.argmax(1)
        written.append(word)
    rows = np.array(written).T.tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def same_text(ort, tmp_path, vae, **asked):
    """A hundred latents written by both; few of the texts may be alike."""
    onnx_export.write_decoder(tmp_path / "start.onnx", tmp_path / "step.onnx", vae)
    start, step = (session(ort, tmp_path / f"{name}.onnx") for name in ("start", "step"))
    z = 3 * torch.randn(LATENTS, vae.latent, generator=torch.Generator().manual_seed(2))
    labels = {name: torch.from_numpy(value) for name, value in asked.items()}
    how = Decoding(greedy=True, max_length=LONGEST)
    expected = generate(vae, z, how, labels=labels.get("label"))
    assert greedy(start, step, z=z.numpy(), **asked) == expected
    assert len(set(map(tuple, expected))) > 3
    alone = {name: value[:1] for name, value in asked.items()}
    assert greedy(start, step, z=z[:1].numpy(), **alone) == expected[:1]


@pytest.mark.parametrize(("decoder", "inject"), INJECTIONS)
def test_a_hundred_latents_decode_to_pytorch_s_text(ort, decoder, inject, tmp_path):
    writing = {"inject": inject, "layers": 1 if inject == ["state"] else 2}
    if decoder != "transformer":
        writing |= {"hidden": 16}
    same_text(ort, tmp_path, tiny("lstm", decoder, writing=writing, vocab=30).float())


def test_a_mixture_of_softmaxes_is_in_the_graphs(ort, tmp_path):
    same_text(ort, tmp_path, tiny("lstm", "gru", head={"softmaxes": 3}, vocab=30).float())


def test_labels_and_a_tied_head_are_in_the_graphs(ort, tmp_path):
    labels = {"shares": {"a": 0.5, "b": 0.3}, "size": 3}
    vae = tiny("gru", "gru", labels=labels, head={"tied": True}).float()
    label = np.arange(LATENTS) % 3 - 1
    same_text(ort, tmp_path, vae, label=label)
    same_posterior(ort, tmp_path, vae, label=np.array([0, 1, -1]))


def same_posterior(ort, tmp_path, vae, **asked):
    onnx_export.write_encoder(tmp_path / "encoder.onnx", vae)
    graph = session(ort, tmp_path / "encoder.onnx")
    batches = [[[3, 4, 2, 0, 0], [5, 6, 7, 8, 2], [4, 4, 4, 2, 0]], [[2]], [[5, 3, 2]]]
    for rows in batches:
        tokens = np.array(rows)
        more = {name: value[: len(rows)] for name, value in asked.items()}
        batch = onnx_export.Batch(
            torch.nn.functional.pad(torch.from_numpy(tokens), (1, 0), value=BOS)
        )
        batch.labels = torch.from_numpy(more["label"]) if more else None
        with torch.no_grad():
            q = vae.infer(batch)
            expected = [q.mean, q.stddev] if onnx_export.spreads(q) else [q.mean]
        found = graph.run(None, {"tokens": tokens, **more})
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert np.allclose(a, b.numpy(), atol=1e-5)


@pytest.mark.parametrize("encoder", REAL_ENCODERS)
def test_sentences_are_read_as_pytorch_reads_them(ort, encoder, tmp_path):
    reading = {"layers": 2, "pooling": "last"}
    if encoder != "transformer":
        reading |= {"bidirectional": True}
    same_posterior(ort, tmp_path, tiny(encoder, reading=reading).float())


@pytest.mark.parametrize("posterior", ["lowrank", "iaf"])
def test_posteriors_other_than_diagonal_give_what_they_know(ort, posterior, tmp_path):
    same_posterior(ort, tmp_path, tiny(posterior={"kind": posterior}).float())


def test_on_the_sphere_the_graph_reads_what_encode_does(ort, tmp_path):
    vae = tiny(posterior={"kind": "vmf", "kappa": 5.0}, prior={"kind": "sphere"}).float()
    onnx_export.write(tmp_path, vae)
    graph = ort.InferenceSession(str(tmp_path / onnx_export.FOLDER / onnx_export.ENCODER))
    found = graph.run(None, {"tokens": np.array([[4, 5, 2]])})[0]
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_what_cannot_be_a_graph_is_refused_by_name(ort, tmp_path):
    refined = tiny(refine={"steps": 2, "rate": 0.1}).float()
    with pytest.raises(UserError, match=r"refine\.steps"):
        onnx_export.write(tmp_path, refined)
    vae = tiny().float()
    read = vae.encoder.forward
    vae.encoder.forward = lambda batch: read(batch) if batch.tokens.sum() > 3 else None
    with pytest.raises(
        UserError, match=r"^encoder\.onnx: a part of this model .*leave --onnx out$"
    ):
        onnx_export.write_encoder(tmp_path / "encoder.onnx", vae)
    assert list(tmp_path.iterdir()) == []


def test_the_page_s_example_writes_what_pytorch_writes(ort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{p} {v} {t}" for p in PEOPLE for v in ("sees", "likes") for t in THINGS]
    Path("text.txt").write_text("\n".join(lines) + "\n")
    pipeline.train("text.txt", "plain", settings=[*FAST, "training.max_steps=40"])
    done = call("export plain --out poems-onnx --onnx")
    assert (done.returncode, done.stderr) == (0, b"")
    assert {path.name for path in Path("poems-onnx/onnx").iterdir()} == {
        *onnx_export.FILES, "manifest.json",
    }  # fmt: skip
    for path in (each for each in Path("poems-onnx").rglob("*") if each.is_file()):
        for place in (torch.__file__, onnx_export.__file__, str(tmp_path)):
            assert str(Path(place).parent).encode() not in path.read_bytes(), path
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert "torch" not in example and "midsentence" not in example
    names = {}
    exec(example, names)
    model = TextVAE.from_pretrained("poems-onnx")
    z = torch.from_numpy(names["z"]).float()
    assert names["texts"] == model.decode(z, greedy=True, max_length=256)
    assert len(names["texts"]) == 5
