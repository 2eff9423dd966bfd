"""The gate's verdict on a source, drawn: stage, findings with lines, what the replay said."""

from __future__ import annotations

from collections.abc import Sequence

from bilevel.v1 import trace_pb2

from clients import wording
from clients.dashboard.elements import box, tag, text
from clients.dashboard.folding import fold
from clients.dashboard.panels.code import plain


def verdict_word(report: trace_pb2.GateReport) -> str:
    return wording.member(trace_pb2.GateVerdict.Name(report.verdict), "GATE_VERDICT_")


def finding_lines(report: trace_pb2.GateReport) -> set[int]:
    """Lines of the source that the gate found something in."""
    return {finding.line for finding in report.findings if finding.line}


def gate_report(report: trace_pb2.GateReport) -> None:
    """Everything that the report says."""
    accepted = report.verdict == trace_pb2.GATE_VERDICT_ACCEPTED
    stage = wording.member(trace_pb2.GateStage.Name(report.stage), "GATE_STAGE_")
    changed = sum(effect.changed for effect in report.replay)
    with box("div", "line-up"):
        tag(verdict_word(report), "good" if accepted else "bad")
        if accepted:
            said = (
                f"would have changed {wording.count(changed, 'decision')} in {report.replayed_trials} replayed trials"
            )
            text("span", said)
        else:
            text("span", f"at the stage {stage}")
    if report.findings:
        with box("ul", "findings"):
            for finding in report.findings:
                with box("li"):
                    where = f"line {finding.line}: " if finding.line else ""
                    text("span", f"{where}{finding.message}")
                    if finding.hint:
                        text("span", finding.hint, "sub")
    if report.replay:
        hook_table(report.replay, "In the replay")
    if report.text:
        fold("The report as it was written", lambda: _whole(report.text))


def _whole(content: str) -> None:
    plain(content, "Gate report")


def hook_table(effects: Sequence[trace_pb2.HookEffect], caption: str) -> None:
    """Calls, changed decisions and time of each hook."""
    rows = [(wording.hook(e.hook), e.calls, e.changed, wording.seconds(e.time)) for e in effects]
    counts_table(rows, caption)


def counts_table(rows: Sequence[tuple[str, int, int, float]], caption: str) -> None:
    """The same from counts: hook, calls, changed decisions, seconds."""
    with box("div", "scroll"), box("table", "plain-table"):
        text("caption", caption)
        with box("thead"), box("tr"):
            for name in ("hook", "calls", "changed", "time", "a call"):
                text("th", name).props["scope"] = "col"
        with box("tbody"):
            for hook, calls, changed, seconds in rows:
                with box("tr"):
                    text("th", hook).props["scope"] = "row"
                    text("td", f"{calls:,}")
                    text("td", f"{changed:,}")
                    text("td", wording.duration(seconds))
                    text("td", wording.duration(seconds / calls) if calls else wording.NOTHING)
