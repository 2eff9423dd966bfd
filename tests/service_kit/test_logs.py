"""Log lines carry what happened and never a secret."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service_kit import logs
from service_kit.errors import InvalidArgument


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("BILEVEL_LOG_FORMAT", "json")
    logs.configure("inner")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_service_level_and_time(lines) -> None:
    structlog.get_logger().info("listening", address="127.0.0.1:1", port=1)
    (line,) = lines()
    assert (line["service"], line["level"], line["event"], line["port"]) == ("inner", "info", "listening", 1)
    assert line["timestamp"].endswith("Z")


def test_secrets_are_blanked_by_name_and_by_look_but_token_counts_are_kept(lines) -> None:
    structlog.get_logger().info(
        "asked with sk-abcdefgh12345678",
        api_key="abc",
        prompt_tokens=12,
        tokens={"prompt": 12, "completion": 3},
        request={"headers": {"Authorization": "Basic xyz", "x": "Bearer qwertz"}, "n": [1, "sk-abcdefgh12345678"]},
        url="postgresql://me:hunter2@db/x",
    )
    (line,) = lines()
    text = json.dumps(line)
    assert not any(secret in text for secret in ("abcdefgh", 'abc"', "xyz", "qwertz", "hunter2"))
    assert line["prompt_tokens"] == 12
    assert line["tokens"] == {"prompt": 12, "completion": 3}
    assert line["url"] == "postgresql://me:[redacted]@db/x"


def test_exceptions_and_lines_of_libraries_are_redacted_too(lines) -> None:
    try:
        raise ValueError("key sk-abcdefgh12345678 refused")
    except ValueError:
        structlog.get_logger().exception("failed")
    logging.getLogger("some.library").warning("sent Bearer %s", "qwertz")
    first, second = lines()
    assert "ValueError: key [redacted] refused" in first["exception"]
    assert second["event"] == "sent Bearer [redacted]"


def test_the_level_filters_and_the_console_format_is_for_people(monkeypatch, capsys) -> None:
    monkeypatch.setenv("BILEVEL_LOG_FORMAT", "console")
    monkeypatch.setenv("BILEVEL_LOG_LEVEL", "warning")
    logs.configure("inner")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud", trial=3)
    err = capsys.readouterr().err
    assert "quiet" not in err
    assert "loud" in err
    assert "trial=3" in err


def test_an_unknown_format_names_the_variable_and_the_choices(monkeypatch) -> None:
    monkeypatch.setenv("BILEVEL_LOG_FORMAT", "xml")
    with pytest.raises(InvalidArgument, match="BILEVEL_LOG_FORMAT: must be one of console, json; got 'xml'"):
        logs.configure("inner")
