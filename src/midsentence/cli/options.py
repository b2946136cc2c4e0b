"""What the commands share: their options, how words are chosen, and speaking to stdout."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..errors import UserError
from ..launch import launch, started
from ..plain_json import dumps
from ..seeds import LARGEST, seed_of_part

if TYPE_CHECKING:
    from ..bundle import TextVAE
    from ..space import Outlier, Space, Written

Run = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
Input = Annotated[str, typer.Argument(help="A file of lines, or - for standard input.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST, help="The same seed gives the same text.")]
Label = Annotated[str | None, typer.Option(help="The label of the sentences, if it knows labels.")]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")]
Sources = Annotated[
    list[str], typer.Argument(help="Files, 'patterns*', - or builtin:NAME.", show_default=False)
]
OnBad = Annotated[
    str | None, typer.Option(help="Lines that can't be read: error, skip or replace.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
OwnPrior = Annotated[
    bool, typer.Option("--own-prior", help="The trained prior, not one of `fit-prior`.")
]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="Processes on this machine, a GPU or a share of the cores each."),
]
Samples = Annotated[int, typer.Option(min=1, help="Importance samples a sentence.")]


def decoding(
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest word each time.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Below 1 safer, above 1 wilder.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest words.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the words that make up this probability.")
    ] = None,
    typical: Annotated[
        float | None, typer.Option(help="Locally typical sampling's probability.")
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Beam search of this width.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens at most.")] = None,
) -> dict[str, Any]:
    """The options that were given, as keywords of `generate.Decoding`. Raises UserError."""
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "typical": typical}
    drawing = {k: v for k, v in options.items() if v is not None}
    if sum([greedy, beam is not None, bool(drawing)]) > 1:
        raise UserError("choose one of --greedy, --beam, and the sampling options")
    given: dict[str, Any] = {"greedy": True} if greedy else {"beam": beam} if beam else drawing
    return given | ({} if max_length is None else {"max_length": max_length})


def writing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `decoding`; it gets what they say as its keyword `how`."""
    extra = inspect.signature(decoding).parameters
    own = [p for name, p in inspect.signature(command).parameters.items() if name != "how"]

    @wraps(command)
    def with_options(**given: Any) -> None:
        how = decoding(**{name: given.pop(name) for name in extra})
        command(**given, how=how)

    # typer reads a command's options from its signature and annotations.
    everything = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *extra.values())]
    vars(with_options)["__signature__"] = inspect.Signature(everything)
    with_options.__annotations__ = {p.name: p.annotation for p in everything}
    return with_options


def spread(devices: int | None) -> None:
    """Run this same command line in so many processes, unless this is one of them."""
    if devices is not None and devices > 1 and started() == 1:
        raise typer.Exit(launch(devices, sys.argv[1:]))


def open_model(run: Path, own_prior: bool = True) -> "TextVAE":
    """A run's model; what has no use for a fitted prior doesn't look for one."""
    from ..bundle import TextVAE

    return TextVAE.from_pretrained(run, prior="own" if own_prior else "fitted")


def warn_unavailable(model: "TextVAE") -> None:
    """Say, on stderr, why there are figures missing under a prior without a likelihood."""
    if model.fitted is not None and model.fitted.kind == "diffusion":
        print(
            "the diffusion prior can be sampled but has no likelihood: what needs one is "
            "unavailable; --own-prior measures under the trained prior",
            file=sys.stderr,
        )


def warn_unknown(tokens: int) -> None:
    """Say, on stderr, how many tokens were scored as another."""
    if tokens:
        told = f"not in the vocabulary, or written so, and scored as <unk>: {tokens:,} token"
        print(told + "s" * (tokens != 1), file=sys.stderr)


def warn_far(space: "Space", found: "Sequence[Written | Outlier] | float") -> None:
    """Say, on stderr, which of the points asked for are far from the data."""
    shares = [found] if isinstance(found, float) else [point.beyond for point in found]
    far = [share for share in shares if space.is_far(share)]
    if far:
        count = f"{len(far)} of {len(shares)} points: " if len(shares) > 1 else ""
        print(f"{count}{space.warning(min(far))}", file=sys.stderr)


def chunks(model: "TextVAE", source: str, size: int = 256) -> Iterator[list[str]]:
    """Lines of a file or stdin, as long as the model's own may be, a few at a time, so that a pipe
    sees answers early."""
    from ..text.readers import read

    lines = (line.text for line in read(source, max_chars=model.config.corpus.max_chars))
    while part := list(islice(lines, size)):
        yield part


def seeded_chunks(
    model: "TextVAE", source: str, seed: int, size: int = 256
) -> Iterator[tuple[list[str], int]]:
    """The same, each with a seed of its own: equal lines must not become equal in every chunk."""
    for number, part in enumerate(chunks(model, source, size)):
        yield part, seed_of_part(seed, number)


def all_lines(model: "TextVAE", source: str) -> list[str]:
    return [line for part in chunks(model, source) for line in part]


def say(line: str) -> None:
    try:
        print(line)
    except BrokenPipeError:
        hang_up()


def hang_up() -> NoReturn:
    """Whoever read us (head, less) has enough. Python would complain once more while closing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def say_json(**content: Any) -> None:
    say(dumps(content, ensure_ascii=False))


def fail(message: str, code: int) -> int:
    print(f"midsentence: {message}", file=sys.stderr)
    return code


def fail_once(message: str, code: int) -> int:
    """The same of several processes, which may all have the same to say, or hear of one another's
    end: one of each machine says it, whether or not it is silent otherwise (`processes.hush`)."""
    from .. import processes

    if processes.speaks():
        print(f"midsentence: {message}", file=sys.__stderr__, flush=True)
    return code
