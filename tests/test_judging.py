"""Perplexities of written text by language models: their arithmetic, and models that learn."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from midsentence import TextVAE, judging, train
from midsentence.appraisal import appraise
from midsentence.errors import UserError
from midsentence.learning import trainer
from midsentence.text.corpus import Corpus
from tiny import TEXT


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two short runs on one text: `vae` and `lm`."""
    folder = tmp_path_factory.mktemp("judging")
    (folder / "text.txt").write_text("\n".join(TEXT) + "\n")
    settings = ["decoder.embedding=8", "decoder.hidden=8", "training.max_steps=5",
                "tokenizer.kind=word", "corpus.valid_fraction=0.2",
                "corpus.test_fraction=0.3"]  # fmt: skip
    train(str(folder / "text.txt"), folder / "lm", recipe="lm", settings=settings)
    train(str(folder / "text.txt"), folder / "vae", settings=[*settings, "latent=3"])
    return folder


def test_perplexity_divides_sums_and_its_error_is_that_of_a_ratio():
    scored = judging.Scored(np.array([2.0, 6.0, 1.0]), np.array([1, 3, 2]), 0.0)
    value, error = scored.perplexity()
    assert value == pytest.approx(math.exp(9 / 6))
    # 2 - 1.5, 6 - 4.5, 1 - 3: squares 0.25 + 2.25 + 4
    assert error == pytest.approx(value * math.sqrt(6.5 * 3 / 2) / 6)
    even = judging.Scored(np.array([2.0, 4.0]), np.array([1, 2]), 0.0)
    assert even.perplexity() == (pytest.approx(math.exp(2)), 0.0)
    alone = judging.Scored(np.array([2.0]), np.array([1]), 0.0).perplexity()
    assert alone[0] == pytest.approx(math.exp(2)) and math.isnan(alone[1])


def test_scores_are_the_language_models_own(runs):
    judge = judging.open_judge(runs / "lm")
    scored = judging.score(judge, ["anna sees a book", "ben zzz", ""])
    expected = judge.score(["anna sees a book", "ben zzz"], 1)
    assert scored.nll[:2] == pytest.approx([-s.log_px for s in expected], abs=1e-4)
    assert scored.tokens.tolist() == [5, 3, 1]
    assert scored.unknown == pytest.approx(1 / 6)


def test_a_model_of_the_real_text_prefers_it(runs, tmp_path):
    tokenizer = TextVAE.from_pretrained(runs / "lm").tokenizer
    parts = {"train": TEXT[::2], "valid": TEXT[1::4]}
    model = judging.language_model(parts, tokenizer, tmp_path / "judge", 40, seed=1)
    straight, turned = TEXT[3::4], [" ".join(reversed(line.split())) for line in TEXT[3::4]]
    worse = judging.score(model, turned).perplexity()[0]
    assert judging.score(model, straight).perplexity()[0] < 0.7 * worse


def test_the_reverse_model_knows_what_was_written_and_nothing_else(runs):
    """Like text is told apart from unlike by the order of its words alone."""
    tokenizer = TextVAE.from_pretrained(runs / "lm").tokenizer
    turned = [" ".join(reversed(line.split())) for line in TEXT]
    like, unlike = (
        judging.reverse(text, TEXT[::3], tokenizer, steps=40) for text in (TEXT, turned)
    )
    assert like[0] < 0.7 * unlike[0]
    assert like == judging.reverse(TEXT, TEXT[::3], tokenizer, steps=40)
    assert like[1] > 0


def test_only_a_language_model_of_the_same_text_is_a_judge(runs, tmp_path):
    with pytest.raises(UserError, match="no language model: train one with --recipe lm"):
        judging.open_judge(runs / "vae")
    (tmp_path / "text.tsv").write_text("".join(f"{i % 2}\t{i} {i} x\n" for i in range(40)))
    settings = ["decoder.hidden=8", "training.max_steps=2", "tokenizer.kind=word",
                "corpus.label_field='0'", "corpus.text_field='1'"]  # fmt: skip
    train(str(tmp_path / "text.tsv"), tmp_path / "lm", recipe="lm", settings=settings)
    with pytest.raises(UserError, match=r"expects labels: .* labels.condition=false"):
        judging.open_judge(tmp_path / "lm")
    settings.append("labels.condition=false")
    train(str(tmp_path / "text.tsv"), tmp_path / "other", recipe="lm", settings=settings)
    vae, data = TextVAE.from_pretrained(runs / "vae"), Corpus.open(runs / "vae" / "corpus")
    with pytest.raises(UserError, match="does not know 100% of the real text's tokens"):
        appraise(vae, data, judge=judging.open_judge(tmp_path / "other"))


def test_what_the_reverse_model_is_validated_on_is_from_all_over(runs, monkeypatch):
    """Real text comes in the order of its file: its first part may be unlike the rest."""
    parts = {}
    monkeypatch.setattr(judging, "language_model", lambda given, *rest: parts.update(given))
    known = SimpleNamespace(perplexity=lambda: (1.0, 0.0))
    monkeypatch.setattr(judging, "score", lambda *given: known)
    written = [str(i) for i in range(100)]
    tokenizer = TextVAE.from_pretrained(runs / "lm").tokenizer
    judging.reverse(written, TEXT, tokenizer, steps=1)
    assert parts["valid"] == ["0", "20", "40", "60", "80"]
    assert sorted(parts["train"] + parts["valid"]) == sorted(written)


def test_one_sentence_is_enough_to_learn_from_and_a_stop_is_a_stop(runs, monkeypatch):
    tokenizer = TextVAE.from_pretrained(runs / "lm").tokenizer
    assert judging.reverse(TEXT[:1], TEXT, tokenizer, steps=2)[0] > 1
    monkeypatch.setattr(
        judging.trainer, "train", lambda *args: trainer.Position(ended="interrupted")
    )
    with pytest.raises(KeyboardInterrupt):
        judging.reverse(TEXT, TEXT, tokenizer, steps=2)
