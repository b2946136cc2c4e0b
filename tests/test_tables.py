"""What a run's tables are of, and what it writes where it is told little."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from midsentence import TextVAE, UserError, bundle, evaluation, pipeline
from midsentence.cli import app
from midsentence.generate import greedily
from tiny import TEXT

FAST = [
    "latent=4", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=8", "training.batch_tokens=128", "tokenizer.kind=word", "corpus.max_tokens=32",
    "training.max_steps=10", "training.epochs=99",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("\n".join(f"{t} {n}" for n in range(8) for t in TEXT) + "\n")
    settings = [*FAST, "corpus.test_fraction=0"]
    pipeline.train(str(folder / "text.txt"), folder / "run", settings=settings)
    return folder


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_table_is_of_the_weights_that_were_measured(home, tmp_path):
    out = shutil.copytree(home / "run", tmp_path / "run")
    evaluation.keep_evaluation(out, "test", {"nll": 1.0})
    assert set(evaluation.evaluations(out)) == {"quick", "test"}
    more = ["training.max_steps=60", "optimizer.lr=0.01"]
    pipeline.train(str(home / "text.txt"), out, settings=more, resume=True)
    assert set(evaluation.evaluations(out)) == {"quick"}
    evaluation.keep_evaluation(out, "test", {"nll": 1.0})
    pipeline.train(str(home / "text.txt"), out, settings=more, resume=True)  # it was at its end
    assert set(evaluation.evaluations(out)) == {"quick", "test"}


def test_a_run_without_test_sentences_says_so(home, monkeypatch):
    found = call("evaluate", home / "run")
    assert isinstance(found.exception, UserError)
    assert "no sentences" in str(found.exception)
    (home / "valid").mkdir()  # which is not the run's part of that name
    monkeypatch.chdir(home)
    assert call("evaluate", "run", "valid", "--samples", 2).exit_code == 0


def test_a_file_is_read_as_the_corpus_was(home, tmp_path):
    """Lines of more tokens than it was trained on are left out, as they were then."""
    lines = [*TEXT[:5], " ".join(["anna"] * 300)]
    (tmp_path / "more.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "few.txt").write_text("\n".join(lines[:5]) + "\n")
    (tmp_path / "long.txt").write_text(lines[5] + "\n")
    model = TextVAE.from_pretrained(home / "run")
    found, few = (evaluation.evaluate_file(model, str(tmp_path / f"{name}.txt"), 4)
                  for name in ("more", "few"))  # fmt: skip
    assert (found["left_out"], found["unreadable"]) == (1, 0)
    assert found["nll"] == few["nll"]
    told = call("evaluate", home / "run", tmp_path / "more.txt", "--samples", 2, "--json")
    assert "longer than the 32 tokens it was trained on: 1 line" in told.stderr
    assert "<unk>" not in told.stderr and found["unknown"] == 0
    (tmp_path / "strange.txt").write_text("anna reads quietly\n")
    told = call("evaluate", home / "run", tmp_path / "strange.txt", "--samples", 2, "--json")
    assert json.loads(told.stdout)["unknown"] == 2
    assert "scored as <unk>: 2 tokens" in told.stderr
    with pytest.raises(UserError, match=r"every line .* is over corpus\.max_tokens"):
        evaluation.evaluate_file(model, str(tmp_path / "long.txt"), 4)


def test_a_model_that_was_exported_has_no_table_of_its_own(home, tmp_path):
    TextVAE.from_pretrained(home / "run").save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match="out is exported, without a corpus: compare the run"):
        evaluation.side_by_side([tmp_path / "out", home / "run"])


@pytest.mark.parametrize(("how", "said"), [("skip", "left out"), ("replace", "mended or left out")])
def test_lines_that_cannot_be_read_are_counted(home, tmp_path, how, said):
    model = TextVAE.from_pretrained(home / "run")
    model.config.corpus.on_bad = how
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "some.txt").write_bytes("\n".join(TEXT[:5]).encode() + b"\nanna \xff\n")
    told = call("evaluate", tmp_path / "run", tmp_path / "some.txt", "--samples", 2, "--json")
    assert json.loads(told.stdout)["unreadable"] == 1
    assert f"1 lines could not be read and were {said}" in told.stderr


def test_like_is_compared_with_like(tmp_path):
    """A test table beside another run's quick one would be of other sentences."""

    def run(name, **tables):
        (tmp_path / name).mkdir()
        held = {part.replace("_", ", "): {"sentences": n} for part, n in tables.items()}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(held))
        return tmp_path / name

    both, quick = run("both", quick=10, test=30, test_mog=30), run("quick", quick=10)
    valid = [run(name, quick=10, valid=20) for name in "ab"]
    test, other, none = run("test", test=30), run("other", quick=11), run("none", valid=5)
    found, notes = evaluation.side_by_side([both, test])
    assert list(found) == [f"{both} (test)", f"{both} (test, mog)", f"{test} (test)"]
    assert not notes
    found, notes = evaluation.side_by_side([both, quick])
    assert list(found) == [f"{both} (quick)", f"{quick} (quick)"]
    assert notes == [f"not all have a test table: midsentence evaluate {quick}"]
    assert "not the same text" in evaluation.side_by_side([quick, other])[1][0]
    assert list(evaluation.side_by_side(valid)[0]) == [f"{a} (valid)" for a in valid]
    (quick / "evaluation.json").write_text(json.dumps({"quick": {"sentences": 10, "bytes": 7}}))
    assert "not the same text" in evaluation.side_by_side([quick, valid[0]])[1][0]
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluation.side_by_side([both, tmp_path / "nowhere"])
    with pytest.raises(UserError, match=f"the same part: midsentence evaluate {none}"):
        evaluation.side_by_side([test, none])
    with pytest.raises(UserError, match=f"the same part: midsentence evaluate {quick}"):
        evaluation.side_by_side([test, quick])


def test_a_better_table_is_not_replaced_unasked(home, tmp_path, monkeypatch):
    """It may be of hours."""
    out = shutil.copytree(home / "run", tmp_path / "run")
    for name in ("valid", "valid, 5 words"):
        evaluation.keep_evaluation(out, name, {"samples": 50.0})
    for more in ((), ("--sampled-words", 5)):
        found = call("evaluate", out, "valid", "--samples", 2, *more)
        assert isinstance(found.exception, UserError)
        assert "by 50 samples, more than 2: add --force to replace it" in str(found.exception)
    monkeypatch.setattr(evaluation, "evaluate_store", lambda *_, **__: {"samples": 2.0})
    assert call("evaluate", out, "valid", "--samples", 2, "--force").exit_code == 0
    assert evaluation.evaluations(out)["valid"] == {"samples": 2}
    for name, samples in (("valid", 2), ("test", 1)):  # as many, and another part's
        assert call("evaluate", out, name, "--samples", samples).exit_code == 0
    evaluation.keep_evaluation(out, "valid", {"samples": 50.0})
    path = out / "evaluation.json"  # of other weights, before a training went on
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "0" * 64}))
    assert call("evaluate", out, "valid", "--samples", 2).exit_code == 0
    path.write_text("damaged")
    found = call("evaluate", out, "valid", "--samples", 2, "--force", "--json")
    assert found.exit_code == 0 and '"samples"' in found.output
    assert "not kept there" in found.output


def test_all_tables_of_a_part_are_compared(home, tmp_path):
    out = shutil.copytree(home / "run", tmp_path / "run")
    evaluation.keep_evaluation(out, "test, mog prior", {"nll": 1.0})
    assert "test, mog prior" in call("compare", out, "--json").output


def test_a_length_alone_leaves_writing_greedy(home):
    model = TextVAE.from_pretrained(home / "run")
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    written = [model.decode(z, max_length=5, seed=s) for s in (0, 1)]
    assert written[0] == written[1]
    assert model.reconstruct(TEXT[:9], max_length=5, seed=0) == model.reconstruct(
        TEXT[:9], max_length=5, seed=1
    )
    assert greedily({"temperature": 2.0}) == {"temperature": 2.0}


def test_much_is_written_as_it_comes_and_the_same(home, monkeypatch):
    model = TextVAE.from_pretrained(home / "run")
    whole = model.sample(20, seed=3)
    monkeypatch.setattr(bundle, "TOGETHER", 7)
    given, asked = model.samples(20, seed=3), []
    monkeypatch.setattr(
        model,
        "_written",
        lambda z, *rest: asked.append(len(z)) or TextVAE._written(model, z, *rest),
    )
    assert [next(given) for _ in range(7)] == whole[:7]
    assert asked == [7]
    assert list(given) == whole[7:]
    assert model.decode(model.encode(TEXT[:9]), seed=1) == model.reconstruct(TEXT[:9], seed=1)


def test_a_mean_on_the_sphere_is_on_it(home, tmp_path):
    settings = [*FAST, "posterior.kind=vmf", "prior.kind=sphere"]
    model = pipeline.train(str(home / "text.txt"), tmp_path / "run", settings=settings)
    assert torch.allclose(model.encode(TEXT[:5]).norm(dim=1), torch.ones(5))


def test_what_was_measured_is_shown_where_it_cannot_be_kept(home, tmp_path, monkeypatch):
    def full(*words):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(evaluation, "write_evaluations", full)
    found = call("evaluate", home / "run", "valid", "--samples", 2)
    assert found.exit_code == 0
    assert "Read-only file system" in found.stderr and "valid" in found.stdout
