"""What a run's tables are of, how text is written by default, and numbers that mean nothing."""

import shutil
import threading

import pytest
import torch
from typer.testing import CliRunner

from midsentence import TextVAE, UserError, config, evaluation, latent, pipeline, writing
from midsentence.charts import tick_labels
from midsentence.cli import app
from midsentence.generate import Decoding, greedily, truncate
from tiny import TEXT

FAST = [
    "latent=4", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=8", "training.batch_tokens=128", "tokenizer.kind=word",
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


def test_all_tables_of_a_part_are_compared(home, tmp_path):
    out = shutil.copytree(home / "run", tmp_path / "run")
    evaluation.keep_evaluation(out, "test, mog prior", {"nll": 1.0})
    assert "test, mog prior" in call("compare", out, "--json").output


def test_a_length_alone_leaves_writing_greedy(home):
    model = TextVAE.from_pretrained(home / "run")
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    written = [model.decode(z, **greedily({"max_length": 5}), seed=s) for s in (0, 1)]
    assert written[0] == written[1]
    assert model.reconstruct(TEXT[:9], max_length=5, seed=0) == model.reconstruct(
        TEXT[:9], max_length=5, seed=1
    )
    assert greedily({"temperature": 2.0}) == {"temperature": 2.0}


@pytest.mark.parametrize("k", [1, 3])
def test_of_equally_likely_words_no_more_than_k_are_kept(k):
    kept = truncate(torch.zeros(4, 500), Decoding(top_k=k))
    assert ((kept > 0).sum(1) == k).all()


@pytest.mark.parametrize(
    "setting",
    ["seed=-1", "seed=9007199254740993", "latent=-1", "training.max_minutes=0",
     "training.validations=0", "training.threads=0"],
)  # fmt: skip
def test_a_number_that_means_nothing_is_refused_before_there_is_a_run(setting):
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        config.compose(None, None, [setting])


@pytest.mark.parametrize("how", [{"temperature": 1e-40}, {"temperature": float("inf")},
                                 {"max_length": 10**12}])  # fmt: skip
def test_so_are_ways_to_write(how):
    with pytest.raises(UserError, match=next(iter(how)).replace("_", "-")):
        Decoding(**how)


def test_a_folder_that_was_moved_aside_is_not_lost(tmp_path):
    """Killed between the two renames of an exchange."""
    for name in (".prior.77.old.part", ".prior.77.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "held").write_text(name)
    writing.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["prior"]
    assert (tmp_path / "prior" / "held").read_text() == ".prior.77.old.part"


def test_a_mean_on_the_sphere_is_on_it(home, tmp_path):
    settings = [*FAST, "posterior.kind=vmf", "prior.kind=sphere"]
    model = pipeline.train(str(home / "text.txt"), tmp_path / "run", settings=settings)
    assert torch.allclose(model.encode(TEXT[:5]).norm(dim=1), torch.ones(5))


def test_ticks_are_never_rounded_to_one_another():
    labels = ["0", "5.0e-5", "1.0e-4", "1.5e-4", "2.0e-4"]
    assert tick_labels([0, 5e-5, 1e-4, 1.5e-4, 2e-4]) == labels
    assert tick_labels([0, 1e-4, 2e-4]) == ["0", "1e-4", "2e-4"]


def test_clusters_leave_everybody_s_random_numbers_alone():
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    wanted = latent.kmeans(points, 9, seed=5)[0]
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            torch.manual_seed(1)
            torch.rand(3)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert all(torch.equal(latent.kmeans(points, 9, seed=5)[0], wanted) for _ in range(20))
    finally:
        stop.set()
        thread.join()
