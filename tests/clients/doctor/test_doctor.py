"""What the doctor finds on a machine, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.cli import app
from clients.doctor import Finding, Severity, machine, services
from clients.wrong_settings import wrong_settings
from service_kit import settings
from service_kit.server import ServerSettings, serving
from tests.clients.cli.shape_check import check

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", *settings.KNOWN_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BILEVEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BILEVEL_CACHE", str(tmp_path / "cache"))


def test_every_variable_in_the_table_is_known_and_every_known_one_is_in_the_table() -> None:
    table = set(re.findall(r"^([A-Z][A-Z_]+) ", settings.__doc__ or "", re.MULTILINE))
    assert table == settings.KNOWN_VARIABLES
    assert not re.search(r"``|:mod:", "".join(re.findall(r"^[A-Z][A-Z_]+ .*$", settings.__doc__ or "", re.MULTILINE)))


async def test_this_machine_runs_mechanisms_behind_every_required_layer() -> None:
    finding = await services.sandbox()
    assert finding.severity is Severity.GOOD, finding
    assert all(layer in finding.text for layer in services.REQUIRED)


def test_a_misspelt_variable_is_found_with_the_nearest_name() -> None:
    [finding] = services.unknown_settings(["BILEVEL_MODLE", "BILEVEL_MODEL", "PATH"])
    assert (finding.severity, finding.advice) == (Severity.BAD, "Did you mean BILEVEL_MODEL?")


async def test_without_an_endpoint_the_script_is_called_no_evidence() -> None:
    finding = await services.model()
    assert finding.severity is Severity.NOTE
    assert "no evidence" in finding.text


async def test_an_endpoint_that_is_not_there_is_named_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    monkeypatch.setenv("BILEVEL_MODEL", "some-model")
    finding = await services.model()
    assert finding.severity is Severity.BAD
    assert "http://127.0.0.1:1/v1 cannot be reached" in finding.text
    assert "never-shown" not in f"{finding.text}{finding.advice}"


def _filled(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.parametrize(
    ("prepare", "severity", "words"),
    [
        (lambda path: None, Severity.GOOD, "will be created"),
        (
            lambda path: sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close(),
            Severity.GOOD,
            "is sound",
        ),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096), Severity.BAD, ""),
        (lambda path: path.write_text("no database at all, but long enough to be read as one" * 50), Severity.BAD, ""),
    ],
)
async def test_a_database_file_is_examined_and_left_as_it_is(
    prepare: Callable[[Path], object], severity: Severity, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "home" / "inner.db"
    file.parent.mkdir()
    prepare(file)
    before = file.read_bytes() if file.exists() else None
    inner, _ = await services.databases()
    assert inner.severity is severity, inner
    assert words in inner.text
    assert (file.read_bytes() if file.exists() else None) == before


async def test_a_database_server_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILEVEL_DATABASE", "postgresql://me:never-shown@127.0.0.1:1/inner")
    inner, _ = await services.databases()
    assert inner.severity is Severity.BAD
    assert "never-shown" not in f"{inner.text}{inner.advice}"


async def test_a_service_that_serves_and_one_that_does_not_run() -> None:
    async with serving(lambda server: [], ServerSettings(grace=0.1), name="inner") as address:
        there, absent = await services.running(inner=address, outer="127.0.0.1:1")
    assert there.severity is Severity.GOOD
    assert (absent.severity, absent.advice) == (Severity.NOTE, "`bilevel serve outer` starts it.")


WRONG = {
    "BILEVEL_MODEL_TIMEOUT": "-5",
    "BILEVEL_PRICES": "/nowhere/prices.toml",
    "BILEVEL_LEASE_SECONDS": "x",
    "BILEVEL_PATIENCE": "-1",
    "BILEVEL_LOG_LEVEL": "loud",
}


def test_settings_that_are_not_valid_are_findings_and_the_rest_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BILEVEL_MODEL_TIMEOUT", "BILEVEL_LEASE_SECONDS"):
        monkeypatch.setenv(name, WRONG[name])
    done = CliRunner().invoke(app, ["doctor", "--inner", "127.0.0.1:1", "--outer", "127.0.0.1:1", "--json"])
    check("doctor", json.loads(done.stdout))
    findings = [Finding(**entry) for entry in json.loads(done.stdout)]
    assert done.exit_code == 1
    said = [finding for finding in findings if finding.severity == Severity.BAD]
    assert [finding.subject for finding in said] == ["settings", "settings"]
    assert [finding.text.partition(":")[0] for finding in said] == ["BILEVEL_MODEL_TIMEOUT", "BILEVEL_LEASE_SECONDS"]
    assert findings[-1].subject == "service"


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_is_not_valid_has_a_remark(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, WRONG[name])
    [problem] = wrong_settings()
    assert problem.field == name
    rows = json.loads(CliRunner().invoke(app, ["config", "show", "--json"]).stdout)
    assert {row["name"]: row["problem"] for row in rows if row["problem"]} == {name: problem.description}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_clock_is_examined() -> None:
    assert machine.clock().severity in (Severity.GOOD, Severity.NOTE)


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert {finding.severity for finding in machine.disk()} == {Severity.BAD}
    monkeypatch.undo()
    monkeypatch.setattr(machine, "NEEDED_BYTES", 2**80)
    assert {finding.severity for finding in machine.disk()} == {Severity.BAD}


@pytest.mark.parametrize(
    ("torch", "nvidia", "severity"),
    [
        ({"version": "2", "cuda": "12", "gpus": ["H100"], "mps": False}, True, Severity.GOOD),
        ({"version": "2", "cuda": None, "gpus": [], "mps": True}, False, Severity.GOOD),
        ({"version": "2", "cuda": None, "gpus": [], "mps": False}, True, Severity.BAD),
        ({"version": "2", "cuda": "12", "gpus": [], "mps": False}, True, Severity.BAD),
        ({"version": "2", "cuda": None, "gpus": [], "mps": False}, False, Severity.NOTE),
    ],
)
def test_what_torch_sees_is_judged_beside_the_driver(
    torch: dict[str, object], nvidia: bool, severity: Severity
) -> None:
    [finding] = machine.gpu_findings(torch, nvidia=nvidia)
    assert finding.severity is severity


def test_the_command_prints_every_finding_and_fails_when_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["doctor", "--inner", "127.0.0.1:1", "--outer", "127.0.0.1:1", "--json"]
    done = CliRunner().invoke(app, arguments)
    findings = [Finding(**entry) for entry in json.loads(done.stdout)]
    assert done.exit_code == 0, findings
    assert {finding.subject for finding in findings} >= {"installation", "clock", "disk", "GPU", "sandbox", "model"}
    monkeypatch.setenv("BILEVEL_MODLE", "x")
    assert CliRunner().invoke(app, arguments).exit_code == 1
