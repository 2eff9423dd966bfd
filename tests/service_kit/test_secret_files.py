"""Secrets from files: the key of a model and the URL of a database, as containers are handed them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from clients.cli import app
from service_kit import secret_files
from service_kit.errors import InvalidArgument
from service_kit.settings import EnvironmentSettings, ModelSettings, PathSettings

KEY, DATABASE = "OPENAI_API_KEY", "BILEVEL_DATABASE"
URL = "postgresql://bilevel:swordfish@db/inner"
LOAD: dict[str, Callable[[], EnvironmentSettings]] = {KEY: ModelSettings.load, DATABASE: PathSettings.load}
SECRETS = [(KEY, "sk-swordfish"), (DATABASE, URL)]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (ModelSettings, PathSettings):
        for field in settings.model_fields.values():
            monkeypatch.delenv(str(field.alias), raising=False)
    secret_files._warn_if_open.cache_clear()


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secret"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_key_and_a_database_come_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{KEY}_FILE", str(written(tmp_path, "sk-swordfish\n")))
    settings = ModelSettings.load()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sk-swordfish"
    assert settings.configured
    assert "swordfish" not in f"{settings!r}"
    monkeypatch.setenv(f"{DATABASE}_FILE", str(written(tmp_path, f"{URL}\n")))
    assert PathSettings.load().database_url("inner") == URL


@pytest.mark.parametrize(("name", "secret"), SECRETS)
def test_both_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, secret: str) -> None:
    monkeypatch.setenv(f"{name}_FILE", str(written(tmp_path, secret)))
    monkeypatch.setenv(name, secret)
    with pytest.raises(InvalidArgument, match=rf"{name}: must not be set beside {name}_FILE") as caught:
        LOAD[name]()
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("name", [KEY, DATABASE])
def test_a_file_without_a_secret_is_refused_by_the_name_of_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    empty, binary = written(tmp_path, " \n"), tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file, says in (
        (tmp_path / "missing", "no such file or directory"),
        (empty, "is empty"),
        (tmp_path, "is a directory"),
        (binary, "must name a file of text"),
    ):
        monkeypatch.setenv(f"{name}_FILE", str(file))
        with pytest.raises(InvalidArgument, match=rf"{name}_FILE: must name a file .*{says}|{name}_FILE: {says}"):
            LOAD[name]()


def test_a_model_with_an_unusable_key_file_has_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILEVEL_MODEL", "small")
    monkeypatch.setenv(f"{KEY}_FILE", str(tmp_path / "missing"))
    with pytest.raises(InvalidArgument) as caught:
        ModelSettings.load()
    assert [violation.field for violation in caught.value.violations] == [f"{KEY}_FILE"]


def test_a_file_that_everybody_can_read_is_remarked_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "sk-swordfish", 0o644)
    monkeypatch.setenv(f"{KEY}_FILE", str(file))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            ModelSettings.load()
    assert [(line["log_level"], line["path"]) for line in lines] == [("warning", str(file))]
    file.chmod(0o600)
    secret_files._warn_if_open.cache_clear()
    with structlog.testing.capture_logs() as lines:
        ModelSettings.load()
    assert lines == []


def test_config_show_says_where_a_secret_comes_from_and_never_what_it_is(tmp_path: Path) -> None:
    environment = {
        f"{KEY}_FILE": str(written(tmp_path, "sk-swordfish")),
        DATABASE: URL,
        "BILEVEL_DASHBOARD_PASSWORD": "swordfish-and-more",
    }
    shown = CliRunner().invoke(app, ["config", "show", "--json"], env=environment).stdout
    assert "swordfish" not in shown
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(shown)}
    assert rows[KEY] == (f"(hidden, from {KEY}_FILE)", "environment")
    assert rows[DATABASE] == ("postgresql://bilevel:***@db/inner", "environment")
    assert rows["BILEVEL_DASHBOARD_PASSWORD"] == ("(hidden)", "environment")


@pytest.mark.parametrize(
    "command", [("config", "show"), ("doctor", "--inner", "127.0.0.1:1", "--outer", "127.0.0.1:1")]
)
def test_a_warning_about_such_a_file_leaves_json_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    secret, file = written(tmp_path, "sk-swordfish", 0o644), tmp_path / "config.toml"
    file.write_text(f'{KEY}_FILE = "{secret}"\nOPENAI_BASE_URL = "http://127.0.0.1:1/v1"\nBILEVEL_MODEL = "small"\n')
    environment = os.environ | {"BILEVEL_CONFIG": str(file), "BILEVEL_HOME": str(tmp_path)}
    program = [sys.executable, "-c", "from clients.cli import main; main()"]
    done = subprocess.run([*program, *command, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert isinstance(json.loads(done.stdout), list)
    assert "every user of this machine can read a file with a secret" in done.stderr
