"""The commands that move about in a run's latent space. `cli` lists them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_options import (
    Input,
    Json,
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
    warn_far,
    warn_unavailable,
    writing,
)
from .errors import UserError
from .plain_json import dumps

if TYPE_CHECKING:
    from .space import Space, Written

Sentence = Annotated[str, typer.Argument(help="A sentence.", show_default=False)]
Name = Annotated[str | None, typer.Option(help="A direction of this run.")]
Names = Annotated[list[str], typer.Option(help="An attribute wanted; may be repeated.")]
NotNames = Annotated[list[str], typer.Option(help="The opposite wanted; may be repeated.")]


def open_space(run: Path, label: str | None = None) -> "Space":
    from .space import Space

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


def direction(
    run: Run,
    name: Annotated[str, typer.Argument(help="A word to call it by.", show_default=False)],
    from_: Annotated[str | None, typer.Option("--from", help="A file of lines.")] = None,
    to: Annotated[str | None, typer.Option(help="A file of lines of the other kind.")] = None,
    from_label: Annotated[str | None, typer.Option(help="A label of the corpus.")] = None,
    to_label: Annotated[str | None, typer.Option(help="Another label of the corpus.")] = None,
    method: Annotated[str, typer.Option(help="probe or mean.")] = "probe",
    label: Label = None,
    force: Annotated[bool, typer.Option("--force", help="Replace one of this name.")] = False,
    as_json: Json = False,
) -> None:
    """Find what separates two kinds of sentences, and save it with the run for `edit`.

    [bold]Examples[/bold]

      midsentence direction runs/poems question --from plain.txt --to questions.txt

      midsentence direction runs/reviews mood --from-label negative --to-label positive
    """
    from . import directions

    directions.vacant(run, name, force)
    space = open_space(run, label)
    found = space.direction(
        side(space, from_, from_label, "from"), side(space, to, to_label, "to"), method
    )
    folder = directions.write(run, name, found, replace=force)
    about = found.about
    if as_json:
        say(dumps({"name": name, **about, "length": float(found.vector.norm())}))
        return
    say(
        f"{folder}: {about['method']}, {about['from']:,} against {about['to']:,} sentences, "
        f"{100 * about['accuracy']:.1f} % of those held out told apart"
        if about["accuracy"] == about["accuracy"]
        else f"{folder}: {about['method']}, too few sentences to hold any out"
    )


def side(space: "Space", file: str | None, label: str | None, name: str) -> Any:
    """Sentences of one kind, from a file or by their label. Raises UserError without either."""
    if (file is None) == (label is None):
        raise UserError(f"say what the direction goes {name}: --{name} FILE or --{name}-label NAME")
    if label is not None:
        return space.labelled(label)
    return [line for part in chunks(str(file)) for line in part]


@writing
def edit(
    run: Run,
    text: Sentence,
    direction: Name = None,
    strength: Annotated[float, typer.Option(help="1: as far as the means are apart.")] = 1.0,
    toward: Names = [],  # noqa: B006
    away: NotNames = [],  # noqa: B006
    method: Annotated[str, typer.Option(help="For --toward: gradient or ode.")] = "gradient",
    near: Annotated[float, typer.Option(min=0.001, help="How firmly `gradient` stays.")] = 0.1,
    label: Label = None,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """TEXT moved along a saved direction, or toward several attributes at once.

    [bold]Examples[/bold]

      midsentence edit runs/poems "the moon is up" --direction question --strength 1.5

      midsentence edit runs/poems "the moon is up" --toward question --away sad --method ode
    """
    from . import directions

    if (direction is None) == (not toward and not away):
        raise UserError("say where to: --direction NAME, or --toward NAME and --away NAME")
    wanted = [(directions.read(run, name), True) for name in toward]
    wanted += [(directions.read(run, name), False) for name in away]
    along = None if direction is None else directions.read(run, direction)
    space = open_space(run, label)
    if along is not None:
        found = space.edit(text, along, strength, seed=seed, **how)
    else:
        found = space.toward(text, wanted, method=method, near=near, seed=seed, **how)
    tell(space, [found], jsonl)


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
    for lines in chunks(source):
        tell(space, space.denoise(lines, strength, steps, seed=seed, **how), jsonl)


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
    from .space import Space

    model = open_model(run, own_prior)
    warn_unavailable(model)
    space = Space.open(run, model=model, label=label)
    lines = [line for part in chunks(source) for line in part]
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
    lines = None if source is None else [line for part in chunks(source) for line in part]
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


COMMANDS = (analogy, neighbours, direction, edit, vary, traverse, denoise, outliers, cluster)
