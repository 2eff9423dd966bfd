"""Settings come from the environment, and a wrong one is named."""

from pathlib import Path

import pytest

from service_kit.errors import InvalidArgument
from service_kit.settings import ModelSettings, PathSettings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (ModelSettings, PathSettings):
        for field in settings.model_fields.values():
            monkeypatch.delenv(str(field.alias), raising=False)


def test_the_environment_is_read_and_overrides_win(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    monkeypatch.setenv("BILEVEL_MODEL", "small")
    monkeypatch.setenv("BILEVEL_MODEL_TIMEOUT", "7.5")
    settings = ModelSettings.load(retries=0)
    assert (settings.base_url, settings.model, settings.timeout, settings.retries) == (
        "http://127.0.0.1:8000/v1",
        "small",
        7.5,
        0,
    )


def test_an_empty_variable_counts_as_unset(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert not ModelSettings.load().configured
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert ModelSettings.load().configured


def test_the_scripted_researcher_stands_in_only_when_no_endpoint_is_configured(monkeypatch) -> None:
    standing_in = ModelSettings.load().or_scripted()
    assert (standing_in.base_url, standing_in.model) == ("http://127.0.0.1:7400/v1", "scripted-researcher")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert ModelSettings.load().or_scripted().model is None


def test_a_model_without_an_endpoint_is_refused_and_not_replaced(monkeypatch) -> None:
    monkeypatch.setenv("BILEVEL_MODEL", "gpt-9")
    with pytest.raises(InvalidArgument, match="BILEVEL_MODEL: names a model, but neither OPENAI_BASE_URL nor"):
        ModelSettings.load()


@pytest.mark.parametrize("key", ["schlüssel", "two words", "line\nbreak"])
def test_a_key_that_fits_in_no_header_is_refused_unseen(monkeypatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InvalidArgument, match="OPENAI_API_KEY: must be printable ASCII") as caught:
        ModelSettings.load()
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://host:bar/v1", "http:///v1", "http://host:99999/v1", "host/v1"]
)
def test_an_endpoint_that_is_no_web_address_is_refused(monkeypatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(InvalidArgument, match="OPENAI_BASE_URL: must be an http:// or https:// address"):
        ModelSettings.load()


def test_the_key_is_in_no_printed_form(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "swordfish")
    settings = ModelSettings.load()
    assert "swordfish" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_every_wrong_variable_is_named_with_its_range_and_without_the_key(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "swordfish")
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    monkeypatch.setenv("BILEVEL_MODEL_TIMEOUT", "-1")
    monkeypatch.setenv("BILEVEL_MODEL_RETRIES", "many")
    with pytest.raises(InvalidArgument) as caught:
        ModelSettings.load()
    assert [v.field for v in caught.value.violations] == [
        "OPENAI_BASE_URL",
        "BILEVEL_MODEL_TIMEOUT",
        "BILEVEL_MODEL_RETRIES",
    ]
    assert "BILEVEL_MODEL_TIMEOUT: must be greater than 0" in str(caught.value)
    assert "OPENAI_BASE_URL: must be an http://" in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_paths_are_expanded_and_a_database_lies_in_the_data_directory(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = PathSettings.load()
    assert paths.home == tmp_path / ".local/share/bilevel"
    assert paths.database_url("inner") == f"sqlite:///{tmp_path}/.local/share/bilevel/inner.db"
    monkeypatch.setenv("BILEVEL_DATABASE", "postgresql+psycopg://db/bilevel")
    assert PathSettings.load().database_url("inner") == "postgresql+psycopg://db/bilevel"
