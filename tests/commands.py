"""Commands in the documentation, read as the command line reads them."""

import re
import shlex

import typer

from midsentence import assembly, cli, config

COMMANDS = typer.main.get_command(cli.app).commands
VOCAB = 20


def commands(text):
    """(name, its options) of every midsentence command in the shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = re.findall(r"^(?:.*\| )?midsentence (.+)$", "".join(blocks), re.M)
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        assert name in COMMANDS, f"midsentence {line}"
        yield name, COMMANDS[name].make_context(name, arguments).params


def check(name, options):
    """Settings and recipes are there, and what `train` is asked for can be assembled."""
    if name == "train":
        settings = config.compose(options["recipe"], options["config"], options["set_"])
        assembly.assemble(settings, VOCAB)
    elif name == "fit-prior":
        from midsentence.learning.kinds import settings_of

        settings_of(options["kind"], options["set_"])
    else:
        assert "set_" not in options
