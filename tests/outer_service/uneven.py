"""The written set of model answers of uneven quality: see answers/README.md."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from service_kit.llm.failures import Failure, ModelError
from service_kit.llm.structured import Answer, ask
from tests.service_kit.llm_endpoint import Endpoint, answer
from tests.service_kit.test_language_model import HELLO

FOLDER = Path(__file__).with_name("answers")
KINDS = {
    "repair": Failure.INVALID,
    "refused": Failure.REFUSED,
    "truncated": Failure.TRUNCATED,
    "empty": Failure.EMPTY,
}


def written(round_: str) -> list[Any]:
    """The round's answers as parameters of a test."""
    entries = tomllib.loads((FOLDER / f"{round_}.toml").read_text(encoding="utf-8"))["answer"]
    assert len({entry["name"] for entry in entries}) == len(entries) >= 20
    return [pytest.param(entry, id=entry["name"].replace(" ", "-")) for entry in entries]


async def given(endpoint: Endpoint, entry: dict[str, Any], answer_type: type[BaseModel]) -> Answer[Any] | None:
    """What is read of one answer that came over HTTP; None where the expected failure came of it."""
    message = {name: entry[name] for name in ("refusal", "reasoning") if name in entry}
    model = endpoint.model(answer(entry["text"], finish=entry.get("finish", "stop"), **message))
    if entry["expect"] not in KINDS:
        found = await ask(model, "test", HELLO, answer_type, repairs=0)
        assert found.text == entry["text"]
        return found
    with pytest.raises(ModelError) as caught:
        await ask(model, "test", HELLO, answer_type, repairs=0)
    assert caught.value.kind is KINDS[entry["expect"]]
    assert re.search(entry.get("problem", ""), caught.value.message)
    return None


def at(value: Any, path: str) -> Any:
    """The part of a JSON document that a dotted path names."""
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value
