"""Every command has ``--json`` with a stated shape, and docs/cli.md is what the command says of itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clients.cli import app
from clients.cli.reference import commands, page
from clients.cli.shapes import EXEMPT, SHAPES, SUMMARY
from clients.report.record import Summary

COMMANDS = dict(commands())
DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"


def options(name: str) -> set[str]:
    return {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_in_a_stated_shape_or_says_why_not(name: str) -> None:
    if name in EXEMPT:
        assert "--json" not in options(name)
        assert name not in SHAPES
        assert EXEMPT[name]
        return
    assert "--json" in options(name), f"give bilevel {name} the option JsonOption"
    assert name in SHAPES, f"state what bilevel {name} --json prints in clients/cli/shapes.py"
    assert bool(SHAPES[name].message) != bool(SHAPES[name].fields)


def test_no_shape_is_of_a_command_that_does_not_exist() -> None:
    assert set(SHAPES) | set(EXEMPT) == set(COMMANDS)


def test_a_summary_has_the_fields_that_are_documented() -> None:
    assert [field.name for field in dataclasses.fields(Summary)] == list(SUMMARY)


def test_the_page_is_current() -> None:
    assert DOCUMENT.read_text("utf-8") == page(), "`make cli-docs` rewrites docs/cli.md"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(EXEMPT)))
def test_every_command_documents_its_exit_codes(name: str) -> None:
    assert (COMMANDS[name].epilog or "").startswith("Exit codes: 0 ")


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(EXEMPT)))
def test_what_is_wrong_with_the_words_of_any_command_is_json_where_json_was_asked_for(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split(), "--json", "--no-such-option"], prog_name="bilevel")
    assert done.exit_code == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    error: dict[str, Any] = json.loads(line)["error"]
    assert error.keys() == {"kind", "message", "fields", "next_step", "exit_code"}
    assert error["kind"] == "INVALID_ARGUMENT"
    assert error["fields"][0]["field"] == "--no-such-option"
    assert error["next_step"] == f"`bilevel {name} --help` shows what it takes."
    assert error["exit_code"] == 2


def test_a_misspelt_command_is_json_too_and_names_the_nearest() -> None:
    done = CliRunner().invoke(app, ["wach", "--json"], prog_name="bilevel")
    error = json.loads(done.stderr)["error"]
    assert (done.exit_code, error["message"]) == (2, "No such command 'wach'. Did you mean 'watch'?")
