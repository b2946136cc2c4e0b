"""A run of every format version opens, says what it said, and goes on; a newer one is named."""

import json
import shutil

import pytest

from midsentence import TextVAE, UserError, config, evaluation, pipeline
from midsentence.learning import checkpoint, records
from midsentence.opening import FORMAT
from old_runs import HERE, said

VERSIONS = range(1, FORMAT + 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_says_what_it_said(version):
    folder = HERE / f"run-format-{version}"
    wanted = json.loads((HERE / f"said-format-{version}.json").read_text())
    for prior, found in said(folder).items():
        for what, value in found.items():
            numbers = what in ("log_px", "z")
            assert value == (approximately(wanted[prior][what]) if numbers else wanted[prior][what])


def approximately(value):
    """Another processor may add up in another order."""
    if isinstance(value[0], list):
        return [approximately(row) for row in value]
    return pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_goes_on(version, tmp_path):
    folder = shutil.copytree(HERE / f"run-format-{version}", tmp_path / "run")
    assert records.read(folder / "metrics.jsonl") and evaluation.evaluations(folder)["quick"]
    asked = ["training.max_steps=8", "training.epochs=40"]
    assert pipeline.train("text.txt", folder, settings=asked, resume=True) is not None
    assert checkpoint.latest(folder / "checkpoints")[1]["position"]["step"] == 8
    assert (folder / "report.html").exists()
    # Nothing sampled words when it was begun, so nothing does now.
    assert config.load(folder / "config.toml").head.sampled_words == 0


def test_a_newer_one_is_refused_by_its_version(tmp_path):
    folder = shutil.copytree(HERE / f"run-format-{FORMAT}", tmp_path / "run")
    held = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(held | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match=f"format '{FORMAT + 1}' is newer .* upgrade"):
        TextVAE.from_pretrained(folder)
