"""Lessons as a file: one JSON document, which people can read and another service can import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bilevel.v1 import trace_pb2
from google.protobuf.json_format import ParseDict, ParseError

from clients.report.export import to_json
from service_kit.errors import InvalidArgument
from service_kit.given_files import read_given_text

FORMAT = "bilevel-lessons/1"
MAX_BYTES = 64 * 1024 * 1024
_HINT = "`bilevel lessons export FILE` writes such a file."


def document(lessons: Iterable[trace_pb2.Lesson]) -> dict[str, Any]:
    """What an export holds."""
    return {"format": FORMAT, "lessons": [to_json(lesson) for lesson in lessons]}


def read(file: Path) -> Sequence[trace_pb2.Lesson]:
    """The lessons of an export. Raises InvalidArgument that names what is wrong with the file."""
    try:
        found = json.loads(read_given_text(file, "FILE", MAX_BYTES, hint=_HINT))
    except (ValueError, RecursionError):
        raise InvalidArgument.of("FILE", f"must be JSON as `bilevel lessons export` writes it; {file} is not") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("lessons"), list):
        raise InvalidArgument.of("FILE", f'must hold "format": "{FORMAT}" and a list "lessons"; {file} does not')
    lessons = []
    for place, lesson in enumerate(found["lessons"]):
        try:
            lessons.append(ParseDict(lesson, trace_pb2.Lesson()))
        except ParseError as error:
            raise InvalidArgument.of(f"lessons[{place}]", f"must be a lesson: {error}") from None
    return lessons


def request_id(lesson: trace_pb2.Lesson) -> str:
    """The same for the same exported lesson, so that importing a file twice writes nothing twice."""
    return "import-" + hashlib.sha256(lesson.SerializeToString(deterministic=True)).hexdigest()[:48]
