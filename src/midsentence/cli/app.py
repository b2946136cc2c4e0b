"""The command line: parse, call, print. Results on stdout, everything else on stderr."""

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..launch import started
from ..seeds import LARGEST
from . import directions, export, measuring, space, web
from .options import Devices, Json, OnBad, Sources, fail, fail_once, hang_up, say, spread
from .sentences import decode, encode, interpolate, reconstruct, sample, score

# typer carries a copy of click and exports only these of its errors; the first is a usage error.
UsageError: Any = typer.BadParameter.__mro__[1]
ClickException: Any = UsageError.__mro__[1]

# torch takes seconds to load, so everything that needs it is imported inside its command.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

EXAMPLES = """A latent space of sentences: train, sample, interpolate, score.

[bold]Examples[/bold]

  midsentence train poems.txt --out runs/poems            train on a file, one sentence a line

  midsentence sample runs/poems -n 10                     new sentences from the prior

  midsentence interpolate runs/poems "first" "second"     sentences on the way between two

  cat lines.txt | midsentence score runs/poems - --jsonl  log-probability of each line

  midsentence train builtin:icd10 --out runs/demo         the corpus that is built in
"""


@app.callback(help=EXAMPLES)
def root() -> None: ...


@app.command()
def train(
    corpus: Sources,
    out: Annotated[Path, typer.Option(help="The run folder to make.", show_default=False)],
    valid: Annotated[str | None, typer.Option(help="A file to validate on.")] = None,
    test: Annotated[str | None, typer.Option(help="A file to test on.")] = None,
    recipe: Annotated[str | None, typer.Option(help="See `midsentence recipes`.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="A setting, a.b=c.")] = [],  # noqa: B006
    text_field: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label_field: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Fixes weights, order, split.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps at most.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Minutes at most.")] = None,
    on_bad: OnBad = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
    devices: Devices = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Curves, samples and the map in a browser.")
    ] = False,
) -> None:
    """Train a model on one sentence a line.

    [bold]Examples[/bold]

      midsentence train poems.txt --out runs/poems --max-minutes 10

      midsentence train reviews.tsv --out runs/r --text-field 1 --label-field 0

      midsentence train ptb/train.txt --valid ptb/valid.txt --test ptb/test.txt --recipe ptb --out r

      midsentence train poems.txt --out runs/poems --set latent=16 --set decoder.kind=transformer

      midsentence train poems.txt --out runs/poems --devices 4     (several machines: torchrun)
    """
    spread(devices)
    named = {
        "corpus.text_field": text_field, "corpus.label_field": label_field, "corpus.on_bad": on_bad,
        "seed": seed,
        "training.max_steps": max_steps, "training.max_minutes": max_minutes,
    }  # fmt: skip
    said = {name: json.dumps(v, ensure_ascii=False) for name, v in named.items() if v is not None}
    settings = [*set_, *(f"{name}={value}" for name, value in said.items())]
    from .. import console, pipeline, processes

    show = console.Training()
    watched = web.Watched(out, show) if watch and processes.first() else None
    try:
        model = pipeline.train(
            corpus, out, recipe=recipe, file=config, settings=settings, valid=valid, test=test,
            resume=resume, listener=watched or show,
        )  # fmt: skip
    finally:
        show.stop()
        if watched is not None:
            watched.stop()
    if model is None:
        more = [word for setting in settings for word in ("--set", setting)] if resume else []
        again = " ".join(map(quote, [*corpus, "--out", str(out), *more]))
        print(f"stopped and saved. Go on with: midsentence train {again} --resume",
              file=sys.stderr)  # fmt: skip
        raise typer.Exit(STOPPED)
    print(f"report     {out / 'report.html'}", file=sys.stderr)
    say(str(out))


WRITING = (sample, reconstruct, interpolate, encode, decode, score)
for command in (*WRITING, *space.COMMANDS, *directions.COMMANDS, *measuring.COMMANDS):
    app.command()(command)


@app.command()
def recipes(as_json: Json = False) -> None:
    """The shipped recipes, with the papers they come from."""
    from .. import config

    held = {name: config.read_recipe(name) for name in config.recipes()}
    if as_json:
        say(json.dumps(held))
        return
    for name, tree in held.items():
        say(f"{name:12} {tree['about']}\n{'':12} {tree['cite']}")


@app.command()
def settings(
    name: Annotated[str, typer.Argument(help="A section, a part, or one setting.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="As docs/settings.md.")] = False,
    as_json: Json = False,
) -> None:
    """What --set and a file of settings may say, with the defaults.

    [bold]Examples[/bold]

      midsentence settings training

      midsentence settings decoder.kind=transformer

      midsentence settings training.patience
    """
    from .. import catalogue

    groups = catalogue.about(name)
    if as_json:
        say(json.dumps([asdict(group) for group in groups]))
    else:
        say(catalogue.as_markdown(groups) if markdown else catalogue.as_text(groups))


@app.command()
def corpora(as_json: Json = False) -> None:
    """The corpora that are built in, for `train builtin:NAME`."""
    from ..text.builtin import CORPORA

    held = {name: corpus.description for name, corpus in CORPORA.items()}
    if as_json:
        say(json.dumps(held))
        return
    for name, description in held.items():
        say(f"builtin:{name:12} {description}")


for command in (web.serve, web.explore, export.export):
    app.command()(command)


STOPPED = 131
"""A training's own way to end at Ctrl-C, which has said so."""


def main() -> None:
    """Run, and turn every way of ending into one line and an exit code."""
    tell = fail
    if isinstance(sys.stdout, TextIOWrapper):  # what its encoding lacks is no reason to stop
        sys.stdout.reconfigure(errors="replace")
    try:
        with ExitStack() as stack:
            if started() > 1:
                from .. import processes

                processes.join()
                processes.hush()
                tell = fail_once
                stack.enter_context(processes.guarded())
            code = app(standalone_mode=False)
            if code == 130:  # Ctrl-C; typer keeps it from us
                tell("interrupted", code)
            code = 130 if code == STOPPED else code
            if started() > 1:
                processes.leave()
        if sys.stdout is not None:  # closed by who called
            sys.stdout.flush()
    except UserError as error:
        code = tell(str(error), 1)
    except ClickException as error:
        code = tell(error.format_message(), 2 if isinstance(error, UsageError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        code = tell("interrupted", 130)
    except BrokenPipeError:
        hang_up()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        code = tell("that needs more memory than there is: ask for less, or a smaller model", 1)
    except OSError as error:
        where = error.filename or "standard output or a file"
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError:  # what it could not take is still in it: Python would complain once more
            where = "standard output"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = tell(f"{where}: {error.strerror or error}", 1)
    sys.exit(code)
