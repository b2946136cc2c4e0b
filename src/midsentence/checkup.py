"""From a run to the doctor's verdict: what `midsentence doctor` does, in Python."""

from itertools import count
from pathlib import Path

from .bundle import TextVAE
from .measuring.diagnosis import Diagnosis, Examination, diagnose
from .measuring.doctor import examine
from .measuring.remedies import commands
from .text.corpus import Corpus
from .text.store import pick


def doctor(
    run: Path, *, sentences: int = 1000, seed: int = 0, own_prior: bool = False
) -> tuple[Examination, Diagnosis, list[str]]:
    """(figures, verdict, commands to try) of a run, on at most so many sentences a part.

    A fitted prior counts as the run's, unless `own_prior`. The commands train the run again with
    other settings, into the next free folder. Raises UserError.
    """
    model = TextVAE.from_pretrained(run, prior="own" if own_prior else "fitted")
    data = Corpus.open(run / "corpus")
    held = [pick(store, sentences, seed) for store in (data.valid, data.train)]
    found, tree = examine(model.vae, *held, seed=seed), model.config.model_dump()
    diagnosis = diagnose(found, tree)
    here = run if run.name not in ("", "..") else run.resolve()  # "." has no name to change
    places = (here.with_name(f"{run.resolve().name}-{n}") for n in count(2))
    out = next(place for place in places if not place.exists())
    return found, diagnosis, commands(diagnosis, tree, str(run), str(out), model.fitted is not None)
