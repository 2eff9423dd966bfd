"""What a person may do with a run in its state, and why not."""

from __future__ import annotations

from bilevel.v1 import trace_pb2

from clients import wording
from clients.dashboard.projection.run import RunView
from clients.history import TERMINAL

ACTIONS = ("start", "pause", "resume", "cancel", "guide")


def refusals(view: RunView) -> dict[str, str]:
    """Every action with the reason why it is not possible now; an empty reason means that it is."""
    state = view.state
    if state == trace_pb2.RUN_STATE_UNSPECIFIED:
        return dict.fromkeys(ACTIONS, "nothing is known about the run yet")
    said = wording.run_state(state)
    if state in TERMINAL:
        return dict.fromkeys(ACTIONS, f"the run is {said}: nothing about it changes any more")
    reasons = dict.fromkeys(ACTIONS, "")
    if state != trace_pb2.RUN_STATE_CREATED:
        reasons["start"] = f"the run was started already: it is {said}"
    if state != trace_pb2.RUN_STATE_PAUSED:
        reasons["resume"] = f"only a paused run can be resumed: it is {said}"
    if state != trace_pb2.RUN_STATE_RUNNING and not view.at_checkpoint:
        reasons["pause"] = f"only a running run can be paused: it is {said}"
    elif view.pausing:
        reasons["pause"] = "it pauses as soon as its current trials are decided"
    return reasons
