"""docs/: a page for every method, whose settings, names, files and commands exist."""

import re
from pathlib import Path

import pytest

from commands import check, commands
from midsentence import catalogue, config

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "midsentence"
METHODS = ROOT / "docs" / "methods"
PAGES = sorted(p for p in METHODS.glob("*.md") if p.name != "README.md")
EVERYWHERE = [*ROOT.glob("README*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
HEADINGS = ["Story", "Inference", "When", "Symbols", "Command", "Source"]
ROLES = ("posterior", "prior", "beta", "objective")
PARTS = [(role, kind) for role in ROLES for kind in config.tables()[role]]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def known_settings():
    """Every name that --set takes, whatever the kinds."""
    groups = catalogue.catalogue()
    kinds = {f"{group.role}.kind" for group in groups if group.kinds}
    return kinds | {setting.name for group in groups for setting in group.settings}


def settings_in(text):
    """Names in backticks that begin with a part's or a section's: `beta.over`, `prior.kind=mog`."""
    first = "|".join([*config.tables(), "corpus", "tokenizer", "head", "labels", "refine",
                      "training"])  # fmt: skip
    found = re.findall(rf"`((?:{first})\.[a-z_]+)(?:=[^`]*)?`", text)
    return [name for name in found if not name.endswith((".json", ".onnx"))]  # those are files


@pages
def test_a_page_has_its_sections_and_is_short(page):
    text = page.read_text("utf-8")
    found = re.findall(r"^## (.+)$", text, re.M)
    assert [heading for heading in found if heading != "Measured"] == HEADINGS
    assert 40 <= len(text.splitlines()) <= 90
    assert f"]({page.name})" in (METHODS / "README.md").read_text("utf-8")


@pages
def test_commands_of_a_page_can_be_pasted(page):
    used = list(commands(page.read_text("utf-8")))
    assert used
    for command in used:
        check(*command)


@pytest.mark.parametrize("page", EVERYWHERE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_files_and_links_of_a_page_exist(page):
    text = page.read_text("utf-8")
    assert set(settings_in(text)) <= known_settings()
    for recipe in re.findall(r"recipe `([\w-]+)`", text):
        assert recipe in config.recipes()
    for target in re.findall(r"\]\(([^)#]+)\)", re.sub(r"\$[^$]*\$", "", text)):
        assert "://" in target or (page.parent / target).exists(), target


@pages
def test_symbols_of_a_page_are_in_the_files_it_names(page):
    table = page.read_text("utf-8").partition("## Symbols")[2].partition("## Command")[0]
    rows = [line.rsplit("|", 3)[1:3] for line in table.splitlines() if ".py`" in line]
    assert len(rows) >= 3
    for names, files in rows:
        held = "".join((SOURCE / f).read_text("utf-8") for f in re.findall(r"`([^`]+)`", files))
        for name in re.findall(r"`-*([\w.-]+)(?:=[^`]*)?`", names):
            known = name in known_settings()
            assert known or re.search(rf"\b{name.split('.')[-1]}\b", held), f"{name} in {files}"


@pytest.mark.parametrize(("role", "kind"), PARTS)
def test_every_part_is_named_in_some_page(role, kind):
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert re.search(rf"`{kind}`|{role}\.kind={kind}\b", text)
