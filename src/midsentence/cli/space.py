"""The commands that move about in a run's latent space. `app` lists them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Input,
    Jsonl,
    Label,
    OwnPrior,
    Run,
    Samples,
    Seed,
    all_lines,
    open_model,
    say,
    say_json,
    seeded_chunks,
    warn_far,
    warn_unavailable,
    writing,
)

if TYPE_CHECKING:
    from ..space import Space, Written

Sentence = Annotated[str, typer.Argument(help="A sentence.", show_default=False)]


def open_space(run: Path, label: str | None = None) -> "Space":
    from ..space import Space

    return Space.open(run, label=label)


def tell(space: "Space", found: Sequence["Written"], jsonl: bool, **more: Any) -> None:
    """Sentences on stdout, one a line, and on stderr whether any is far from the data."""
    warn_far(space, found)
    for w in found:
        say_json(**more, text=w.text, beyond=w.beyond, far=w.far) if jsonl else say(w.text)


@writing
def analogy(
    run: Run,
    a: Sentence,
    b: Sentence,
    c: Sentence,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """A is to B as C is to what? The sentence at z(C) + z(B) - z(A).

    [bold]Example[/bold]

      midsentence analogy runs/poems "he sings" "she sings" "he has a dog"
    """
    space = open_space(run, label)
    tell(space, [space.analogy(a, b, c, seed=seed, **how)], jsonl)


def neighbours(
    run: Run,
    text: Sentence,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    label: Label = None,
    jsonl: Jsonl = False,
) -> None:
    """The training sentences whose posterior means are nearest to TEXT's, exactly.

    [bold]Example[/bold]

      midsentence neighbours runs/poems "the moon is up" -n 5
    """
    space = open_space(run, label)
    z = space.at(text)
    share = float(space.beyond(z[None])[0])
    warn_far(space, share)
    for found in space.neighbours(z, n):
        say_json(**asdict(found), beyond=share, far=space.is_far(share)) if jsonl else say(
            f"{found.distance:.4f}  {found.text}"
        )


@writing
def vary(
    run: Run,
    text: Sentence,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 8,
    radius: Annotated[float, typer.Option(min=0, help="In posterior standard deviations.")] = 1.0,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Sentences about TEXT: its posterior mean with noise.

    [bold]Example[/bold]

      midsentence vary runs/poems "the moon is up" -n 8 --radius 1.5
    """
    space = open_space(run, label)
    tell(space, space.vary(text, n, radius, seed=seed, **how), jsonl)


@writing
def traverse(
    run: Run,
    text: Sentence,
    n: Annotated[int, typer.Option("-n", min=1, help="How many dimensions.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Points on each.")] = 5,
    span: Annotated[float, typer.Option(help="Standard deviations to either side.")] = 2.0,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """TEXT with one of the most active dimensions at a time taken from low to high.

    [bold]Example[/bold]

      midsentence traverse runs/poems "the moon is up" -n 4 --steps 7
    """
    space = open_space(run, label)
    for dimension, found in space.traverse(text, n, steps, span, seed=seed, **how).items():
        if not jsonl:
            say(f"dimension {dimension}")
        tell(space, found, jsonl, dimension=dimension)


@writing
def denoise(
    run: Run,
    source: Input = "-",
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0: plain reconstruction, 1: a whole mean shift.")
    ] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of mean shift.")] = 1,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Each line drawn toward where the training sentences are dense, and written anew.

    [bold]Example[/bold]

      cat typos.txt | midsentence denoise runs/poems - --strength 0.3
    """
    space = open_space(run, label)
    for lines, own in seeded_chunks(space.model, source, seed):
        tell(space, space.denoise(lines, strength, steps, seed=own, **how), jsonl)


def outliers(
    run: Run,
    source: Input = "-",
    by: Annotated[str, typer.Option(help="nll (a token) or distance (from the data).")] = "nll",
    n: Annotated[int, typer.Option("-n", min=1, help="How many are shown.")] = 20,
    samples: Samples = 50,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    own_prior: OwnPrior = False,
) -> None:
    """The strangest lines of a file: least probable a token, or farthest from the data.

    [bold]Examples[/bold]

      midsentence outliers runs/poems lines.txt -n 5

      midsentence outliers runs/poems lines.txt --by distance --jsonl
    """
    from ..space import Space

    model = open_model(run, own_prior)
    warn_unavailable(model)
    space = Space.open(run, model=model, label=label)
    lines = all_lines(model, source)
    found = space.outliers(lines, by=by, samples=samples, seed=seed)
    warn_far(space, found)
    if not jsonl:
        say("nll\ttokens\tdistance\tbeyond\ttext")
    for o in found[:n]:
        say_json(**asdict(o)) if jsonl else say(
            f"{o.nll:.4f}\t{o.tokens}\t{o.distance:.4f}\t{o.beyond:.4f}\t{o.text}"
        )


@writing
def cluster(
    run: Run,
    source: Annotated[str | None, typer.Argument(help="A file or -; else the corpus.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many clusters.")] = 8,
    examples: Annotated[int, typer.Option(min=1, help="Sentences shown of each.")] = 3,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """k-means of the run's training sentences, or of a file's lines, with typical sentences.

    [bold]Examples[/bold]

      midsentence cluster runs/poems -k 12

      midsentence cluster runs/poems lines.txt -k 4 --jsonl
    """
    space = open_space(run, label)
    lines = None if source is None else all_lines(space.model, source)
    found = space.cluster(k, lines, examples=examples, seed=seed, **how)
    warn_far(space, [c.centre for c in found])
    for c in found:
        if jsonl:
            say_json(size=c.size, centre=c.centre.text, examples=c.examples,
                     beyond=c.centre.beyond, far=c.centre.far)  # fmt: skip
        else:
            say(f"{c.size:7,}  {c.centre.text}")
            for example in c.examples:
                say(f"{'':9}  {example}")


COMMANDS = (analogy, neighbours, vary, traverse, denoise, outliers, cluster)
