"""Files and folders that a person names: the same mistake has the same exit code, a name and a next step everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clients.cli import app
from clients.report import write_report
from service_kit.errors import InvalidArgument
from service_kit.given_files import read_given
from service_kit.security.channels import ChannelSecurity
from service_kit.server import ServerSettings


def refusal(*arguments: str, **environment: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    error: dict[str, Any] = json.loads(done.stderr)["error"]
    assert (done.stdout, done.exit_code, error["kind"]) == ("", 2, "INVALID_ARGUMENT"), done.stderr
    assert error["next_step"], error
    assert "Errno" not in str(error)
    return error


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("mechanisms", "check", "{}"), "FILE"),
        (("mechanisms", "install", "r", "{}"), "FILE"),
        (("mechanisms", "check", __file__, "--trace", "{}"), "--trace"),
        (("lessons", "import", "{}"), "FILE"),
        (("library", "import", "{}"), "FILE"),
        (("tokens", "list", "--file", "{}"), "--file"),
    ],
)
@pytest.mark.parametrize(
    ("file", "problem"),
    [("/dev/zero", "must name a plain file"), ("/nonexistent/x", "no such file"), ("/", "is a directory")],
)
def test_a_file_to_read_is_a_plain_one(arguments: tuple[str, ...], field: str, file: str, problem: str) -> None:
    [said] = refusal(*(argument.format(file) for argument in arguments))["fields"]
    assert said["field"] == field
    assert problem in said["problem"]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("tokens", "add", "me", "--role", "read", "--file", "{}/tokens.toml"), "--file"),
        (("certs", "--out", "{}/certs"), "--out"),
    ],
)
def test_a_place_to_write_must_take_it(arguments: tuple[str, ...], field: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    [said] = refusal(*(argument.format(blocked) for argument in arguments))["fields"]
    assert said["field"] == field
    assert "must be a place that can be written" in said["problem"]
    with pytest.raises(InvalidArgument, match=r"--out: must be a place that can be written(.|\n)*--out"):
        write_report([], blocked / "report")


@pytest.mark.parametrize(
    ("variable", "content", "more"),
    [
        ("BILEVEL_TOKEN_FILE", None, {}),
        ("BILEVEL_TOKEN_FILE", "", {}),
        ("BILEVEL_TOKEN_FILE", "two words", {}),
        ("BILEVEL_CA", None, {}),
        ("BILEVEL_CA", "no PEM", {}),
        ("BILEVEL_CLIENT_CERT", None, {"BILEVEL_CLIENT_KEY": "{}", "BILEVEL_CA": "{}/ca.pem"}),
    ],
)
def test_a_file_that_a_setting_names(variable: str, content: str | None, more: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "given"
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    if content is not None:
        file.write_text(content)
    also = {name: value.format(tmp_path) for name, value in more.items()}
    [said] = refusal("runs", **{variable: str(file)}, **also)["fields"]
    assert said["field"] == variable


@pytest.mark.parametrize("variable", ["BILEVEL_TLS_CERT", "BILEVEL_TLS_KEY", "BILEVEL_TOKENS"])
def test_a_file_of_a_server_is_named_too(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----")
    for name in ("BILEVEL_TLS_CERT", "BILEVEL_TLS_KEY"):
        monkeypatch.setenv(name, str(pem))
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    with pytest.raises(InvalidArgument, match=rf"{variable}: .*no such file or directory"):
        ServerSettings.secured("127.0.0.1:0")


def test_a_token_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_TOKEN_FILE", "/dev/zero")
    with pytest.raises(InvalidArgument, match=r"BILEVEL_TOKEN_FILE: .*must hold one token"):
        ChannelSecurity.load()


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 11)
    assert read_given(file, "FILE", 11) == b"x" * 11
    with pytest.raises(InvalidArgument, match="FILE: must name a file of at most 10 bytes"):
        read_given(file, "FILE", 10)
