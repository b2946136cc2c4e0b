"""The README's tree, its commands and the public names are what the project has."""

import os
import re
from pathlib import Path

import pytest

import midsentence
from commands import check, commands

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")


def test_public_names():
    assert midsentence.__all__ == [
        "VAE", "Decoding", "Pass", "Score", "TextVAE", "UserError", "__version__", "train",
    ]  # fmt: skip
    for name in midsentence.__all__:
        assert getattr(midsentence, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = midsentence.nothing


@pytest.mark.parametrize("name", READMES)
def test_the_tree_in_the_readme_is_the_tree(name):
    text = (ROOT / name).read_text("utf-8")
    block = re.search(r"```\nsrc/midsentence/\n(.*?)```", text, re.S)
    assert block, f"{name} has no tree"
    listed, folder = set(), ""
    for line in block.group(1).splitlines():
        indent = len(line) - len(line.lstrip())
        entry = line.split()[0] if line.strip() else ""
        if entry.endswith("/"):
            folder = entry
        elif entry:
            listed.add(entry if indent == 2 else folder + entry)
    source = ROOT / "src" / "midsentence"
    held = {
        p.relative_to(source).as_posix()
        for p in source.rglob("*")
        if p.is_file() and p.suffix in (".py", ".j2") and p.name != "__init__.py"
    }
    assert listed - {"__init__.py", "recipes/*.toml"} == held


@pytest.mark.parametrize("name", READMES)
def test_commands_in_the_readme_exist(name):
    used = list(commands((ROOT / name).read_text("utf-8")))
    assert used
    for command in used:
        check(*command)


def test_scripts_can_be_run():
    """As the documents say to; what others read in has no first line that names a shell."""
    for script in (ROOT / "runs").glob("*.sh"):
        assert os.access(script, os.X_OK) == script.read_text().startswith("#!"), script.name


def test_no_file_is_long():
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 330, path


def test_the_version_to_cite_is_the_version():
    said = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert said
    assert said[1] == midsentence.__version__
