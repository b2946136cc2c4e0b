"""The benchmarks' arithmetic on cases worked out by hand, and their parts on tiny models."""

import argparse
import json
import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from midsentence import TextVAE, config, evaluation, pipeline
from midsentence.text.store import pick

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import labels
import rate_distortion
import remedies
import remedies_page
import reproduce
import samples
from tiny import TEXT

FAST = [
    "latent=3", "encoder.embedding=8", "encoder.hidden=8", "decoder.embedding=8",
    "decoder.hidden=8", "training.batch_tokens=256", "tokenizer.kind=word", "training.threads=1",
]  # fmt: skip


def found(recipe, seed, nll, *, kl=3.0, mi=2.5, units=8, latent=32, elbo=-6.0):
    return {
        "recipe": recipe, "seed": seed, "nll": nll, "kl": kl, "mi": mi, "mi_cap": 1.1,
        "active_units": units, "latent": latent, "elbo": elbo, "reconstruction": -elbo - kl,
        "tokens": 6, "minutes": 1.0, "steps": 100,
    }  # fmt: skip


def lm(seed, nll):
    return found("lm", seed, nll, kl=0.0, mi=0.0, units=0, latent=0)


def test_a_row_is_the_mean_over_seeds_and_the_gap_is_of_the_same_sentences():
    runs = [found("vae", 0, [4.0, 6.0, 8.0]), found("vae", 1, [6.0, 8.0, 10.0], kl=5.0),
            lm(0, [6.0, 8.0, 9.0])]  # fmt: skip
    base, row = remedies_page.summarise(runs, {"vae": "A 2014, Title; B & C 2016"})
    assert (base.recipe, row.recipe) == ("lm", "vae")
    assert math.isnan(base.gap)
    assert math.isnan(base.spread)
    assert (row.seeds, row.nll, row.kl) == (2, 7.0, 4.0)
    assert row.error == pytest.approx(2 / math.sqrt(3))  # means by sentence: 5, 7, 9
    assert row.spread == pytest.approx(math.sqrt(2))  # means by seed: 6, 8
    assert row.ppl == pytest.approx(math.exp(7 * 3 / 6))
    # Differences -1, -1, 0. Seeds of one recipe differ by sqrt 2, and lm has one seed, vae two.
    assert row.gap == pytest.approx(-2 / 3)
    assert row.gap_error == pytest.approx(math.sqrt((1 / 3) / 3 + 2 * (1 + 1 / 2)))
    assert remedies_page.line(row) == (
        "| vae | A 2014; B & C 2016 | 2 | 7.00 ± 1.15 | 1.41 | 33.12 | −0.67 ± 1.76 | 6.00 | 4.00 "
        "| 2.50 | 8 of 32 | 1.0 | 100 |"
    )
    assert remedies_page.line(base).count("–") == 6
    head, rule, *_ = remedies_page.table([base, row]).splitlines()
    assert {part.count("|") for part in (head, rule, remedies_page.line(row))} == {14}


def test_one_seed_each_leaves_the_error_over_sentences():
    _, row = remedies_page.summarise([found("vae", 0, [1.0, 2.0]), lm(0, [1.0, 4.0])], {})
    assert row.gap_error == pytest.approx(1.0)  # differences 0, -2


def test_who_helps_is_said_by_one_rule():
    runs = [
        lm(0, [6.0, 8.0, 10.0, 12.0]),
        found("better", 0, [5.0, 7.0, 9.0, 11.1]),
        found("as-good", 0, [5.0, 9.0, 9.0, 13.0]),
        found("dearer", 0, [7.0, 9.0, 11.0, 13.1]),
        found("weak", 0, [6.0, 8.0, 10.0, 12.0], kl=1.0, mi=1.0),
        found("gone", 0, [6.0, 8.0, 10.0, 12.0], kl=0.01, mi=0.0, units=0),
    ]
    said = remedies_page.plainly(remedies_page.summarise(runs, {}))
    assert [line.split(":")[1].split()[0] for line in said] == [
        "better", "as-good", "dearer", "weak", "gone",
    ]  # fmt: skip
    assert "beat the language model" in said[0]
    assert "Do not help" in said[3]
    assert "(+0.00 nats, MI 0.00)" in said[4]


def test_remarks_stay_and_the_rest_is_written_afresh():
    runs = [lm(0, [6.0, 8.0]), found("vae", 0, [5.0, 7.5])]
    held = {
        "training": {"minutes": 2.0, "jobs": 2, "threads": 1, "settings": ["latent=8"]},
        "measuring": {"sentences": 2, "samples": 10},
        "runs": {str(i): run for i, run in enumerate(runs)},
    }
    rows = remedies_page.summarise(runs, {})
    first = remedies_page.page(rows, held, {}, "toy", "python x.py", "p.svg", "")
    assert first.endswith("## What we learn\n")
    assert "![Rate and distortion of every method](p.svg)" in first
    assert "`latent=8`" in first
    old = first.replace("# Remedies", "# Old") + "\nSomething.\n"
    again = remedies_page.page(rows, held, {"x-0": "ended with 1"}, "toy", "c", "p.svg", old)
    assert again.startswith("# Remedies")
    assert again.endswith("## What we learn\n\nSomething.\n")
    assert "- Failed: x-0, ended with 1." in again


def test_points_stand_where_they_belong():
    points = [
        rate_distortion.Point("a<b", 4.0, 30.0, [(1.0, 31.0), (9.0, 29.0)]),
        rate_distortion.Point("lm", 0.0, 34.0),
        rate_distortion.Point("x", math.nan, 1.0),
    ]
    tree = ET.fromstring(rate_distortion.picture(points))
    space = {"s": "http://www.w3.org/2000/svg"}
    circles = [
        (float(c.get("cx")), float(c.get("cy")), c.get("r"))
        for c in tree.iterfind(".//s:circle", space)
    ]
    small, large = ([c for c in circles if c[2] == r] for r in ("2", "4"))
    assert len(small) == len(large) == 2
    assert large[1][0] == rate_distortion.LEFT
    # Rates by their roots: 1, 4, 9 are evenly spaced; distortions in a line.
    assert small[1][0] - large[0][0] == pytest.approx(large[0][0] - small[0][0], abs=0.02)
    assert small[1][1] - large[0][1] == pytest.approx(large[0][1] - small[0][1], abs=0.02)
    names = [t.text for t in tree.iterfind(".//s:text", space)]
    assert {"a<b", "lm"} <= set(names)
    assert "x" not in names


def test_lines_of_one_bound_join_points_of_one_bound():
    from midsentence.charts import Axis

    x, y = Axis(0, 4, 0, 400), Axis(20, 40, 200, 0)
    joined = [p.split('"')[1] for p in rate_distortion.equal_bounds(x, y)]
    assert len(joined) > 4
    bounds = []
    for path in joined:
        ends = [tuple(map(float, pair.split())) for pair in path[1:].split("L")]
        sums = [(a / 100) ** 2 + 40 - b / 10 for a, b in ends]
        assert np.ptp(sums) < 0.05
        bounds.append(round(sums[0]))
    assert len(set(np.diff(bounds))) == 1


def test_names_in_a_crowd_do_not_cover_each_other():
    places = [(rate_distortion.LEFT, 250 + 0.5 * i) for i in range(25)]
    boxes = rate_distortion.labelled(places, [f"method-{i}" for i in range(25)])
    assert all(rate_distortion.within(b) for b in boxes)
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])
    touching = rate_distortion.Box(0, 0, 1, 1), rate_distortion.Box(1, 0, 2, 1)
    assert not touching[0].meets(touching[1])


def test_the_plan_has_the_baseline_first_and_every_recipe_before_a_second_seed():
    jobs = remedies.plan(["a", "lm", "b"], ["b", "lm"], 3)
    assert [job.name for job in jobs] == ["lm-0", "a-0", "b-0", "lm-1", "b-1", "lm-2", "b-2"]
    with pytest.raises(SystemExit, match="c"):
        remedies.plan(["a"], ["c"], 3)


def test_results_of_another_budget_are_not_mixed_in(tmp_path):
    path = tmp_path / "results.json"
    training, measuring = {"minutes": 2, "jobs": 1}, {"samples": 10}
    held = remedies.opened(path, training, measuring)
    assert held["runs"] == {}
    held["runs"]["a-0"] = {"kl": 1.0}
    remedies.keep(path, held)
    assert remedies.opened(path, training, measuring) == held
    assert remedies.opened(path, training, {"samples": 20})["runs"] == {}
    with pytest.raises(SystemExit, match="another minutes"):
        remedies.opened(path, {"minutes": 3, "jobs": 1}, measuring)


def test_a_run_is_begun_resumed_or_begun_again(tmp_path):
    asked = argparse.Namespace(
        train="t.tsv", valid="v.tsv", test="e.tsv", text_field="1", set=["latent=8"], minutes=2.0,
        threads=1,
    )  # fmt: skip
    job, folder = remedies.Job("bow", 2), tmp_path / "bow-2"
    (folder / "corpus").mkdir(parents=True)  # stopped while it was preparing
    begun = list(map(str, remedies.train_command(job, folder, asked)))
    assert not folder.exists()
    assert begun[3:7] == ["train", "t.tsv", "--out", str(folder)]
    pairs = dict(zip(begun[5::2], begun[6::2], strict=True))
    assert pairs["--recipe"] == "bow"
    assert pairs["--seed"] == "2"
    assert pairs["--max-minutes"] == "2.0"
    assert "latent=8" in begun
    assert "training.threads=1" in begun
    (folder / "checkpoints" / "step-000010").mkdir(parents=True)
    assert remedies.train_command(job, folder, asked)[-1] == "--resume"
    assert folder.exists()


def test_what_a_command_says_and_how_it_fails(tmp_path):
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS']); sys.stderr.write('oh\\nno\\n')"
    assert remedies.call([sys.executable, "-c", code], log, 1) == "1\n"
    with pytest.raises(RuntimeError, match="ended with 3: no"):
        remedies.call([sys.executable, "-c", code + "; sys.exit(3)"], log, 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two short runs on one text: `vae` and `lm`."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "text.txt").write_text("\n".join(TEXT) + "\n")
    more = ["corpus.valid_fraction=0.2", "corpus.test_fraction=0.3", "training.max_steps=30",
            "training.epochs=99", "training.validations=0.01"]  # fmt: skip
    for recipe in ("default", "lm"):
        settings = [s for s in FAST if recipe != "lm" or not s.startswith(("latent", "encoder"))]
        pipeline.train(
            str(folder / "text.txt"), folder / recipe, recipe=recipe, settings=[*settings, *more]
        )
    return folder


@pytest.mark.parametrize(("recipe", "drawn"), [("default", 7), ("lm", 1)])
def test_measured_is_what_evaluate_says(home, recipe, drawn):
    found = json.loads(json.dumps(remedies.measure(home / recipe, 5, 7, 1)))
    model = TextVAE.from_pretrained(home / recipe)
    test = pick(pipeline.Corpus.open(home / recipe / "corpus").test, 5, seed=0)
    expected = evaluation.evaluate_store(model, test, 7)
    assert len(found["nll"]) == found["sentences"] == 5
    assert found["samples"] == drawn
    assert np.mean(found["nll"]) == pytest.approx(expected["nll"], abs=1e-3)
    for key in ("kl", "mi", "elbo", "active_units", "tokens", "estimator_stderr"):
        assert found[key] == pytest.approx(expected[key], abs=1e-6)
    assert found["steps"] == 30
    row = remedies_page.summarise([found | {"recipe": recipe, "seed": 0}], {})[0]
    assert row.ppl == pytest.approx(expected["ppl"], rel=1e-3)
    assert row.error == pytest.approx(expected["nll_stderr"], abs=1e-3)


def test_several_models_share_the_sentences_error():
    assert samples.several([(10.0, 3.0)]) == (10.0, 3.0)
    value, error = samples.several([(10.0, 3.0), (14.0, 3.0)])
    assert value == 12.0
    assert error == pytest.approx(math.sqrt(9 + 8 / 2))


def test_one_table_of_real_text_and_of_every_run(home, capsys, monkeypatch):
    runs = [str(home / run) for run in ("default", "lm")]
    asked = ["--lm", runs[1], "-n", "20", "--repeats", "2", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["samples.py", *runs, *asked])
    samples.main()
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert table[0][1:4] == ["real text", "default, normal", "lm"]
    rows = {row[0].removeprefix("| "): row[1:4] for row in table[2:]}
    assert all("±" in cell for cell in rows["forward PPL"] + rows["reverse PPL"])
    assert rows["novel"][0] == "1.000"
    assert rows["step"][0] == rows["step"][2] == ""  # neither real text nor a language model walks
    assert 0 <= float(rows["step"][1]) <= 1


def test_a_run_without_a_fitted_prior_has_one_source(home):
    assert [name for name, _ in samples.sources(home / "default")] == ["normal"]
    assert [name for name, _ in samples.sources(home / "lm")] == ["–"]


GOOD = ["good food", "the service was good", "not bad", "the place was not bad at all"]
BAD = ["bad food", "the service was bad", "not good", "the place was not good at all"]


def test_the_classifier_tells_pairs_of_words_apart():
    """No weights on single words could: "not" would have to say both."""
    classifier = labels.Classifier(["bad", "good"])
    classifier.fit(GOOD + BAD, ["good"] * 4 + ["bad"] * 4, epochs=30)
    assert classifier(GOOD + BAD) == ["good"] * 4 + ["bad"] * 4
    unseen = ["some good food", "some bad food", "it is not bad", "it is not good"]
    assert classifier(unseen) == ["good", "bad", "good", "bad"]
    assert len(classifier(["", "zzz"])) == 2


def test_features_are_words_and_pairs_and_no_accident_of_the_process():
    a, b, first, middle, last = labels.features("A b")
    assert labels.features("b a")[:2] == [b, a]
    assert not {first, middle, last} & set(labels.features("b a")[2:])
    assert a == 0xE8B7BE43 % labels.BUCKETS  # the published CRC-32 of "a"


def test_agreement_is_a_share_with_a_binomial_error():
    assert labels.agreement("aabb", "aaab") == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)), 4)
    assert labels.table("run", ["0", "1", "1", "1"], ["0", "0", "1", "1"]) == [
        "| run | 0 | 2 | 50.0 ± 35.4 % |",
        "| run | 1 | 2 | 100.0 ± 0.0 % |",
        "| run | all | 4 | 75.0 ± 21.7 % |",
    ]


def test_every_label_is_asked_for_as_often_with_chances_of_its_own():
    class Model:
        def sample(self, n, *, label, seed, top_p):
            return [f"{label} {seed} {top_p}"] * n

    lines, wanted = labels.asked_and_written(Model(), ["0", "1"], 2, 5, {"top_p": 0.9})
    assert lines == ["0 5 0.9", "0 5 0.9", "1 6 0.9", "1 6 0.9"]
    assert wanted == ["0", "0", "1", "1"]


def test_lines_without_a_label_teach_nothing(tmp_path):
    path = tmp_path / "text.tsv"
    path.write_text("1\tgood food\n\tno label\n0\tbad food\n1\tgood place\n")
    from midsentence.text.corpus import prepare

    corpus = prepare(
        str(path), tmp_path / "corpus", valid=str(path), text_field="1", label_field="0",
        test_fraction=0.0, tokenizer_settings={"kind": "word"},
    )  # fmt: skip
    lines, known = labels.labelled(corpus.train, corpus)
    assert dict(zip(lines, known, strict=True)) == {
        "good food": "1", "bad food": "0", "good place": "1",
    }  # fmt: skip


@pytest.mark.parametrize("row", reproduce.ROWS.values(), ids=lambda row: row.name)
def test_rows_to_reproduce_have_settings_that_exist(row):
    path = Path(__file__).parent.parent / reproduce.CONFIG
    made = config.compose("default", path, list(row.settings))
    assert made.training.batch_sentences == 32
    assert made.decoder["dropout"] == 0.5
    assert made.objective["free_bits"] == (5 / 32 if row.name == "ae-free-bits" else 0)
    assert made.optimizer["kind"] == ("adamw" if row.name == "cyclical" else "sgd")


def test_a_reproduced_table_has_the_published_figure_beside_ours():
    def held(row, seed, ppl):
        return {"row": row, "seed": seed, "ppl": ppl, "nll": 100.0, "nll_stderr": 0.5,
                "ppl_stderr": 1.25,
                "elbo": -101.5, "kl": 6.0, "mi": 5.0, "active_units": 31, "sentences": 10,
                "tokens": 200, "epochs": 30.2, "minutes": 61,
                "commands": [f"train {row}", f"evaluate {row}"]}  # fmt: skip

    text = reproduce.page([held("lm", 0, 100.0), held("ae-free-bits", 0, 97.0),
                           held("ae-free-bits", 1, 99.0)])  # fmt: skip
    lm, ours = (line.split(" | ") for line in text.splitlines() if line.startswith("| ") and
                ("language" in line or "autoencoder" in line))  # fmt: skip
    # One seed: by sentences. Two: (99 - 97) / 2.
    assert lm[1] == "100.00 ± 1.25 (100.47)"
    assert lm[3:7] == [""] * 4
    assert ours[1] == "98.00 ± 1.00 (96.86)"
    assert ours[3:7] == ["101.50 (102.41)", "6.00 (6.54)", "5.00 (5.31)", "31 (32)"]
    assert ours[7] == "2"
    assert "    train lm\n    evaluate lm\n" in text
    other = held("lm", 0, 99.0) | {"set": ["a.b=1"], "commands": ["train lm with it"]}
    both = reproduce.page([held("lm", 0, 100.0), other])
    assert "| LSTM language model (He et al. 2019), `a.b=1` | 99.00 ± 1.25 (100.47) |" in both
    assert "| LSTM language model (He et al. 2019) | 100.00" in both
    assert "    train lm with it\n" in both
