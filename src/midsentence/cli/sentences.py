"""The commands that read and write sentences with a trained model. `app` lists them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .options import (
    Devices,
    Input,
    Jsonl,
    Label,
    OwnPrior,
    Run,
    Samples,
    Seed,
    chunks,
    open_model,
    say,
    say_json,
    seeded_chunks,
    spread,
    warn_far,
    warn_unavailable,
    warn_unknown,
    writing,
)


@writing
def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    own_prior: OwnPrior = False,
    devices: Devices = None,
    *,
    how: dict[str, Any],
) -> None:
    """New sentences: z from the prior (the fitted one, if any), then words drawn from the model.

    Without options the draw is the model's own distribution. For safer text: --temperature 0.7 or
    --top-p 0.9; for one typical sentence a latent: --greedy or --beam 5.
    """
    spread(devices)
    for line in open_model(run, own_prior).samples(n, label=label, seed=seed, **how):
        say_json(text=line) if jsonl else say(line)


@writing
def reconstruct(
    run: Run,
    source: Input = "-",
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Each line through its posterior mean and back (greedily unless told otherwise)."""
    model = open_model(run)
    for lines, own in seeded_chunks(model, source, seed):
        written = model.reconstruct(lines, label=label, seed=own, **how)
        for line, back in zip(lines, written, strict=True):
            say_json(text=line, reconstruction=back) if jsonl else say(back)


@writing
def interpolate(
    run: Run,
    a: Annotated[str, typer.Argument(help="The first sentence.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The second sentence.", show_default=False)],
    steps: Annotated[int, typer.Option(min=2, help="Points, both ends included.")] = 7,
    path: Annotated[str, typer.Option(help="linear, spherical or density.")] = "linear",
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Sentences on the way from A to B. A neighbour that repeats is shown as "...".

    --path density goes where the training sentences are dense.
    """
    model, points = open_model(run), None
    if path == "density" or (run / "corpus").is_dir():
        from ..space import Space

        space = Space.open(run, model=model, label=label)
        points = space.interpolate(a, b, steps, path=path, seed=seed, **how)
        warn_far(space, points)
        lines = [point.text for point in points]
    else:  # a model without its corpus: nothing to be far from
        lines = model.interpolate(a, b, steps, path=path, label=label, seed=seed, **how)
    for place, line in enumerate(lines):
        same = place > 0 and line == lines[place - 1]
        t = round(place / (steps - 1), 4)
        more = {"beyond": points[place].beyond, "far": points[place].far} if points else {}
        say_json(t=t, text=line, repeated=same, **more) if jsonl else say(
            f"{t:.2f}  {'...' if same else line}"
        )


def encode(
    run: Run,
    source: Input = "-",
    label: Label = None,
    npy: Annotated[Path | None, typer.Option(help="Write an (N, D) array here.")] = None,
) -> None:
    """Posterior means, as JSON lines {"text", "z"} or one .npy array."""
    import numpy as np

    from ..writing import clean, write_whole

    model = open_model(run)
    if npy and npy.exists():
        raise UserError(f"{npy} exists: choose another name for --npy")
    if npy and not npy.parent.is_dir():
        raise UserError(f"{npy.parent} is no folder: make it first")
    if npy:
        clean(npy.parent, npy.name)  # of one that was killed
    arrays = []
    for lines in chunks(model, source):
        z = model.encode(lines, label=label)
        if npy:
            arrays.append(z.numpy())
            continue
        for line, row in zip(lines, z.tolist(), strict=True):
            say_json(text=line, z=[round(v, 6) for v in row])
    if npy:

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, np.concatenate(arrays), allow_pickle=False)

        write_whole(npy, save)


@writing
def decode(
    run: Run,
    source: Input = "-",
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Sentences for latents, JSON lines or .npy as `encode` writes them (greedily by default)."""
    from ..latent import read_latents

    model = open_model(run)
    for line in model.decode(read_latents(source), label=label, seed=seed, **how):
        say_json(text=line) if jsonl else say(line)


SCORED = "log_px\tstderr\tkl\ttokens\tbytes\ttext"


def score(
    run: Run,
    source: Input = "-",
    samples: Samples = 500,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    own_prior: OwnPrior = False,
) -> None:
    """log p(x) of each line in nats with its standard error, KL, tokens and bytes."""
    from dataclasses import asdict

    model = open_model(run, own_prior)
    warn_unavailable(model)
    header, unknown = not jsonl, 0
    for lines, own in seeded_chunks(model, source, seed, 64):
        scores = model.score(lines, samples, label=label, seed=own)
        unknown += sum(s.unknown for s in scores)
        if header:
            say(SCORED)
            header = False
        for s in scores:
            say_json(**asdict(s)) if jsonl else say(
                f"{s.log_px:.4f}\t{s.stderr:.4f}\t{s.kl:.4f}\t{s.tokens}\t{s.bytes}\t{s.text}"
            )
    if header:
        say(SCORED)
    warn_unknown(unknown)
