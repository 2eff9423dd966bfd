"""The panels of one mechanism: what it did, what was decided about it, its origin, its source and its walls."""

from __future__ import annotations

from bilevel.v1 import outer_pb2

from clients import wording
from clients.campaign_history import CampaignHistory
from clients.dashboard.elements import box, by_trial, facts, link, notice, tag, text
from clients.dashboard.folding import fold
from clients.dashboard.panels.code import code
from clients.dashboard.panels.gate_report import counts_table, finding_lines, gate_report
from clients.dashboard.part import Part
from clients.dashboard.projection.mechanism import before_after, proposed_trials, reason_of, state_of
from clients.dashboard.projection.run import RunView
from clients.history import MechanismHistory, short

MOST_CHANGES = 200
"""Changed decisions that are listed, newest first; all are counted."""


def state_tag(mechanism: MechanismHistory) -> None:
    """active, suspended or removed."""
    state = state_of(mechanism)
    tag(state, {"active": "good", "suspended": "bad"}.get(state, ""))


class MechanismPage:
    """The parts of the page, each drawn anew when what it shows has changed."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.head = Part()
        with box("div", "columns"):
            with box():
                self._effect, self._changes, self._source = Part(), Part(), Part()
            with box():
                self._verdicts, self._origin, self._walls = Part(), Part(), Part()

    def draw(self, view: RunView, mechanism: MechanismHistory, campaign: CampaignHistory | None) -> None:
        """Show the mechanism as the run's trace and its campaign's events tell it."""
        name, changes, run_id = mechanism.name, len(mechanism.changes), self._run_id
        calls = sum(count.calls for count in mechanism.hooks.values())
        judged = [v for v in campaign.verdicts if v.mechanism == name] if campaign is not None else None
        self.head.draw(state_of(mechanism), lambda: _head(mechanism))
        self._effect.draw((changes, calls, view.decided), lambda: _effect(view, mechanism))
        self._changes.draw(changes, lambda: _changes(mechanism, run_id))
        self._source.draw(name, lambda: _source(mechanism))
        self._verdicts.draw((judged is None, len(judged or ())), lambda: _verdicts(campaign, judged or []))
        self._origin.draw(campaign is None or len(campaign.research), lambda: _origin(mechanism, campaign, run_id))
        self._walls.draw(name, lambda: _walls(mechanism))


def _head(mechanism: MechanismHistory) -> None:
    with box("div", "line-up"):
        state_tag(mechanism)
        text("span", mechanism.mechanism.summary)
    if reason := reason_of(mechanism):
        notice("Suspended" if state_of(mechanism) == "suspended" else "Removed", reason, kind="warning")


def _source(mechanism: MechanismHistory) -> None:
    installed = mechanism.mechanism
    with box("section", "panel flush"):
        with box("div", "panel-head"):
            text("h2", "Source")
            text("span", f"SHA-256 {installed.source_sha256[:16]}", "sub mono")
        code(installed.source, finding_lines(installed.report))


def _walls(mechanism: MechanismHistory) -> None:
    with box("section", "panel"):
        text("h2", "Gate")
        gate_report(mechanism.mechanism.report)
    with box("section", "panel"):
        text("h2", "Sandbox")
        text("p", "What the kernel granted to its process.", "quiet")
        with box("div", "tags"):
            for layer in mechanism.mechanism.sandbox_layers:
                tag(layer.replace("_", " "))


def _effect(view: RunView, mechanism: MechanismHistory) -> None:
    proposed, kept = proposed_trials(view, mechanism.name)
    rates = before_after(view, mechanism)
    with box("section", "panel"):
        text("h2", "What it did")
        facts(
            [
                ("Decisions changed", f"{len(mechanism.changes):,}"),
                ("Trials proposed", str(proposed)),
                ("Kept, of what it touched", str(kept)),
                ("Improved the best since", str(rates.after)),
                ("Up to as many trials before", str(rates.before)),
            ],
            "gap-above",
        )
        text("p", "Searches get harder as they go on: fewer improvements than before prove no harm.", "sub gap-above")
        rows = [(wording.hook(hook), c.calls, c.changed, c.seconds) for hook, c in sorted(mechanism.hooks.items())]
        if rows:
            counts_table(rows, "Hook calls, counted by the inner service")


def _changes(mechanism: MechanismHistory, run_id: str) -> None:
    shown = mechanism.changes[: -MOST_CHANGES - 1 : -1]

    def build() -> None:
        cells = [(change.trial, (wording.hook(change.hook), change.before, change.after)) for change in shown]
        by_trial(run_id, ("hook", "without it", "with it"), cells)

    if total := len(mechanism.changes):
        note = str(total) if total <= MOST_CHANGES else f"the newest {MOST_CHANGES} of {total:,}"
        with box("section", "panel"):
            fold("Decisions that it changed", build, note=note)


def _verdicts(campaign: CampaignHistory | None, verdicts: list[outer_pb2.VerdictReached]) -> None:
    with box("section", "panel"):
        text("h2", "Verdict")
        if campaign is None:
            text("p", "No campaign supervises this run: nobody judges its mechanisms.", "quiet")
        elif not verdicts:
            trials = campaign.policy.probation_trials or campaign.policy.mechanism_every or 10
            text("p", f"None yet: it is judged {trials} decided trials after its installation.", "quiet")
        for verdict in reversed(verdicts):
            word = wording.member(outer_pb2.Verdict.Name(verdict.verdict), "VERDICT_")
            with box("div", "line-up"):
                tag(word, "good" if verdict.verdict == outer_pb2.VERDICT_KEEP else "bad")
                text("span", f"examination {verdict.examination}, {verdict.trials} trials", "sub")
            text("p", verdict.reason)
            gains = wording.signed(verdict.gain_before), wording.signed(verdict.gain_during)
            facts(
                [
                    ("With it and before it", _comparison(verdict.before_after)),
                    ("Touched and left alone", _comparison(verdict.touched)),
                    ("Gain a trial", f"{gains[1]}, before {gains[0]}"),
                ],
                "stacked gap-above",
            )


def _comparison(c: outer_pb2.Comparison) -> str:
    shares = f"{c.successes_with} of {c.trials_with} against {c.successes_without} of {c.trials_without} improved"
    return f"{shares}; difference {c.difference:+.2f}, 90 % interval [{c.low:+.2f}, {c.high:+.2f}]"


def _origin(mechanism: MechanismHistory, campaign: CampaignHistory | None, run_id: str) -> None:
    installed = mechanism.mechanism
    ends = [s.finished for s in campaign.research if s.finished is not None] if campaign is not None else []
    end = next((end for end in ends if end.mechanism == mechanism.name), None)
    with box("section", "panel"):
        text("h2", "Where it comes from")
        settings = ", ".join(f"{k}={wording.value(v)}" for k, v in sorted(installed.settings.values.items()))
        facts(
            [
                ("Author", installed.author or wording.UNKNOWN),
                ("After trial", str(installed.installed_after_trial)),
                ("Settings", settings or wording.NOTHING),
            ],
            "stacked gap-above",
        )
        with box("div", "line-up gap-above"):
            if end is not None:
                link(f"Research session {short(end.session)}", f"/runs/{run_id}/research#session-{short(end.session)}")
            link("In the library", f"/library/{installed.source_sha256}")
            if end is not None and end.derived_from:
                link("Derived from", f"/library/{short(end.derived_from)}")
