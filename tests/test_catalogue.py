"""`midsentence settings`: all that can be set, with what it is."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from midsentence import catalogue, config
from midsentence.cli import app
from midsentence.errors import UserError
from midsentence.learning import kinds

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
GROUPS = catalogue.catalogue()


def test_every_setting_says_what_it_is():
    for group in GROUPS:
        assert group.about or not group.settings, group.title
        for setting in group.settings:
            assert setting.about, f"{setting.name} of {group.title}: write it in the docstring"


def test_none_is_missing_and_defaults_are_those_of_a_run():
    """Held against what `compose` fills in, kind by kind."""

    def check(made, section, found):
        assert set(found) == set(made)
        for name, default in made.items():
            shown = "unset" if default is None else default
            assert found[name] == (shown if isinstance(shown, str) else json.dumps(shown)), section

    made = config.compose().model_dump()
    for group in GROUPS:
        found = {s.name.removeprefix(f"{group.role}."): s.default for s in group.settings}
        if group.kinds:
            for kind in group.kinds:
                if group.role == catalogue.FITTED:
                    whole = kinds.settings_of(kind, [])
                else:
                    whole = config.part(group.role, config.tables()[group.role], {"kind": kind}, [])
                assert whole.pop("kind") == kind
                check(whole, group.title, found)
        else:
            check(made[group.role] if group.role else {k: made[k] for k in found}, "", found)
    roles = {g.role for g in GROUPS[1:] if g.role != catalogue.FITTED}
    assert roles | {s.name for s in GROUPS[0].settings} == set(made)
    assert {g.kinds[0] for g in GROUPS if g.role == catalogue.FITTED} == set(kinds.PARTS)


def test_a_docstring_is_taken_apart():
    story, said = catalogue.explained(
        """What it is, see name: not.

        A word. width: how ``wide``, a: b. Raises UserError for less.
        low, high: bounds; other: not a setting.

        - one: of a list
        """,
        ("width", "low", "high"),
    )
    assert story == "What it is, see name: not.\n\nA word.\n\n- one: of a list"
    assert said == {"width": "how `wide`, a: b.", "low": (both := "bounds; other: not a setting."),
                    "high": both}  # fmt: skip


def test_one_is_found_by_its_name():
    (only,) = catalogue.about("training.patience")
    assert [s.name for s in only.settings] == ["training.patience"]
    assert {g.kinds for g in catalogue.about("decoder.heads")} == {("transformer",)}
    assert [g.title for g in catalogue.about("head")] == ["head"]
    assert len(catalogue.about("decoder")) > 1
    assert [g.title for g in catalogue.about("decoder.kind=gru")] == ["decoder.kind=lstm | gru"]
    assert len(catalogue.about("latent")[0].settings) == 1
    (mixture,) = catalogue.about("fit-prior --kind mog")
    assert [(s.name, s.default) for s in mixture.settings] == [("components", "64")]
    with pytest.raises(UserError, match=r"no setting 'training.patince'.*'training.patience'"):
        catalogue.about("training.patince")


def test_the_command():
    run = CliRunner().invoke(app, ["settings", "beta.over"])
    assert run.exit_code == 0
    assert "beta.kind=linear" in run.stdout
    assert "  beta.over = 0.3\n      the part of the run" in run.stdout
    found = json.loads(CliRunner().invoke(app, ["settings", "tokenizer", "--json"]).stdout)
    assert found[0]["settings"][0]["name"] == "tokenizer.kind"


def test_the_page_is_what_the_command_makes():
    """Else: midsentence settings --markdown > docs/settings.md"""
    assert PAGE.read_text("utf-8") == catalogue.as_markdown(GROUPS) + "\n"
