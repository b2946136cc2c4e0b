"""From a run to the doctor's verdict: what `midsentence doctor` does, in Python."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .bundle import TextVAE
from .fitted import FOLDER
from .measuring.diagnosis import Diagnosis, Examination, diagnose
from .measuring.doctor import examine
from .measuring.remedies import commands
from .text.corpus import Corpus
from .text.store import pick

SENTENCES = 1000
"""Of validation and of training, at most."""


@dataclass(frozen=True)
class Checkup:
    """Figures, verdict, and commands to try: they fit another prior, or train the run again with
    other settings, into the next free folder."""

    figures: Examination
    diagnosis: Diagnosis
    commands: list[str]


def doctor(
    run: Path, *, sentences: int = SENTENCES, seed: int | None = None, own_prior: bool = False
) -> Checkup:
    """A run's checkup, on at most so many sentences a part.

    A fitted prior counts as the run's, unless `own_prior`. seed: the run's own, if None is given.
    Raises UserError.
    """
    model = TextVAE.from_pretrained(run, prior="own" if own_prior else "fitted")
    return checkup(run, model, Corpus.open(run / "corpus"), sentences=sentences, seed=seed)


def checkup(
    run: Path, model: TextVAE, data: Corpus, *, sentences: int = SENTENCES, seed: int | None = None
) -> Checkup:
    """The same of a run that is open. Raises UserError for fewer than two sentences a part."""
    seed = model.config.seed if seed is None else seed
    held = [pick(store, sentences, seed) for store in (data.valid, data.train)]
    figures, tree = examine(model.vae, *held, seed=seed), model.config.model_dump()
    diagnosis = diagnose(figures, tree)
    here = run if run.name not in ("", "..") else run.resolve()  # "." has no name to change
    places = (here.with_name(f"{run.resolve().name}-{n}") for n in count(2))
    out = next(place for place in places if not place.exists())
    asked = commands(
        diagnosis, tree, str(run), str(out),
        fitted=model.fitted is not None, stale=(run / FOLDER).exists(),
    )  # fmt: skip
    return Checkup(figures, diagnosis, asked)
