"""Every recipe on one corpus at equal budget: benchmarks/remedies.py TRAIN --valid FILE --test FILE

Each recipe is trained for --minutes with --seed 0 (those of --main with more seeds), --jobs runs at
a time with --threads each, then measured on the same --sentences test sentences by --samples
importance samples. OUT/results.json grows run by run, and with it the page and its picture. Start
it again and it goes on: what is done is skipped, what was interrupted is resumed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rate_distortion
import remedies_page
from midsentence import config

TIED = ("ptb", "ptb-large")
"""Recipes made for one corpus."""

MEASURED = ("elbo", "reconstruction", "kl", "mi", "mi_cap", "active_units", "latent", "tokens",
            "sentences")  # fmt: skip

under_way: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Job:
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.seed}"


def plan(recipes: list[str], main: list[str], seeds: int) -> list[Job]:
    """First all recipes once, the language model before the others, then the further seeds."""
    unknown = sorted(set(main) - set(recipes))
    if unknown:
        raise SystemExit(f"--main names what is not among the recipes: {', '.join(unknown)}")
    ordered = sorted(recipes, key=lambda name: (name != remedies_page.BASELINE, name))
    further = [Job(name, seed) for seed in range(1, seeds) for name in ordered if name in main]
    return [Job(name, 0) for name in ordered] + further


def opened(path: Path, training: dict[str, Any], measuring: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds so far. Runs of another budget are refused, not mixed in; where only
    the measuring is another one, all runs will be measured afresh."""
    fresh = {"training": training, "measuring": measuring, "runs": {}}
    if not path.exists():
        return fresh
    held: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if held["training"] != training:
        changed = [key for key, value in training.items() if held["training"].get(key) != value]
        raise SystemExit(
            f"{path} holds runs with another {', '.join(changed)}: choose another --out"
        )
    return held if held["measuring"] == measuring else fresh


def keep(path: Path, held: dict[str, Any]) -> None:
    """Written whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(held), "utf-8")
    part.replace(path)


def run(job: Job, asked: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one model, each in a process of its own; raises RuntimeError."""
    folder, log = asked.out / job.name, asked.out / f"{job.name}.log"
    if not (folder / "evaluation.json").exists():
        call(train_command(job, folder, asked), log, asked.threads)
    figures = call(
        [sys.executable, __file__, "--measure", folder, asked.sentences, asked.samples,
         asked.threads], log, asked.threads,
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # three times the size of the model
    return {"recipe": job.recipe, "seed": job.seed, **json.loads(figures.splitlines()[-1])}


def train_command(job: Job, folder: Path, asked: argparse.Namespace) -> list[object]:
    command = [sys.executable, "-m", "midsentence", "train", asked.train, "--out", folder]
    if any((folder / "checkpoints").glob("step-*")):
        return [*command, "--resume"]
    shutil.rmtree(folder, ignore_errors=True)  # stopped before there was anything to go on from
    command += ["--valid", asked.valid, "--test", asked.test, "--recipe", job.recipe]
    command += ["--seed", job.seed, "--max-minutes", asked.minutes]
    if asked.text_field is not None:
        command += ["--text-field", asked.text_field]
    for setting in [*settings(asked), f"training.threads={asked.threads}"]:
        command += ["--set", setting]
    return command


def settings(asked: argparse.Namespace) -> list[str]:
    """Early stopping is off and epochs have no end: minutes are the budget, for all the same."""
    return ["training.epochs=1000", "training.patience=0", *asked.set]


def call(command: list[object], log: Path, threads: int) -> str:
    """A command's standard output; what it says beside that goes to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with log.open("ab") as errors:
        # A session of its own: Ctrl-C is for us, who then end our children once.
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, env=environment,
            start_new_session=True,
        )  # fmt: skip
        under_way.add(process)
        said, _ = process.communicate()
        under_way.discard(process)
    if process.returncode:
        last = (log.read_text("utf-8").strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"ended with {process.returncode}: {last}")
    return said.decode()


def measure(folder: Path, sentences: int, samples: int, threads: int) -> dict[str, Any]:
    """A trained run's figures. Its likelihood sentence by sentence, so that recipes can be compared
    on the same sentences; nats."""
    import torch

    from midsentence import TextVAE, evaluation, pipeline
    from midsentence.measuring.likelihood import importance_weighted
    from midsentence.text.store import pick

    torch.set_num_threads(threads)
    model, corpus = TextVAE.from_pretrained(folder), pipeline.Corpus.open(folder / "corpus")
    test = pick(corpus.test, sentences, seed=0)
    table = evaluation.evaluate_store(model, test, samples=1)
    samples = samples if model.latent else 1  # without a latent one sample is exact
    log_p, error = importance_weighted(model.vae, test, samples)
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    speeds = [r["words_per_second"] for r in records if r["kind"] == "train"]
    return {
        **{key: table[key] for key in MEASURED},
        "samples": samples,
        "estimator_stderr": float(np.sqrt((error**2).sum()) / len(error)),
        "minutes": records[-1]["seconds"] / 60,
        "steps": records[-1]["step"],
        "words_per_second": float(np.median(speeds)) if speeds else None,
        "nll": np.round(-log_p, 4).tolist(),
    }


def main() -> None:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    recipes = [name for name in asked.recipes or config.recipes() if name not in asked.without]
    jobs = plan(recipes, asked.main, asked.seeds)
    training = {
        "corpus": [Path(p).name for p in (asked.train, asked.valid, asked.test)],
        "minutes": asked.minutes,
        "jobs": asked.jobs,
        "threads": asked.threads,
        "settings": settings(asked),
    }
    measuring = {"sentences": asked.sentences, "samples": asked.samples}
    path = asked.out / "results.json"
    held = opened(path, training, measuring)
    open_jobs = [job for job in jobs if job.name not in held["runs"]]
    failed: dict[str, str] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ThreadPoolExecutor(asked.jobs) as pool:
        futures = {pool.submit(run, job, asked): job for job in open_jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                try:
                    found = held["runs"][job.name] = future.result()
                except RuntimeError as error:
                    failed[job.name] = str(error)
                    say(f"{job.name}: {error}; see {asked.out / job.name}.log")
                    continue
                keep(path, held)
                write(held, failed, asked)
                done = sum(j.name in held["runs"] for j in jobs)
                say(f"{done}/{len(jobs)} {job.name}: NLL {np.mean(found['nll']):.2f}, "
                    f"KL {found['kl']:.2f}, MI {found['mi']:.2f}")  # fmt: skip
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(under_way):
                process.terminate()  # a trainer then saves, to be resumed
            raise
    write(held, failed, asked)
    say(f"{asked.page}: {len(held['runs'])} runs, {len(failed)} failed")


def write(held: dict[str, Any], failed: dict[str, str], asked: argparse.Namespace) -> None:
    """The page, with the remarks it already has, and the picture beside it."""
    cites = {n: config.read_recipe(n).get("cite", "") for n in config.recipes()}
    rows = remedies_page.summarise(list(held["runs"].values()), cites)
    if not rows:
        return
    asked.page.parent.mkdir(parents=True, exist_ok=True)
    picture = asked.page.with_suffix(".svg")
    points = [rate_distortion.Point(r.recipe, r.kl, r.reconstruction, r.each) for r in rows]
    picture.write_text(rate_distortion.picture(points), "utf-8")
    old = asked.page.read_text("utf-8") if asked.page.exists() else ""
    named = asked.name or Path(asked.train).resolve().parent.name
    text = remedies_page.page(rows, held, failed, named, shown_command(asked), picture.name, old)
    asked.page.write_text(text, "utf-8")


def shown_command(asked: argparse.Namespace) -> str:
    """The command again, without the folders of this machine."""
    files = (asked.train, asked.valid, asked.test)
    words = [Path(w).name if w in files or w.startswith("/") else w for w in sys.argv[1:]]
    return " ".join(["python benchmarks/remedies.py", *words])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("train")
    # All seeds must be held to the same sentences, so the corpus is not split by chance.
    parser.add_argument("--valid", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--text-field")
    parser.add_argument("--recipes", nargs="+", help="all of `midsentence recipes` by default")
    parser.add_argument("--without", nargs="*", default=list(TIED))
    parser.add_argument("--main", nargs="*", default=[], help="recipes trained with more seeds")
    parser.add_argument("--seeds", type=int, default=3, help="of the main ones")
    parser.add_argument("--minutes", type=float, default=6, help="of training a run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100, help="importance samples")
    parser.add_argument("--set", action="append", default=[], help="a setting of all runs, a.b=c")
    parser.add_argument("--out", type=Path, default=Path("runs/remedies"))
    parser.add_argument("--page", type=Path, default=Path("docs/remedies.md"))
    parser.add_argument("--name", help="of the corpus, for the page (default: its folder's)")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        try:
            main()
        except KeyboardInterrupt:
            sys.exit("stopped; the same command goes on from here")
