"""The commands about directions in a run's latent space: found once, then followed."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from ..plain_json import dumps
from .options import Json, Jsonl, Label, Run, Seed, all_lines, say, writing
from .space import Sentence, open_space, tell

if TYPE_CHECKING:
    from ..space import Space

Name = Annotated[str | None, typer.Option(help="A direction of this run.")]
Names = Annotated[list[str], typer.Option(help="An attribute wanted; may be repeated.")]
NotNames = Annotated[list[str], typer.Option(help="The opposite wanted; may be repeated.")]


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
    from .. import directions

    directions.vacant(run, name, force)
    space = open_space(run, label)
    found = space.direction(
        side(space, from_, from_label, "from"), side(space, to, to_label, "to"), method
    )
    folder = directions.write(run, name, found, replace=force, weights=space.model.weights)
    about = found.about
    if about["accuracy"] <= directions.guessed(about) < 1:
        print("z does not tell the two apart better than a coin might: edits along it may change "
              "something else", file=sys.stderr)  # fmt: skip
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
    return all_lines(space.model, str(file))


def given(**options: Any) -> dict[str, Any]:
    """Those that were said; `Space` knows what the others are by default."""
    return {name: value for name, value in options.items() if value is not None}


@writing
def edit(
    run: Run,
    text: Sentence,
    direction: Name = None,
    strength: Annotated[
        float | None,
        typer.Option(help="For --direction; 1, the default: as far as the means are apart."),
    ] = None,
    toward: Names = [],  # noqa: B006
    away: NotNames = [],  # noqa: B006
    method: Annotated[
        str | None, typer.Option(help="For --toward: gradient (the default) or ode.")
    ] = None,
    near: Annotated[
        float | None, typer.Option(min=0.001, help="How firmly `gradient` stays; 0.1 by default.")
    ] = None,
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
    from .. import directions

    if (direction is None) == (not toward and not away):
        raise UserError("say where to: --direction NAME, or --toward NAME and --away NAME")
    if direction is None and strength is not None:
        raise UserError("--strength is for --direction; --toward has --near")
    if direction is not None and (method, near) != (None, None):
        raise UserError("--method and --near are for --toward; --direction has --strength")
    if method == "ode" and near is not None:
        raise UserError("--near is for --method gradient; ode has no such thing")
    wanted = [(directions.read(run, name), True) for name in toward]
    wanted += [(directions.read(run, name), False) for name in away]
    along = None if direction is None else directions.read(run, direction)
    space = open_space(run, label)
    if along is not None:
        found = space.edit(text, along, **given(strength=strength), seed=seed, **how)
    else:
        way = given(method=method, near=near)
        found = space.toward(text, wanted, **way, seed=seed, **how)
    tell(space, [found], jsonl)


COMMANDS = (direction, edit)
