"""The command line: parse, call, print. Results on stdout, everything else on stderr."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_space, cli_web
from .cli_options import (
    Json,
    OwnPrior,
    Run,
    Samples,
    Seed,
    hang_up,
    open_model,
    say,
    warn_unavailable,
)
from .cli_writing import decode, encode, interpolate, reconstruct, sample, score
from .errors import UserError
from .plain_json import dumps

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
    corpus: Annotated[str, typer.Argument(help="A file, - or builtin:NAME.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run folder to make.", show_default=False)],
    valid: Annotated[str | None, typer.Option(help="A file to validate on.")] = None,
    test: Annotated[str | None, typer.Option(help="A file to test on.")] = None,
    recipe: Annotated[str | None, typer.Option(help="See `midsentence recipes`.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="A setting, a.b=c.")] = [],  # noqa: B006
    text_field: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label_field: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes weights, order, split.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps at most.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Minutes at most.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run.")] = False,
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
    """
    named = {
        "corpus.text_field": text_field, "corpus.label_field": label_field, "seed": seed,
        "training.max_steps": max_steps, "training.max_minutes": max_minutes,
    }  # fmt: skip
    settings = [*set_, *(f"{k}={json.dumps(v)}" for k, v in named.items() if v is not None)]
    from . import console, pipeline

    show = console.Training()
    watched = cli_web.Watched(out, show) if watch else None
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
        print(f"stopped and saved. Go on with: midsentence train {corpus} --out {out} --resume",
              file=sys.stderr)  # fmt: skip
        raise typer.Exit(130)
    print(f"report     {out / 'report.html'}", file=sys.stderr)
    say(str(out))


for command in (sample, reconstruct, interpolate, encode, decode, score, *cli_space.COMMANDS):
    app.command()(command)


@app.command()
def evaluate(
    run: Run,
    source: Annotated[str, typer.Argument(help="A file, or valid / test: the run's own.")] = "test",
    samples: Samples = 500,
    seed: Seed = 0,
    as_json: Json = False,
    own_prior: OwnPrior = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also the text and the latent, on the run's corpus.")
    ] = False,
) -> None:
    """The table: importance-weighted NLL, PPL, bits a byte, KL, information, active units.

    Under the fitted prior, if there is one. With --quality a second table: diversity and novelty
    of samples, reconstructions, walks between sentences, what a probe reads off z.
    """
    from . import console, pipeline

    model = open_model(run, own_prior)
    warn_unavailable(model)
    name = pipeline.under(model, source)
    if source in ("valid", "test") and not Path(source).exists():
        store = getattr(pipeline.Corpus.open(run / "corpus"), source)
        with console.counting("evaluating", len(store)) as progress:
            found = pipeline.evaluate_store(model, store, samples, seed=seed, progress=progress)
        pipeline.keep_evaluation(run, name, found)
    else:
        found = pipeline.evaluate_file(model, source, samples, seed=seed)
    second: dict[str, float] = {}
    if quality:
        from .appraisal import appraise

        second = appraise(model, pipeline.Corpus.open(run / "corpus"), seed=seed)
    if as_json:
        say(dumps(found | ({"quality": second} if quality else {})))
        return
    console.table({name: found})
    if quality:
        console.quality(second)


@app.command("fit-prior")
def fit_prior(
    run: Run,
    kind: Annotated[str, typer.Option(help="mog, flow or diffusion.")] = "mog",
    set_: Annotated[list[str], typer.Option("--set", help="A setting of the prior, a=b.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="The same seed gives the same prior.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps at most.")] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace a fitted prior.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a richer prior to where the training sentences lie; `sample` and `evaluate` then use it.

    Encoder and decoder stay as they are. Tells how much the validation bound gains.

    [bold]Examples[/bold]

      midsentence fit-prior runs/poems --kind mog --set components=100

      midsentence fit-prior runs/poems --kind flow --set flow=maf --force

      midsentence fit-prior runs/poems --kind diffusion       samples well, has no likelihood

      midsentence sample runs/poems --own-prior               the prior it was trained with
    """
    from . import console, prior_fitting

    with console.counting("fitting", steps) as progress:
        found = prior_fitting.fit_prior(
            run, kind, set_, seed=seed, steps=steps, force=force, progress=progress
        )
    say(dumps(found)) if as_json else console.fitted(run / "prior", found)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
) -> None:
    """Runs side by side: the test table of `evaluate`, or the quick one made after training.

    Beside it the same under fitted priors, where they were evaluated.
    """
    from . import console, pipeline

    columns = {}
    for run in runs:
        found = pipeline.evaluations(run)
        if not found:
            raise UserError(f"{run} has no evaluation yet: midsentence evaluate {run}")
        name = "test" if "test" in found else next(iter(found))
        for each in (name, *(n for n in found if n.startswith(f"{name}, "))):
            columns[f"{run} ({each})"] = found[each]
    if as_json:
        say(dumps(columns))
    elif markdown:
        say(console.markdown(columns))
    else:
        console.table(columns)


@app.command()
def doctor(
    run: Run,
    sentences: Annotated[
        int, typer.Option(min=2, help="Validation and training sentences at most, each.")
    ] = 1000,
    seed: Seed = 0,
    own_prior: OwnPrior = False,
    as_json: Json = False,
) -> None:
    """What is wrong with the latent space, why, and a command that tries to mend it.

    [bold]Examples[/bold]

      midsentence doctor runs/poems

      midsentence doctor runs/poems --sentences 5000          slower, with less noise

      midsentence doctor runs/poems --json | jq .verdict

    The verdict is healthy, collapsing, collapsed, over-fitted latent, prior hole, or first words
    only. Figures are nats per sentence, on validation sentences.
    """
    from . import checkup, console

    found, diagnosis, commands = checkup.doctor(
        run, sentences=sentences, seed=seed, own_prior=own_prior
    )
    if as_json:
        say(dumps({**vars(diagnosis), "commands": commands, "figures": vars(found)}))
    else:
        console.examination(found, diagnosis, commands)


@app.command()
def report(run: Run) -> None:
    """Draw report.html of a run afresh."""
    from .pipeline import write_report

    say(str(write_report(run)))


@app.command()
def recipes(as_json: Json = False) -> None:
    """The shipped recipes, with the papers they come from."""
    from . import config

    held = {name: config.read_recipe(name) for name in config.recipes()}
    if as_json:
        say(json.dumps(held))
        return
    for name, tree in held.items():
        say(f"{name:12} {tree['about']}\n{'':12} {tree['cite']}")


@app.command()
def corpora(as_json: Json = False) -> None:
    """The corpora that are built in, for `train builtin:NAME`."""
    from .text.builtin import CORPORA

    held = {name: corpus.description for name, corpus in CORPORA.items()}
    if as_json:
        say(json.dumps(held))
        return
    for name, description in held.items():
        say(f"builtin:{name:12} {description}")


app.command()(cli_web.serve)
app.command()(cli_web.explore)


def main() -> None:
    """Run, and turn every way of ending into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        code = fail(str(error), 1)
    except ClickException as error:
        code = fail(error.format_message(), 2 if isinstance(error, UsageError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        code = fail("interrupted", 130)
    except BrokenPipeError:
        hang_up()
    sys.exit(code)


def fail(message: str, code: int) -> int:
    print(f"midsentence: {message}", file=sys.stderr)
    return code
