"""What the defaults make of few sentences: benchmarks/few.py TEXT [--lines 1000] [--out runs/few]

Draws --lines of TEXT, one sentence a line, and a thousand others that are the test; trains on the
first by twenty epochs of the default recipe, by the default recipe, and by the recipe `small`; and
prints what each says of the test: NLL by --samples importance samples under N(0, I), bound, KL, MI,
active units, the doctor's verdict on the run's own validation part, and minutes. What is in OUT
already is not trained again.
"""

import argparse
import random
from pathlib import Path

from midsentence import TextVAE, pipeline
from midsentence.checkup import doctor
from midsentence.evaluation import evaluate_file
from midsentence.learning.records import read

WAYS = {
    "20 epochs": ("default", ["training.epochs=20", "training.validations=1"]),
    "default": ("default", []),
    "small": ("small", []),
}
COLUMNS = ("NLL", "-ELBO", "KL", "MI", "active units", "steps (of)", "verdict", "minutes")
TEST = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("text", type=Path, metavar="TEXT")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the lines, and of the training")
    parser.add_argument("--column", type=int, help="of the sentence, from 0, in a table by tabs")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/few"))
    asked = parser.parse_args()
    lines = [line for line in asked.text.read_text("utf-8").splitlines() if line.strip()]
    if asked.column is not None:
        lines = [line.split("\t")[asked.column] for line in lines]
    drawn = random.Random(asked.seed).sample(sorted(set(lines)), asked.lines + TEST)
    asked.out.mkdir(parents=True, exist_ok=True)
    few, test = asked.out / "few.txt", asked.out / "test.txt"
    for path, part in (few, drawn[TEST:]), (test, drawn[:TEST]):
        path.write_text("\n".join(part) + "\n", "utf-8")
    print(f"| {asked.lines:,} lines | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for way in asked.ways:
        print(measured(way, few, test, asked), flush=True)


def measured(way: str, few: Path, test: Path, asked: argparse.Namespace) -> str:
    """A row of the table."""
    out, (recipe, settings) = asked.out / way.replace(" ", "-"), WAYS[way]
    if not (out / "report.html").exists():
        pipeline.train(str(few), out, recipe=recipe, settings=[*settings, f"seed={asked.seed}"])
    records = read(out / "metrics.jsonl")
    looks = [r for r in records if r["kind"] == "valid"]
    best = max(looks, key=lambda r: r["elbo"])
    found = evaluate_file(TextVAE.from_pretrained(out), str(test), asked.samples)
    verdict = doctor(out).diagnosis.verdict
    cells = (f"{found['nll']:.2f} ± {found['nll_stderr']:.2f}", f"{-found['elbo']:.2f}",
             f"{found['kl']:.2f}", f"{found['mi']:.2f}", f"{found['active_units']:.0f}",
             f"{best['step']:,} ({looks[-1]['step']:,})", verdict,
             f"{records[-1]['seconds'] / 60:.1f}")  # fmt: skip
    return f"| {' | '.join([way, *cells])} |"


if __name__ == "__main__":
    main()
