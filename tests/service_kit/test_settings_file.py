"""Settings from a file: the environment wins, and every slip is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.cli import app
from service_kit.errors import InvalidArgument
from service_kit.settings import ModelSettings
from service_kit.settings_file import apply_config_file, config_path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def environment(file: Path, **more: str) -> dict[str, str]:
    return {"BILEVEL_CONFIG": str(file), **more}


def test_the_file_gives_what_the_environment_does_not(file: Path) -> None:
    file.write_text('BILEVEL_MODEL = "from-file"\nBILEVEL_MODEL_TIMEOUT = 2.5\nBILEVEL_INSECURE = true\n')
    variables = environment(file, BILEVEL_MODEL="from-environment", BILEVEL_INSECURE="")
    assert apply_config_file(variables) == {"BILEVEL_MODEL_TIMEOUT", "BILEVEL_INSECURE"}
    assert variables["BILEVEL_MODEL"] == "from-environment"
    assert (variables["BILEVEL_MODEL_TIMEOUT"], variables["BILEVEL_INSECURE"]) == ("2.5", "1")


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    variables = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config_path(variables) == tmp_path / "bilevel" / "config.toml"
    assert apply_config_file(variables) == frozenset()
    assert variables == {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('BILEVEL_MODLE = "x"', "BILEVEL_MODLE: is not a setting; did you mean BILEVEL_MODEL"),
        ("bilevel_model = 'x'", "did you mean BILEVEL_MODEL"),
        ("colour = 'red'", "colour: is not a setting"),
        ('BILEVEL_CONFIG = "other.toml"', "BILEVEL_CONFIG: belongs in the environment only"),
        ("BILEVEL_MODEL = ['a']", "BILEVEL_MODEL: must be a text, a number, true or false"),
        ("[BILEVEL_MODEL]", "must be a text"),
        ("BILEVEL_MODEL", "must be a TOML file"),
    ],
)
def test_a_slip_in_the_file_is_named(content: str, complaint: str, file: Path) -> None:
    file.write_text(content)
    with pytest.raises(InvalidArgument, match=complaint):
        apply_config_file(environment(file))


def test_a_named_file_that_is_missing_or_unreadable_is_an_error(file: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is none"):
        apply_config_file(environment(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgument, match="must be UTF-8 text"):
        apply_config_file(environment(file))
    with pytest.raises(InvalidArgument, match="BILEVEL_CONFIG: must name a plain file; /dev/zero is none"):
        apply_config_file(environment(Path("/dev/zero")))


def test_settings_take_what_the_file_gave_and_show_says_where_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('OPENAI_API_KEY = "sk-never-shown"\nBILEVEL_MODEL = "from-file"\n')
    for name in ("OPENAI_API_KEY", "BILEVEL_MODEL", "OPENAI_BASE_URL", "BILEVEL_DATABASE"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
    monkeypatch.setenv("BILEVEL_CONFIG", str(file))
    monkeypatch.setenv("BILEVEL_DATABASE", "postgresql://me:never-shown@db/x")
    done = CliRunner().invoke(app, ["config", "show", "--json"])
    assert done.exit_code == 0, done.output
    shown = {setting["name"]: setting for setting in json.loads(done.stdout)}
    assert (shown["BILEVEL_MODEL"]["value"], shown["BILEVEL_MODEL"]["origin"]) == ("from-file", "file")
    assert (shown["OPENAI_API_KEY"]["value"], shown["OPENAI_API_KEY"]["origin"]) == ("(hidden)", "file")
    assert shown["BILEVEL_DATABASE"]["value"] == "postgresql://me:***@db/x"
    assert shown["BILEVEL_MODEL_RETRIES"]["origin"] == "default"
    assert "never-shown" not in done.output
    assert ModelSettings.load().model == "from-file"


def test_a_wrong_file_ends_a_command_with_one_message(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("colour = 'red'")
    monkeypatch.setenv("BILEVEL_CONFIG", str(file))
    done = CliRunner().invoke(app, ["config", "show"])
    assert done.exit_code == 2
    assert "colour: is not a setting" in done.stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("colour = 'red'", "is not a setting"),
        ("[BILEVEL_MODEL]\nname = 'x'", "must be a text"),
        ("BILEVEL_MODEL", "must be a TOML file"),
        (None, "there is none at"),
    ],
)
def test_a_wrong_file_is_one_line_of_json_for_machines(
    content: str | None, problem: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("BILEVEL_CONFIG", str(file))
    done = CliRunner().invoke(app, ["runs", "--json"])
    error = json.loads(done.stderr)["error"]
    assert (done.stdout, done.exit_code, error["kind"], error["exit_code"]) == ("", 2, "INVALID_ARGUMENT", 2)
    assert problem in error["fields"][0]["problem"]
    assert error["next_step"]


def test_the_doctor_finds_a_wrong_file_and_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("colour = 'red'")
    monkeypatch.setenv("BILEVEL_CONFIG", str(file))
    done = CliRunner().invoke(app, ["doctor", "--json", "--inner", "127.0.0.1:1", "--outer", "127.0.0.1:1"])
    findings = json.loads(done.stdout)
    assert done.exit_code == 1
    assert any(f["subject"] == "settings" and "colour: is not a setting" in f["text"] for f in findings)
    assert {finding["subject"] for finding in findings} > {"settings", "sandbox", "clock"}


def test_a_wrong_file_keeps_nobody_from_the_help(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_CONFIG", str(file))
    assert CliRunner().invoke(app, ["runs", "--help"]).exit_code == 0
