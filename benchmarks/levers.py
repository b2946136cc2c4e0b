"""One change at a time to the recipe `ptb`: benchmarks/levers.py TRAIN VALID TEST [LEVER...]

Each lever is trained for the same --epochs from the same seed and measured on the same --sentences
test sentences by --samples importance samples, of --sampled-words words; its difference from the
recipe as it is is taken sentence by sentence. OUT/LEVER.json keeps what is measured, so that the
command goes on where it was stopped, and two of them may share the work. Prints the table. --set
changes them all, as --set latent=0 encoder.kind=none, what the levers give a language model; it
wants an OUT of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from midsentence import TextVAE, config, evaluation
from midsentence.learning import trainer
from midsentence.measuring.likelihood import importance_weighted
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.store import pick

BASE = ("head.gradient_words=0", "head.sampled_words=1024", "decoder.locked_dropout=true")
FLOOR = "objective.free_bits=0.25"
ADAM = "optimizer={kind='adamw'}"
LEVERS = {
    "recipe": (),
    "untied": ("head.tied=false",),
    "dropout unlocked": ("decoder.locked_dropout=false",),
    "two softmaxes": ("head.softmaxes=2",),
    "four softmaxes": ("head.softmaxes=4",),
    "weight drop": ("decoder.weight_drop=0.2",),
    "weight average": ("training.average=0.75",),
    "AdamW": (ADAM,),
    "two layers": ("decoder.layers=2",),
    "Transformer": ("decoder={kind='transformer', dropout=0.2}", ADAM),
    "skip": ("decoder.inject=['state', 'input', 'skip']",),
    "gate": ("decoder.inject=['state', 'input', 'gate']",),
    "add": ("decoder.inject=['state', 'add']",),
    "autoencoder first": ("training.pretrain=0.2",),
    "target rate": ("objective.kind=rate", "objective.target=8.0"),
    "posterior full": ("posterior.kind=full",),
    "posterior iaf": ("posterior.kind=iaf",),
    "prior mog": ("prior.kind=mog",),
    "prior flow": ("prior.kind=flow",),
    "half the batch": ("training.batch_tokens=384",),
    "twice the batch": ("training.batch_tokens=1536",),
}
"""What each changes of the recipe, one idea at a time."""

COLUMNS = ("NLL", "NLL - recipe", "-ELBO", "KL", "MI", "active units", "minutes")


def run(name: str, corpus: Corpus, asked: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one. Minutes are of training, validation included."""
    changes = LEVERS[name] if name == "target rate" else (FLOOR, *LEVERS[name])
    own = [*BASE, *changes, *asked.set, f"training.epochs={asked.epochs}"]
    settings = config.compose("ptb", None, own)
    settings.seed = asked.seed
    out = asked.out / name
    out.mkdir(exist_ok=True)
    begun = any((out / "checkpoints").glob("step-*"))
    at = trainer.train(settings, corpus, out, resume=begun)
    if at.ended == "interrupted":
        raise SystemExit("stopped; the same command goes on from here")
    model = TextVAE.from_pretrained(out)
    test = pick(corpus.test, asked.sentences, seed=0)
    table = evaluation.evaluate_store(model, test, samples=1)
    log_p, _ = importance_weighted(model.vae, test, asked.samples, words=asked.sampled_words)
    # A language model has an NLL alone.
    kept = {key: table.get(key, 0) for key in ("elbo", "kl", "mi", "active_units")}
    return {**kept, "minutes": at.seconds / 60, "nll": np.round(-log_p, 4).tolist()}


def line(name: str, found: dict[str, Any], base: list[float]) -> str:
    """A lever's row of the table."""
    apart = np.array(found["nll"]) - np.array(base)
    error = apart.std(ddof=1) / len(apart) ** 0.5
    cells = (f"{np.mean(found['nll']):.2f}", f"{apart.mean():+.2f} ± {error:.2f}",
             f"{-found['elbo']:.2f}", f"{found['kl']:.2f}", f"{found['mi']:.2f}",
             f"{found['active_units']}", f"{found['minutes']:.1f}")  # fmt: skip
    changes = ", ".join(f"`{change}`" for change in LEVERS[name])
    return f"| {' | '.join([f'{name}: {changes}' if changes else name, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("texts", nargs=3, metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("levers", nargs="*", metavar="LEVER", help=", ".join(LEVERS))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="settings of all of them, a.b=c")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--sampled-words", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    asked = parser.parse_args()
    if unknown := [name for name in asked.levers if name not in LEVERS]:
        parser.error(f"no such lever: {', '.join(unknown)}; there are {', '.join(LEVERS)}")
    train, valid, test = asked.texts
    asked.out.mkdir(parents=True, exist_ok=True)
    folder = asked.out / "corpus"
    corpus = Corpus.open(folder) if folder.exists() else prepare(
        train, folder, valid=valid, test=test, tokenizer_settings={"kind": "word"}
    )  # fmt: skip
    for name in asked.levers or LEVERS:
        path = asked.out / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(run(name, corpus, asked)), "utf-8")
    print("|", " | ".join(["", *COLUMNS]), "|", sep="")
    print("|---" * (len(COLUMNS) + 1), "|", sep="")
    measured = {n: asked.out / f"{n}.json" for n in LEVERS if (asked.out / f"{n}.json").exists()}
    held = {name: json.loads(path.read_text("utf-8")) for name, path in measured.items()}
    for name, found in held.items():
        print(line(name, found, held.get("recipe", found)["nll"]))


if __name__ == "__main__":
    main()
