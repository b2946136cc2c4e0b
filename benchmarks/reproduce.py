"""The published Penn Treebank table, made again: benchmarks/reproduce.py PTB_FOLDER [ROW...]

Each row is trained by its published protocol (runs/published.toml and what is the row's own), then
measured on the test set by --samples importance samples. RESULTS/ptb.json grows row by row, and
with it RESULTS/ptb.md. Start it again and it goes on: what is measured is skipped, what was
interrupted is resumed.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = "runs/published.toml"
CLOSE = 1.5
"""PPL: within it a row counts as reproduced."""


@dataclass(frozen=True)
class Row:
    """settings: what is the row's own. published: figures as collected in Li et al. 2020
    (Optimus), tables 1 and 8; nats a sentence."""

    name: str
    title: str
    settings: tuple[str, ...]
    published: dict[str, float]


PATIENT = ("optimizer.halve_after=5",)
"""The code of Li et al. 2019, which has the configuration of these sizes for Penn Treebank, halves
a VAE's rate after five validations without a better one, and a language model's after two."""
ANNEALED = ("beta.kind=linear", "beta.start=0.1", "beta.over=0.1")
"""From 0.1 to 1 in ten epochs of a hundred."""

ROWS = {
    row.name: row
    for row in (
        Row("lm", "LSTM language model (He et al. 2019)", ("latent=0", "encoder={kind='none'}"),
            {"ppl": 100.47, "nll": 101.04}),
        # The published VAE without annealing is not in the collected table; collapsed, it is a
        # language model, and the annealed one's figures are what it is held against.
        Row("plain", "VAE without annealing (Li et al. 2020)", PATIENT,
            {"ppl": 101.40, "elbo": 101.28, "kl": 0.0, "mi": 0, "active_units": 0}),
        Row("monotone", "VAE, monotone annealing (Li et al. 2020)", (*PATIENT, *ANNEALED),
            {"ppl": 101.40, "elbo": 101.28, "kl": 0.0, "mi": 0, "active_units": 0}),
        # As its authors' code trains it: Adam, U(+-0.1), 40 epochs, four cycles of ten.
        Row("cyclical", "VAE, cyclical annealing (Fu et al. 2019)",
            ("beta.kind=cyclical", "beta.start=0.1", "beta.cycles=4", "beta.ratio=0.5",
             "training.epochs=40", "training.init=0.1",
             "optimizer={kind='adamw', lr=1e-3, weight_decay=0.0, warmup=0.0, floor=1.0, "
             "beta2=0.999}"),
            {"ppl": 108.81, "mi": 1.27, "active_units": 5}),
        Row("aggressive", "aggressive training (He et al. 2019)",
            (*ANNEALED, "training.aggressive=100"),
            {"ppl": 99.83, "elbo": 101.19, "kl": 0.93, "mi": 0.83, "active_units": 4}),
        # An autoencoder for 40 epochs (their code: until it is halved to its end, 100 at most), a
        # new decoder, ten epochs of annealing. The floor of the row is 5 nats: 5/32 a dimension.
        Row("ae-free-bits", "autoencoder, then free bits (Li et al. 2019)",
            ("training.pretrain=0.2857", "beta.kind=linear", "beta.over=0.1",
             "objective.form=dimension", "objective.free_bits=0.15625", "training.epochs=140",
             "optimizer.lr=0.5", *PATIENT),
            {"ppl": 96.86, "elbo": 102.41, "kl": 6.54, "mi": 5.31, "active_units": 32}),
    )
}  # fmt: skip

MEASURED = ("nll", "nll_stderr", "estimator_stderr", "ppl", "ppl_stderr", "elbo", "kl", "mi",
            "active_units", "sentences", "tokens", "samples")  # fmt: skip


def command(row: Row, seed: int, data: str, out: str, extra: list[str]) -> list[str]:
    """What trains one seed of a row; extra: settings beside the published ones."""
    words = ["train", f"{data}/train.txt", "--valid", f"{data}/valid.txt",
             "--test", f"{data}/test.txt", "--config", CONFIG, "--out", out,
             "--seed", str(seed)]  # fmt: skip
    return words + [word for setting in (*row.settings, *extra) for word in ("--set", setting)]


def call(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "midsentence", *words], text=True, **how)


def measure(out: str, samples: int, words: int) -> list[str]:
    """What measures it; words: so many stand for the vocabulary, all of it for 0."""
    by = ["--sampled-words", str(words)] if words else []
    return ["evaluate", out, "--samples", str(samples), *by]


def run(row: Row, seed: int, asked: argparse.Namespace) -> dict[str, Any] | None:
    """Train and measure; None where training was stopped. Raises CalledProcessError."""
    folder = asked.runs / ",".join([f"{row.name}-{seed}", *asked.set])
    if not (folder / "evaluation.json").exists():
        words = command(row, seed, str(asked.data), str(folder), asked.set)
        if any((folder / "checkpoints").glob("step-*")):
            words = [*words[: words.index("--config")], "--out", str(folder), "--resume"]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # stopped before there was anything to keep
        call(words, check=True)
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    last = json.loads(lines[-1])
    if not (folder / "evaluation.json").exists():
        return None
    how = asked.samples, asked.sampled_words
    done = call([*measure(str(folder), *how), "--json"], check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    return {
        "row": row.name,
        "seed": seed,
        "set": asked.set,
        "published": row.published,
        **{key: found[key] for key in MEASURED},
        "epochs": last["epoch"],
        "minutes": last["seconds"] / 60,
        "commands": [
            shlex.join(["midsentence", *words])
            for words in (
                command(row, seed, "PTB", f"runs/{row.name}", asked.set),
                measure(f"runs/{row.name}", *how),
            )
        ],
        "versions": {name: version(name) for name in ("midsentence", "torch")},
    }


def page(held: list[dict[str, Any]]) -> str:
    """results/ptb.md: published figure and ours, seed by seed where there are several."""
    out = [
        "# Penn Treebank, the published table made again",
        "",
        "Test set, words and `</s>` counted, nats a sentence, importance-weighted as the commands "
        "below say. Published figures are in brackets, as collected in Li et al. 2020 (Optimus). ± "
        "is the standard error over sentences, or over seeds where there are several. Made by "
        "`runs/reproduce.sh PTB_FOLDER`.",
        "",
        "| | PPL | NLL | -ELBO | KL | MI | active units | seeds | epochs | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = [(name, extra) for name in ROWS for extra in sorted(extras(held, name))]
    for name, extra in kinds:
        row = ROWS[name]
        runs = [r for r in held if r["row"] == name and tuple(r.get("set", ())) == extra]
        cells = [", ".join([row.title, *(f"`{setting}`" for setting in extra)])]
        for key, form in (("ppl", ".2f"), ("nll", ".2f"), ("elbo", ".2f"), ("kl", ".2f"),
                          ("mi", ".2f"), ("active_units", ".0f")):  # fmt: skip
            cells.append(cell(row, runs, key, form))
        cells += [str(len(runs))]
        cells += [f"{np.mean([r[key] for r in runs]):.0f}" for key in ("epochs", "minutes")]
        out.append(f"| {' | '.join(cells)} |")
    out += ["", f"A row within {CLOSE} PPL of its published figure is one that is reproduced.", ""]
    out += ["## Commands", ""]
    for name, extra in kinds:
        first = next(r for r in held if r["row"] == name and tuple(r.get("set", ())) == extra)
        out += [f"    {text}" for text in first.get("commands") or [first["command"]]]
    return "\n".join(out) + "\n"


def extras(held: list[dict[str, Any]], name: str) -> set[tuple[str, ...]]:
    """The settings beside the published ones that a row was trained with."""
    return {tuple(r.get("set", ())) for r in held if r["row"] == name}


def cell(row: Row, runs: list[dict[str, Any]], key: str, form: str) -> str:
    values = [abs(r[key]) if key == "elbo" else r[key] for r in runs if r[key] is not None]
    latent = not any(setting == "latent=0" for setting in row.settings)
    if not values or (not latent and key not in ("ppl", "nll")):
        return ""
    text = f"{np.mean(values):{form}}"
    if key in ("ppl", "nll"):
        many = len(values) > 1
        error = np.std(values, ddof=1) / len(values) ** 0.5 if many else runs[0][f"{key}_stderr"]
        text += f" ± {error:{form}}"
    return text + (f" ({row.published[key]:{form}})" if key in row.published else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument(
        "--sampled-words", type=int, default=0,
        help="measure by so many words a position (evaluate --sampled-words): 512 will do",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="train every row with this too, as head.sampled_words=1024",
    )  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    asked = parser.parse_args()
    unknown = sorted(set(asked.rows) - set(ROWS))
    if unknown:
        parser.error(f"there is no row {', '.join(unknown)}: choose from {', '.join(ROWS)}")
    asked.results.mkdir(parents=True, exist_ok=True)
    path = asked.results / "ptb.json"
    held = json.loads(path.read_text("utf-8")) if path.exists() else []
    for name in asked.rows or ROWS:
        for seed in asked.seeds:
            known = [r for r in held if r["row"] == name and r["seed"] == seed]
            if any(r.get("set", []) == asked.set for r in known):
                continue
            found = run(ROWS[name], seed, asked)
            if found is None:
                sys.exit("stopped; the same command goes on from here")
            held.append(found)
            for target, text in ((path, json.dumps(held, indent=1) + "\n"),
                                 (path.with_suffix(".md"), page(held))):  # fmt: skip
                part = target.with_suffix(".part")
                part.write_text(text, "utf-8")
                part.replace(target)
            print(f"{name} seed {seed}: PPL {found['ppl']:.2f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[3]} ended with {error.returncode}")
