"""What bf16 products cost: python benchmarks/precision.py TRAIN VALID TEST [--steps N] [--seeds ..]

Trains the recipe `ptb` (--recipe) in bf16 and in fp32 for the same steps from the same seeds and
compares the validation bounds (float32 arithmetic for both) and the time. --settings A B compares
two other settings so, head.gradient_words=1024 and head.gradient_words=0 for one. Then holds
log p(x|z) of 200 test sentences, eight latents each, of one of the models, in either precision,
against float64.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from midsentence import config
from midsentence.bundle import TextVAE
from midsentence.learning import trainer
from midsentence.measuring.likelihood import bound
from midsentence.measuring.survey import Sentences, groups
from midsentence.text.corpus import Corpus, prepare
from midsentence.text.store import pick
from midsentence.vae import VAE


def trained(
    recipe: str, corpus: Corpus, out: Path, seed: int, steps: int, setting: str
) -> tuple[TextVAE, float]:
    """The model, and the seconds that it took."""
    own = ["head.gradient_words=0", "head.sampled_words=0", setting, f"training.max_steps={steps}"]
    settings = config.compose(recipe, None, own)
    settings.seed = seed
    out.mkdir()
    seconds = trainer.train(settings, corpus, out).seconds
    return TextVAE.from_pretrained(out), seconds


def log_px(vae: VAE, store: Sentences, precision: str, kind: torch.dtype) -> np.ndarray:
    """(sentences,) means over eight latents, the same for every precision; nats."""
    vae = vae.to(kind).eval()
    vae.head.precision = precision
    found = np.zeros(len(store))
    with torch.no_grad():
        for rows, batch in groups(vae, store):
            torch.manual_seed(0)
            z = torch.randn(8, len(batch), vae.latent, dtype=torch.float64).to(kind)
            found[rows] = vae.log_px(batch, z).mean(0).double().numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("texts", nargs=3, metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("--recipe", default="ptb")
    parser.add_argument("--tokenizer", default="word", help="tokenizer.kind")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--settings", nargs=2, default=["precision=bfloat16", "precision=float32"])
    asked = parser.parse_args()
    train, valid, test = asked.texts
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = prepare(train, folder / "corpus", valid=valid, test=test,
                         tokenizer_settings={"kind": asked.tokenizer})  # fmt: skip
        print(f"validation bound after {asked.steps} steps, nats a sentence\n")
        print("| seed | {} | {} | difference | time |".format(*asked.settings))
        print("|---|---|---|---|---|", flush=True)
        differences = []
        for seed in asked.seeds:
            bounds, times = [], []
            for number, setting in enumerate(asked.settings):
                out = folder / f"{seed}-{number}"
                model, seconds = trained(asked.recipe, corpus, out, seed, asked.steps, setting)
                times.append(seconds)
                model.vae.head.precision = "float32"
                bounds.append(bound(model.vae, corpus.valid)["elbo"])
            differences.append((bounds[0] - bounds[1]) / -bounds[1])
            print(
                f"| {seed} | {bounds[0]:.3f} | {bounds[1]:.3f} | {differences[-1]:+.2%} "
                f"| {times[0] / times[1]:.2f} |",
                flush=True,
            )
        print(f"| mean | | | {np.mean(differences):+.2%} | |\n")
        some = pick(corpus.test, 200, seed=0)
        exact = log_px(model.vae, some, "float32", torch.float64)
        print("| log p(x|z), 200 sentences | mean against float64 | rms a sentence, nats |")
        print("|---|---|---|")
        for precision in ("float32", "bfloat16"):
            off = log_px(model.vae, some, precision, torch.float32) - exact
            share = abs(off.mean() / exact.mean())
            print(f"| {precision} | {share:.5%} | {np.sqrt((off**2).mean()):.4f} |")


if __name__ == "__main__":
    main()
