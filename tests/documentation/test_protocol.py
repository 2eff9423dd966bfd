"""docs/protocol.md names every kind of event that a stream can carry."""

from __future__ import annotations

from typing import Any

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from tests.documentation.pages import ROOT


@pytest.mark.parametrize("message", [trace_pb2.TraceEvent, outer_pb2.CampaignEvent], ids=["trace", "campaign"])
def test_every_kind_of_event_is_listed(message: Any) -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    kinds = [field.name for field in message.DESCRIPTOR.oneofs_by_name["event"].fields]
    assert kinds
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []
