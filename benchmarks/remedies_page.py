"""What `benchmarks/remedies.py` found, as a page: figures in, Markdown out."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from midsentence.measuring.diagnosis import HEALTHY, HEALTHY_UNITS
from midsentence.report import verdict

BASELINE = "lm"
REMARKS = "## What we learn"
"""From here on the page is written by people, and kept."""

CLEAR = 2.0
"""Standard errors from which on a difference is called one."""


@dataclass
class Row:
    """A recipe: means over its seeds, nats a sentence.

    error: of `nll` over the sentences. spread: standard deviation over the seeds, nan for one.
    gap: nll less the language model's on the same sentences, and its error over sentences and
    seeds. each: (KL, reconstruction) of every run.
    """

    recipe: str
    cite: str
    seeds: int
    nll: float
    error: float
    spread: float
    ppl: float
    kl: float
    reconstruction: float
    mi: float
    active_units: float
    latent: int
    bound: float
    minutes: float
    steps: float
    each: list[tuple[float, float]]
    gap: float = math.nan
    gap_error: float = math.nan

    @property
    def level(self) -> str:
        """good, warn (nearly collapsed), bad (collapsed), plain (no latent): as reports say it."""
        found = verdict(self.kl, self.mi, self.active_units, self.latent, -self.bound)
        return found.level if found else "plain"


def summarise(runs: Sequence[Mapping[str, Any]], cites: Mapping[str, str]) -> list[Row]:
    """One row a recipe: the language model, then the others by likelihood."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["recipe"], []).append(run)
    nlls = {name: np.array([r["nll"] for r in held]) for name, held in groups.items()}
    rows = [summed(name, held, nlls[name], cites.get(name, "")) for name, held in groups.items()]
    if BASELINE in groups:
        between = pooled([nll.mean(1) for nll in nlls.values()])
        base = nlls[BASELINE]
        for row in rows:
            own = nlls[row.recipe]
            if row.recipe == BASELINE:
                continue
            apart = own.mean(0) - base.mean(0)
            row.gap = float(apart.mean())
            chance = between**2 * (1 / len(own) + 1 / len(base))
            row.gap_error = math.sqrt(standard_error(apart) ** 2 + chance)
    return sorted(rows, key=lambda r: (r.recipe != BASELINE, math.isnan(r.nll), r.nll))


def summed(name: str, held: Sequence[Mapping[str, Any]], nll: np.ndarray, cite: str) -> Row:
    """nll: (seeds, sentences)."""

    def mean(key: str) -> float:
        return float(np.mean([run[key] for run in held]))

    return Row(
        recipe=name,
        cite=cite,
        seeds=len(held),
        nll=float(nll.mean()),
        error=standard_error(nll.mean(0)),
        spread=float(nll.mean(1).std(ddof=1)) if len(nll) > 1 else math.nan,
        ppl=math.exp(min(700.0, float(nll.mean()) * nll.shape[1] / mean("tokens"))),
        kl=mean("kl"),
        reconstruction=mean("reconstruction"),
        mi=mean("mi"),
        active_units=mean("active_units"),
        latent=int(mean("latent")),
        bound=-mean("elbo"),
        minutes=mean("minutes"),
        steps=mean("steps"),
        each=[(run["kl"], run["reconstruction"]) for run in held],
    )


def standard_error(values: np.ndarray) -> float:
    """Of the mean; nan for less than two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def pooled(groups: Sequence[np.ndarray]) -> float:
    """The standard deviation within groups, from all that have more than one value; 0 if none."""
    squares = sum(float(((g - g.mean()) ** 2).sum()) for g in groups if len(g) > 1)
    freedom = sum(len(g) - 1 for g in groups)
    return math.sqrt(squares / freedom) if freedom else 0.0


HEADER = (
    "| recipe | paper | seeds | NLL | over seeds | PPL | NLL − LM | −ELBO | KL | MI "
    "| active units | minutes | steps |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def table(rows: Sequence[Row]) -> str:
    return "\n".join([HEADER, *map(line, rows)])


def line(row: Row) -> str:
    latent = row.latent > 0
    return (
        f"| {row.recipe} | {paper(row.cite)} | {row.seeds} | {number(row.nll)} ± "
        f"{number(row.error)} | {number(row.spread)} | {number(row.ppl)} | {signed(row.gap)}"
        f"{'' if math.isnan(row.gap) else f' ± {number(row.gap_error)}'} | {number(row.bound)} | "
        f"{number(row.kl) if latent else '–'} | {number(row.mi) if latent else '–'} | "
        f"{f'{row.active_units:.0f} of {row.latent}' if latent else '–'} | {row.minutes:.1f} | "
        f"{row.steps:,.0f} |"
    )


def paper(cite: str) -> str:
    """Who and when, of each paper cited: the table has no room for titles."""
    short = (re.match(r".*?\d{4}", part.strip()) for part in cite.split(";"))
    named = [found.group() for found in short if found]
    return "; ".join(named) or cite or "–"


def number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "–"


def plainly(rows: Sequence[Row]) -> list[str]:
    """Who helps and who does not, by the same rule for all."""
    latent = [row for row in rows if row.level != "plain"]
    kept = [row for row in latent if row.level == "good"]
    compared = [row for row in kept if math.isfinite(row.gap)]
    gain = [row for row in compared if row.gap < -CLEAR * row.gap_error]
    price = [row for row in compared if row.gap > CLEAR * row.gap_error]
    level = [row for row in compared if row not in gain and row not in price]
    said = {
        "Keep their latent and beat the language model": gain,
        "Keep their latent, and their likelihood is the language model's": level,
        "Keep their latent at a price in likelihood": price,
        "Keep their latent (no language model to compare with)": [
            row for row in kept if row not in compared
        ],
        "**Do not help, nearly collapsed all the same**": [r for r in latent if r.level == "warn"],
        "**Do not help, collapsed all the same**": [r for r in latent if r.level == "bad"],
    }
    return [
        f"- {what}: {', '.join(f'{r.recipe}{told(r)}' for r in found)}."
        for what, found in said.items()
        if found
    ]


def told(row: Row) -> str:
    gap = f"{signed(row.gap)} nats, " if math.isfinite(row.gap) else ""
    return f" ({gap}MI {number(row.mi)})"


def page(
    rows: Sequence[Row],
    held: Mapping[str, Any],
    failed: Mapping[str, str],
    named: str,
    command: str,
    picture: str,
    old: str,
) -> str:
    """The whole page; what `old` says from its remarks on is kept."""
    training, measuring = held["training"], held["measuring"]
    caps = [run["mi_cap"] for run in held["runs"].values()]
    where = f"{os.cpu_count()} cores, torch {version('torch').split('+')[0]}"
    more = [s for s in training["settings"] if not s.startswith("training.")]
    parts = [
        "# Remedies for posterior collapse",
        f"Every recipe trained on {named} for {training['minutes']:g} minutes, {training['jobs']} "
        f"runs at a time with {training['threads']} thread{'s' * (training['threads'] > 1)} each "
        f"({where}); validation counts as training time, nobody stops early, the weights are those "
        "of the best validation bound. Sizes, batches and optimiser are the default recipe's unless"
        f" the method is about them{', with ' + ', '.join(f'`{s}`' for s in more) if more else ''}."
        f" All are measured on the same {measuring['sentences']:,} test sentences, by "
        f"{measuring['samples']} importance samples (the language model exactly). Made by",
        f"    {command}",
        "NLL, −ELBO, KL and MI are nats a sentence, PPL is a word's (with `</s>`). NLL is a mean "
        'over seeds, ± its standard error over sentences; "over seeds" is the standard deviation '
        "between seeds. NLL − LM is taken on the same sentences, and its error is that over "
        "sentences and seeds together. NLL is an upper bound that is looser where the KL is "
        f"large. MI is I(x; z) over all these sentences, at most {number(max(caps))}.",
        table(rows),
        f"![Rate and distortion of every method]({picture})",
        "A latent is kept where the report of a run would call it healthy: KL and MI of "
        f"{HEALTHY:g} nats or more, and {HEALTHY_UNITS} active units. A difference is one from "
        f"{CLEAR:g} standard errors on.",
        "\n".join(plainly(rows)),
    ]
    if failed:
        parts.append("\n".join(f"- Failed: {name}, {why}." for name, why in failed.items()))
    return "\n\n".join(part for part in parts if part) + "\n\n" + remarks(old)


def remarks(old: str) -> str:
    at = old.find(REMARKS)
    return old[at:] if at >= 0 else f"{REMARKS}\n"
