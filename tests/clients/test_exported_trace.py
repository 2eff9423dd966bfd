"""An exported run is read as what it was; a file that is no such export is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.cli.exported_trace import read_trace
from clients.report import RunRecord
from clients.report.export import run_json
from mechanisms.interface import Origin
from service_kit.errors import InvalidArgument

Change = Callable[[dict[str, Any]], Any]


def test_every_decided_trial_comes_back(bilevel: RunRecord, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(run_json(bilevel))
    run = read_trace(file)
    history = bilevel.history
    decided = [e.trial_decided for e in bilevel.events if e.WhichOneof("event") == "trial_decided"]
    assert [(t.number, t.kept) for t in run.history] == [(d.number, d.kept) for d in decided]
    assert run.history[0].origin is Origin.BASELINE
    assert [t.metric for t in run.history] == [history.metric(t.number) for t in run.history]
    assert run.space.names == tuple(p.name for p in history.task.space.parameters)
    assert run.objective.metric == history.task.objective.metric


def event(document: dict[str, Any], kind: str) -> Any:
    return next(e[kind] for e in document["events"] if kind in e)


def decision(document: dict[str, Any]) -> Any:
    return next(e for e in document["events"] if "trial_decided" in e)


WRONG: dict[str, tuple[Change, str]] = {
    "another format": (lambda d: d.update(format="other/1"), "in the format bilevel-run/1"),
    "no events": (lambda d: d.update(events=[]), "has none"),
    "no event of a trace": (lambda d: d["events"].insert(3, {"trial_proposed": 4}), "events[3]"),
    "a number in place of an event": (lambda d: d["events"].insert(3, 7), "events[3]"),
    "no beginning": (lambda d: d["events"].pop(0), "run_created"),
    "a decision twice": (lambda d: d["events"].append(decision(d)), "two about one"),
    "no finite metric": (lambda d: event(d, "trial_evaluated")["result"].update(metric="NaN"), "not finite"),
    "a value out of range": (
        lambda d: event(d, "trial_proposed")["trial"]["configuration"]["values"].update(
            WEIGHT_DECAY={"double_value": -7.0}
        ),
        "WEIGHT_DECAY",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_export_is_refused(bilevel: RunRecord, tmp_path: Path, change: Change, message: str) -> None:
    document = json.loads(run_json(bilevel))
    change(document)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InvalidArgument) as caught:
        read_trace(file)
    assert message in caught.value.message
    assert caught.value.violations[0].field == "--trace"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"3"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"must name a run\.json"):
        read_trace(file)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file or directory"):
        read_trace(tmp_path / "run.json")
