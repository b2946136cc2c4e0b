"""export: from a run to a folder to publish."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Run, say


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also the networks, for ONNX Runtime.")
    ] = False,
) -> None:
    """A folder to publish: the model, its fitted prior, config.json, and a model card.

    [bold]Examples[/bold]

      midsentence export runs/poems --out poems-vae

      midsentence export runs/poems --out poems-vae --onnx    (pip install 'midsentence\\[onnx]')

      midsentence sample poems-vae

    The corpus stays behind, but samples and the vocabulary can hold training text: read README.md
    before you publish.
    """
    from ..export import export as write

    say(str(write(run, out, onnx=onnx)))
