"""From a finished run to a richer prior in it: what `midsentence fit-prior` does, in Python."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import fitted
from .bundle import TextVAE
from .errors import UserError
from .evaluation import evaluations, write_evaluations
from .learning import fitting
from .learning.kinds import settings_of
from .text.corpus import Corpus
from .text.store import pick
from .weights import WIDEST

SENTENCES = 100_000
"""Of the training part, that a prior is fitted to: at most so many."""


def fit_prior(
    run: str | Path,
    kind: str,
    settings: Sequence[str] = (),
    *,
    seed: int = 0,
    steps: int = fitting.STEPS,
    force: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Fit a prior of `kind` (mog, flow, diffusion, aggregate) to a finished run, into ``prior``.

    settings: ``components=100`` and the like; an aggregate has one for each sentence, or so many.
    force: replace one that is there. progress: told how many more steps are done. Returns the
    figures of `learning.fitting.gain`. Raises UserError.
    """
    run = Path(run)
    model = TextVAE.from_pretrained(run, prior="own")
    chosen = settings_of(kind, list(settings))
    if chosen.get("components", 0) > WIDEST:
        raise UserError(f"components = {chosen['components']:,}: {WIDEST:,} at most")
    fitted.vacant(run, force)
    data = Corpus.open(run / "corpus")
    train = pick(data.train, chosen["components"] if kind == "aggregate" else SENTENCES, seed)
    if kind == "aggregate":
        chosen["components"] = len(train)
    part, figures = fitting.fit_prior(
        model.vae, chosen, train, pick(data.valid, fitting.HELD, seed),
        seed=seed, steps=steps, progress=progress,
    )  # fmt: skip
    made = fitted.FittedPrior(chosen, part)
    fitted.write(run, made, replace=force, weights=model.weights)
    tables = evaluations(run)
    stale = f", {made.kind} prior"  # tables under the prior that is no more
    if any(stale in name for name in tables):
        write_evaluations(run, {k: v for k, v in tables.items() if stale not in k})
    return {"kind": made.kind, **figures}
