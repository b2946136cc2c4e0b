"""The command line: parse, call, print. Results on stdout, everything else on stderr."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_options import (
    Input,
    Json,
    Jsonl,
    Run,
    Samples,
    Seed,
    chunks,
    hang_up,
    open_model,
    say,
    say_json,
    writing,
)
from .errors import UserError

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
    try:
        model = pipeline.train(
            corpus, out, recipe=recipe, file=config, settings=settings, valid=valid, test=test,
            resume=resume, listener=show,
        )  # fmt: skip
    finally:
        show.stop()
    if model is None:
        print(f"stopped and saved. Go on with: midsentence train {corpus} --out {out} --resume",
              file=sys.stderr)  # fmt: skip
        raise typer.Exit(130)
    print(f"report     {out / 'report.html'}", file=sys.stderr)
    say(str(out))


@app.command()
@writing
def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """New sentences: z from the prior, then words drawn from the model.

    Without options the draw is the model's own distribution. For safer text: --temperature 0.7 or
    --top-p 0.9; for one typical sentence a latent: --greedy or --beam 5.
    """
    for line in open_model(run).sample(n, seed=seed, **how):
        say_json(text=line) if jsonl else say(line)


@app.command()
@writing
def reconstruct(
    run: Run,
    source: Input = "-",
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Each line through its posterior mean and back (greedily unless told otherwise)."""
    model = open_model(run)
    for lines in chunks(source):
        for line, back in zip(lines, model.reconstruct(lines, seed=seed, **how), strict=True):
            say_json(text=line, reconstruction=back) if jsonl else say(back)


@app.command()
@writing
def interpolate(
    run: Run,
    a: Annotated[str, typer.Argument(help="The first sentence.", show_default=False)],
    b: Annotated[str, typer.Argument(help="The second sentence.", show_default=False)],
    steps: Annotated[int, typer.Option(min=2, help="Points, both ends included.")] = 7,
    path: Annotated[str, typer.Option(help="linear or spherical.")] = "linear",
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Sentences on the way from A to B. A neighbour that repeats is shown as "..."."""
    lines = open_model(run).interpolate(a, b, steps, path=path, seed=seed, **how)
    for place, line in enumerate(lines):
        same = place > 0 and line == lines[place - 1]
        t = round(place / (steps - 1), 4)
        say_json(t=t, text=line, repeated=same) if jsonl else say(
            f"{t:.2f}  {'...' if same else line}"
        )


@app.command()
def encode(
    run: Run,
    source: Input = "-",
    npy: Annotated[Path | None, typer.Option(help="Write an (N, D) array here.")] = None,
) -> None:
    """Posterior means, as JSON lines {"text", "z"} or one .npy array."""
    import numpy as np

    model = open_model(run)
    if npy and npy.exists():
        raise UserError(f"{npy} exists: choose another name for --npy")
    arrays = []
    for lines in chunks(source):
        z = model.encode(lines)
        if npy:
            arrays.append(z.numpy())
            continue
        for line, row in zip(lines, z.tolist(), strict=True):
            say_json(text=line, z=[round(v, 6) for v in row])
    if npy:
        with npy.open("wb") as file:
            np.save(file, np.concatenate(arrays), allow_pickle=False)


@app.command()
@writing
def decode(
    run: Run,
    source: Input = "-",
    seed: Seed = 0,
    jsonl: Jsonl = False,
    *,
    how: dict[str, Any],
) -> None:
    """Sentences for latents, JSON lines or .npy as `encode` writes them (greedily by default)."""
    from .latent import read_latents

    model = open_model(run)
    for line in model.decode(read_latents(source), seed=seed, **how or {"greedy": True}):
        say_json(text=line) if jsonl else say(line)


@app.command()
def score(
    run: Run, source: Input = "-", samples: Samples = 500, seed: Seed = 0, jsonl: Jsonl = False
) -> None:
    """log p(x) of each line in nats with its standard error, KL, tokens and bytes."""
    from dataclasses import asdict

    model = open_model(run)
    if not jsonl:
        say("log_px\tstderr\tkl\ttokens\tbytes\ttext")
    for lines in chunks(source, 64):
        for s in model.score(lines, samples, seed=seed):
            say_json(**asdict(s)) if jsonl else say(
                f"{s.log_px:.4f}\t{s.stderr:.4f}\t{s.kl:.4f}\t{s.tokens}\t{s.bytes}\t{s.text}"
            )


@app.command()
def evaluate(
    run: Run,
    source: Annotated[str, typer.Argument(help="A file, or valid / test: the run's own.")] = "test",
    samples: Samples = 500,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The table: importance-weighted NLL, PPL, bits a byte, KL, information, active units."""
    from . import console, pipeline

    model = open_model(run)
    if source in ("valid", "test") and not Path(source).exists():
        store = getattr(pipeline.Corpus.open(run / "corpus"), source)
        with console.counting("evaluating", len(store)) as progress:
            found = pipeline.evaluate_store(model, store, samples, seed=seed, progress=progress)
        pipeline.keep_evaluation(run, source, found)
    else:
        found = pipeline.evaluate_file(model, source, samples, seed=seed)
    say(json.dumps(found)) if as_json else console.table({source: found})


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
) -> None:
    """Runs side by side: the test table of `evaluate`, or the quick one made after training."""
    from . import console, pipeline

    columns = {}
    for run in runs:
        found = pipeline.evaluations(run)
        if not found:
            raise UserError(f"{run} has no evaluation yet: midsentence evaluate {run}")
        name = "test" if "test" in found else next(iter(found))
        columns[f"{run} ({name})"] = found[name]
    if as_json:
        say(json.dumps(columns))
    elif markdown:
        say(console.markdown(columns))
    else:
        console.table(columns)


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
