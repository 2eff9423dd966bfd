"""``procedure``: a change of the research procedure from one template, and no second one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SOURCE = '''def research(hook, record):
    """Trust what stayed: build first what was kept in an earlier search, and look only where nothing gains."""
    if hook == "look":
        return record["since_improvement"] >= 3
    if hook == "hypotheses":
        return 3
    if hook == "score":
        return [candidate["kept"] - 0.5 * candidate["judged"] for candidate in record["candidates"]]
    return None
'''


def propose(messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The template, unless it is in force or was rejected already."""
    asked = messages[-1]["content"]
    if "Trust what stayed" in asked:
        return {"change": False, "reason": "scripted: the only template was proposed before", "source": ""}
    reason = "scripted: what was kept before is worth a try before something new"
    return {"change": True, "reason": reason, "source": SOURCE}
