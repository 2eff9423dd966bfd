"""Whether what a command printed has the shape that docs/cli.md states."""

from __future__ import annotations

from typing import Any

from bilevel.v1 import outer_pb2, trace_pb2
from google.protobuf.json_format import ParseDict

from clients.cli.shapes import SHAPES, Layout


def check(command: str, document: Any) -> None:
    """Fail where ``document``, the parsed output of ``bilevel COMMAND --json``, does not have the command's shape."""
    shape = SHAPES[command]
    if shape.layout in (Layout.LIST, Layout.LINES):
        assert type(document) is list, document
        objects = document
    elif shape.layout is Layout.BY_NAME:
        objects = list(document.values())
    elif shape.layout is Layout.LISTS_BY_NAME:
        objects = [one for many in document.values() for one in many]
    else:
        objects = [document]
    for one in objects:
        if shape.message:
            module = trace_pb2 if hasattr(trace_pb2, shape.message) else outer_pb2
            ParseDict(one, getattr(module, shape.message)())  # raises for a field that the message does not have
        else:
            assert set(one) == set(shape.fields), f"{command} prints {sorted(one)}"
