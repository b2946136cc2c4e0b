"""The run that is kept of each format version, and what it said when it was made.

``python tests/old_runs.py`` makes the one of the present format, if it isn't there: once a version
is released, it stays as it is, and every later one must open it.
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent / "fixtures"
LINES = [f"{a} cat {b} {c}" for a in ("the", "my", "no") for b in ("sat", "ran", "hid")
         for c in ("here", "there", "up", "down")]  # fmt: skip
SETTINGS = [
    "latent=2", "encoder.embedding=2", "encoder.hidden=2", "decoder.embedding=2",
    "decoder.hidden=2", "tokenizer.kind=word", "precision=float32", "training.max_steps=6",
    "training.parts=1", "training.batch_tokens=64", "training.threads=1",
    "training.device=cpu", "corpus.valid_fraction=0.2", "corpus.test_fraction=0.2",
]  # fmt: skip


def said(folder):
    """What a run's model says; equal for ever."""
    from midsentence import TextVAE

    found = {}
    for prior in ("fitted", "own"):
        model = TextVAE.from_pretrained(folder, "cpu", prior=prior)
        scores = model.score(["the cat sat up", "no dog"], samples=20)
        found[prior] = {
            "samples": model.sample(5, seed=1, max_length=8),
            "reconstructed": model.reconstruct(["my cat ran down"], max_length=8),
            "log_px": [score.log_px for score in scores],
            "z": model.encode(["my cat ran down"]).tolist(),
        }
    return found


def main():
    from midsentence import pipeline
    from midsentence.opening import FORMAT
    from midsentence.prior_fitting import fit_prior

    folder = HERE / f"run-format-{FORMAT}"
    if folder.exists():
        sys.exit(f"{folder} is there")
    text = Path("text.txt")
    text.parent.mkdir(exist_ok=True)
    text.write_text("\n".join(LINES))
    pipeline.train(str(text), folder, settings=SETTINGS)
    fit_prior(folder, "mog", ["components=2"], steps=5)
    # What is only shown, and would make the fixture large; and a name that is everyone's.
    (folder / "report.html").unlink()
    text.unlink()
    oldest, *_ = sorted((folder / "checkpoints").iterdir())
    if len(list((folder / "checkpoints").iterdir())) > 1:
        shutil.rmtree(oldest)
    (HERE / f"said-format-{FORMAT}.json").write_text(json.dumps(said(folder), indent=1))


if __name__ == "__main__":
    main()
