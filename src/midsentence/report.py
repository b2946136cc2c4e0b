"""``report.html``: one file, no network, that says whether the posterior collapsed and how good
the model is.

The page is a Jinja template with autoescaping, for sentences are anybody's text; the curves come
from `charts`. Any input may be empty or not a number, and its section is then left out.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from .charts import Chart, Line, curves, ranked_bars, smoothed
from .evaluation import own_prior
from .measuring.diagnosis import COLLAPSED, Diagnosis, carrying, least
from .writing import write_whole

ACTIVE = 0.01  # nats: a dimension of less KL than this is drawn as idle
LONGEST = 600  # characters of a sentence that are shown

Records = Sequence[Mapping[str, Any]]

FIGURES: dict[str, tuple[str, str, str]] = {
    "nll": ("NLL", ".2f", "−log p(x), nats a sentence. With a latent by importance sampling: in "
            "expectation not below the truth (by sampled words, a little); closer with more."),
    "nll_stderr": ("± standard error", ".2f", "Of the mean NLL over sentences."),
    "estimator_stderr": ("± of the estimator", ".3f", "The part of it that more samples remove."),
    "ppl": ("Perplexity", ",.2f", "exp(NLL / tokens), the end of the sentence counted. Compares "
            "only between equal tokenizers."),
    "ppl_stderr": ("± standard error", ".2f", "Of the perplexity over sentences, as a ratio of "
                   "sums: of nats and of tokens."),
    "bits_per_byte": ("Bits per byte", ".3f", "NLL / bytes of UTF-8. Compares between "
                      "tokenizers without <unk>."),
    "elbo": ("ELBO", ".2f", "log p(x|z) − KL, one sample: the bound training raises."),
    "reconstruction": ("Reconstruction", ".2f", "−log p(x|z), nats a sentence, z from q(z|x)."),
    "kl": ("KL", ".2f", "Nats a sentence from prior to posterior: what z is charged. It is the "
           "sum of MI and marginal KL."),
    "mi": ("Mutual information", ".2f", "Nats that z tells about its sentence."),
    "mi_cap": ("MI, at most", ".2f", "ln N of N sentences; less in a model with labels."),
    "marginal_kl": ("Marginal KL", ".2f", "From prior to the average posterior. If large, samples "
                    "from the prior fall where no sentence lies."),
    "active_units": ("Active units", ",.0f", "Dimensions whose posterior mean varies (≥ 0.01) "
                     "over sentences."),
    "latent": ("Latent dimensions", ",.0f", "Length of z."),
    "sentences": ("Sentences", ",.0f", "Evaluated."),
    "tokens": ("Tokens", ",.0f", "Predicted, one end of sentence each among them."),
    "bytes": ("Bytes", ",.0f", "Of the sentences in UTF-8."),
    "samples": ("Samples", ",.0f", "Importance samples a sentence."),
    "words": ("Sampled words", ",.0f", "Of the vocabulary, that the NLL was estimated by."),
    "words_off": ("NLL less the exact", ".4f", "Of a few sentences, by all words too."),
    "words_off_stderr": ("± standard error", ".4f", "Of this over those sentences."),
}  # fmt: skip
"""Key of `evaluate` -> (name, format, explanation), in the order of the page."""

OF_THE_LATENT = {
    *("elbo", "reconstruction", "kl", "mi", "mi_cap", "marginal_kl", "active_units", "latent"),
    *("estimator_stderr", "samples", "words", "words_off", "words_off_stderr"),
}
"""Figures that say nothing about a language model, whose likelihood is exact."""


@dataclass
class Verdict:
    level: str  # good, warn, bad or plain: a colour
    headline: str
    detail: str


def verdict(
    kl: float, mi: float, active: float, latent: float, elbo: float = 0.0
) -> Verdict | None:
    """Did the posterior collapse? nan is an unknown; None means that KL and units both are.

    A bound that is no number: diverged. No latent: a language model. Else by `diagnosis.carrying`,
    as the doctor has it, of KL, or of MI where that is less: KL bounds it, but free bits can keep
    KL up while z says nothing.
    """
    if not math.isfinite(elbo):
        return Verdict("bad", "Training diverged", "The bound is not a finite number.")
    if latent == 0:
        detail = "There is no posterior to collapse, and the likelihood is exact."
        return Verdict("plain", "Language model (no latent)", detail)
    level = carrying(least(kl, mi), active, latent)
    units = f"{active:.0f} of {latent:.0f} units active" if latent > 0 else f"{active:.0f} active"
    known = [f"KL {kl:.2f} nats"] * math.isfinite(kl) + [units] * math.isfinite(active)
    figures = ", ".join(known)
    if not known:
        return None
    if level == "collapsed":
        paid = f" The KL is paid, but only {mi:.2f} nats of it tell sentences apart."
        detail = f"{figures}: the decoder writes without heeding z."
        return Verdict("bad", "Posterior collapsed", detail + paid * (mi < COLLAPSED <= kl))
    if level == "collapsing":
        return Verdict("warn", "Nearly collapsed", f"{figures}: z says little about the sentence.")
    carried = f"About {mi:.1f} nats of z are about its sentence." if mi > 0 else ""
    return Verdict("good", f"Healthy: {figures}", carried)


def by_doctor(found: Diagnosis | None) -> Verdict | None:
    """The card of a disease that the doctor found: the page must not call healthy what is not."""
    if found is None or found.verdict in ("healthy", "no latent", "diverged"):
        return None
    grave = found.verdict in ("collapsed", "over-fitted latent")
    headline = "Posterior collapsed" if found.verdict == "collapsed" else found.verdict.capitalize()
    return Verdict("bad" if grave else "warn", headline, " ".join(found.reasons))


def repeated(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Equal neighbours as one: text, count, and the stretch of the way from A (0) to B (1)."""
    rows, at, end = [], 0, max(1, len(lines) - 1)
    for text, same in groupby(lines):
        count = len(list(same))
        rows.append({"text": text, "count": count, "t": (at / end, (at + count - 1) / end)})
        at += count
    return rows


def differences(original: str, text: str) -> list[tuple[str, bool]]:
    """`text` in pieces, with whether a piece differs from the original.

    By words, or by characters where nothing is spaced. Of very long texts nothing is compared.
    """
    spaced = any(map(str.isspace, original.strip() + text.strip()))
    a, b = (re.findall(r"\s+|\S+" if spaced else r"(?s).", part) for part in (original, text))
    if max(len(a), len(b)) > LONGEST:
        return [(text, False)]
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    parts = [("".join(b[j:k]), what != "equal") for what, _, _, j, k in matcher.get_opcodes()]
    return [part for part in parts if part[0]]


def flat(settings: Mapping[str, Any], within: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and printed values."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{within}{key}.")
        else:
            many = isinstance(value, (list, tuple))
            rows.append((f"{within}{key}", ", ".join(map(str, value)) if many else str(value)))
    return rows


def number(value: Any, form: str = ".2f") -> str:
    """A figure for people; a dash for what is not one."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    return format(value, form).replace("-", "−")


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def column(records: Records, key: str) -> np.ndarray:
    """One figure of all records as floats; nan where it is missing."""
    found = (record.get(key) for record in records)
    return np.array([math.nan if v is None else float(v) for v in found], dtype=np.float64)


@cache
def template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "shortened": shortened}
    text = Path(__file__).with_name("report.html.j2").read_text("utf-8")
    return environment.from_string(text)


@dataclass
class Report:
    """Everything the page shows. Units are those of the whole project: nats per sentence."""

    title: str
    summary: Mapping[str, str]
    settings: Mapping[str, Any]
    train: Records
    valid: Records
    table: Mapping[str, Mapping[str, float]]
    kl_per_dimension: Sequence[float]
    samples: Sequence[str]
    reconstructions: Sequence[tuple[str, str]]
    interpolation: Sequence[str]
    diagnosis: Diagnosis | None = None

    def headline(self) -> tuple[str, dict[str, float]]:
        """The figures to judge by, and where from: validation, under the best table's.

        The test set if there is one, else the split of the most sentences; not a table under a
        fitted prior or by sampled words, as long as there is another.
        """
        by_size = lambda name: (  # noqa: E731
            name == "test", own_prior(name), "words" not in (held := self.table[name]),
            held.get("sentences", 0),
        )  # fmt: skip
        name = max(self.table, key=by_size, default="")
        last = self.valid[-1] if self.valid else {}
        found = {k: v for k, v in last.items() if isinstance(v, (int, float))}
        best = self.table.get(name, {})
        # A bound that is not finite is kept, for the verdict to say so.
        found |= {k: v for k, v in best.items() if number(v) != "–" or k not in {*found, "latent"}}
        if self.kl_per_dimension:
            found.setdefault("latent", len(self.kl_per_dimension))
            found.setdefault("kl", float(np.nansum(self.kl_per_dimension)))
        elif found.get("kl") == 0.0:  # a posterior is never exactly the prior
            found.setdefault("latent", 0)
        return name, found

    def charts(self, latent: float) -> dict[str, list[Chart]]:
        """The curves in three groups, those without data left out."""
        steps, held = column(self.train, "step"), column(self.valid, "step")
        ends = [float(s[np.isfinite(s)].max()) for s in (steps, held) if np.isfinite(s).any()]
        plot = partial(curves, longest=max(ends, default=1.0))

        def train(key: str, sign: int = 1) -> list[Line]:
            ys, known = sign * column(self.train, key), np.isfinite(steps)
            return smoothed("training", steps[known], ys[known]) if known.any() else []

        def scheduled(key: str) -> list[Line]:
            ys, known = column(self.train, key), np.isfinite(steps)
            return [Line("as set", "valid", steps[known], ys[known])] if known.any() else []

        def valid(key: str, label: str, sign: int = 1, style: str = "valid") -> list[Line]:
            ys, known = sign * column(self.valid, key), np.isfinite(held)
            return [Line(label, style, held[known], ys[known])] if known.any() else []

        nats, check = "nats per sentence", "validation"
        words = self.settings.get("head", {}).get("sampled_words")
        guess = f" Training's, by {words:,} words at most, is a little too low." if words else ""
        lower = "Lower is better."
        quality = [
            plot("Bound, −ELBO" if latent else "NLL", nats,
                 [*train("elbo", -1), *valid("elbo", check, -1)], note=lower + guess, settle=True),
            plot("Reconstruction", nats,
                 [*train("log_px", -1), *valid("log_px", check, -1)],
                 note="−log p(x|z): the bound without its KL." + guess, settle=True)
            if latent else None,
            plot("Perplexity, at most" if latent else "Perplexity", "per token",
                 valid("ppl_bound", check), note=lower, settle=True),
        ]  # fmt: skip
        carried = [
            plot("KL and MI", nats,
                 [*train("kl"), *valid("kl", "validation KL"),
                  *valid("mi", "validation MI", style="second"),
                  *valid("mi_cap", "most MI measurable", style="limit")], zero=True),
            plot("Active units", f"of {latent:.0f}" if latent > 0 else "units",
                 valid("active_units", check), zero=True, whole=True, top=latent),
            self.dimensions(),
        ]  # fmt: skip
        course = [
            plot("KL weight β", "factor", scheduled("beta"), zero=True) if latent else None,
            plot("Learning rate", "", scheduled("lr"), zero=True),
            plot("Gradient norm", "before clipping", train("grad_norm"), zero=True, settle=True),
        ]
        groups = {"quality": quality, "carried": carried if latent else [], "course": course}
        return {name: [c for c in group if c] for name, group in groups.items()}

    def dimensions(self) -> Chart | None:
        """KL of each dimension, largest first, with how much of it sits in how few."""
        found = np.sort([v for v in self.kl_per_dimension if math.isfinite(v)])[::-1]
        note, total = "", float(found.sum())
        if total > 0:
            half = int(np.searchsorted(found.cumsum(), total / 2)) + 1
            above = int((found >= ACTIVE).sum())
            note = (
                f"{above} of {len(found)} at {ACTIVE} nats (dashed) or more; "
                f"the first {half} hold{'s' * (half == 1)} half of {total:.2f}."
            )
        title, label = "KL per dimension", "dimension, by rank"
        return ranked_bars(title, "nats", found.tolist(), ACTIVE, label, note)

    def html(self) -> str:
        """The whole page."""
        split, found = self.headline()
        latent = found.get("latent", math.nan)
        kl, mi, active = (found.get(key, math.nan) for key in ("kl", "mi", "active_units"))
        keys = dict.fromkeys(key for figures in self.table.values() for key in figures)
        order = [
            *(key for key in FIGURES if key in keys),
            *(key for key in keys if key not in FIGURES),
        ]
        shown = [key for key in order if latent != 0 or key not in OF_THE_LATENT]
        return template().render(
            report=self,
            verdict=by_doctor(self.diagnosis)
            or verdict(kl, mi, active, latent, found.get("elbo", 0.0)),
            split=split,
            found=found,
            latent=latent,
            charts=self.charts(latent),
            figures={key: FIGURES.get(key, (key, ".4g", "")) for key in shown},
            settings=flat(self.settings),
            pairs=[(a, differences(a, shortened(b)), a == b) for a, b in self.reconstructions],
            path=repeated(self.interpolation),
        )

    def write(self, path: Path) -> None:
        """Write the page in one step: a reader sees the old file or the new one, never half."""
        # A lone surrogate, which a byte-level decoder can leave, has no UTF-8.
        page = self.html().encode("utf-8", "replace")
        write_whole(path, lambda p: p.write_bytes(page))
