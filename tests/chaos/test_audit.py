"""The audit is no check that cannot fail: it passes a sound log and catches each way of damaging one."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from bilevel.v1 import common_pb2, outer_pb2, trace_pb2

from tests.chaos.audit import (
    KINDS,
    Acknowledged,
    Asked,
    Event,
    Evidence,
    Received,
    audit,
    digest,
    prompt_digest,
)

RUN, CAMPAIGN = "runs/r", "campaigns/c"
PROMPT = [("system", "you research"), ("user", "explore")]


def run_events() -> list[Event]:
    bodies = [
        {"run_created": trace_pb2.RunCreated()},
        {"run_state_changed": trace_pb2.RunStateChanged(to_state=trace_pb2.RUN_STATE_RUNNING, reason="started")},
        {"trial_proposed": trace_pb2.TrialProposed(trial=trace_pb2.Trial(number=0, hypothesis="the start"))},
        {"trial_started": trace_pb2.TrialStarted(number=0, attempt=1)},
        {"trial_started": trace_pb2.TrialStarted(number=0, attempt=2)},
        {"trial_evaluated": trace_pb2.TrialEvaluated(number=0)},
        {"trial_decided": trace_pb2.TrialDecided(number=0, kept=True)},
        {"mechanism_replayed": trace_pb2.MechanismReplayed(mechanism="m", trials=1, matches=True)},
        {"remarked": trace_pb2.Remarked(author="me", text="remarkable")},
        {"run_state_changed": trace_pb2.RunStateChanged(to_state=trace_pb2.RUN_STATE_FINISHED, reason="done")},
    ]
    events = [trace_pb2.TraceEvent(run=RUN, sequence=i, **body) for i, body in enumerate(bodies, 1)]
    events[5].trial_evaluated.result.outcome = common_pb2.OUTCOME_SUCCEEDED
    return list(events)


def campaign_events() -> list[Event]:
    turn = outer_pb2.ResearchTurn(round=outer_pb2.RESEARCH_ROUND_EXPLORE, answer="{}")
    turn.prompt.extend(common_pb2.ChatMessage(role=role, content=content) for role, content in PROMPT)
    finished = outer_pb2.CampaignStateChanged(to_state=outer_pb2.CAMPAIGN_STATE_FINISHED)
    events = [
        outer_pb2.CampaignEvent(campaign=CAMPAIGN, sequence=1, campaign_created=outer_pb2.CampaignCreated(run=RUN)),
        outer_pb2.CampaignEvent(
            campaign=CAMPAIGN, sequence=2, round_finished=outer_pb2.RoundFinished(session="s", turn=turn)
        ),
        outer_pb2.CampaignEvent(campaign=CAMPAIGN, sequence=3, campaign_state_changed=finished),
    ]
    events[1].time.FromSeconds(100)
    return list(events)


def sound() -> Evidence:
    evidence = Evidence(logs={RUN: run_events(), CAMPAIGN: campaign_events()}, last_numbers={RUN: 10, CAMPAIGN: 3})
    for watcher in ("one", "two"):
        for stream, log in evidence.logs.items():
            evidence.received += [Received(watcher, stream, event.sequence, digest(event)) for event in log]
    evidence.acknowledged = [
        Acknowledged("created", RUN, {"request": "a"}),
        Acknowledged("created", CAMPAIGN, {"request": "b"}),
        Acknowledged("started", RUN, {}),
        Acknowledged("proposed", RUN, {"number": 0, "hypothesis": "the start"}),
        Acknowledged("evaluated", RUN, {"number": 0, "outcome": common_pb2.OUTCOME_SUCCEEDED}),
        Acknowledged("decided", RUN, {"number": 0, "kept": True}),
        Acknowledged("remarked", RUN, {"sequence": 9, "text": "remarkable"}),
    ]
    evidence.asked = [Asked(99.0, "explore", prompt_digest(PROMPT))]
    return evidence


def of_run(e: Evidence, row: int) -> trace_pb2.TraceEvent:
    event = e.logs[RUN][row]
    assert isinstance(event, trace_pb2.TraceEvent)
    return event


def of_campaign(e: Evidence, row: int) -> outer_pb2.CampaignEvent:
    event = e.logs[CAMPAIGN][row]
    assert isinstance(event, outer_pb2.CampaignEvent)
    return event


def test_a_sound_log_passes() -> None:
    assert audit(sound()) == []


def test_campaigns_that_ask_alike_are_not_taken_for_one_that_asks_again() -> None:
    e, other = sound(), "campaigns/other"
    e.logs[other] = [outer_pb2.CampaignEvent.FromString(event.SerializeToString()) for event in e.logs[CAMPAIGN]]
    for event in e.logs[other]:
        event.campaign = other
        event.time.FromNanoseconds(event.time.ToNanoseconds() + 10_000_000_000)
    e.last_numbers[other] = e.last_numbers[CAMPAIGN]
    e.asked.append(Asked(105.0, "explore", prompt_digest(PROMPT)))
    assert audit(e) == []


def drop_an_event(e: Evidence) -> None:
    del e.logs[RUN][8]


def drop_the_newest_event_and_its_number(e: Evidence) -> None:
    del e.logs[RUN][9]
    e.last_numbers[RUN] = 9


def drop_the_whole_log(e: Evidence) -> None:
    del e.logs[CAMPAIGN]
    e.received = [r for r in e.received if r.stream != CAMPAIGN]


def drop_what_was_acknowledged_but_never_watched(e: Evidence) -> None:
    e.received = []
    of_run(e, 8).remarked.text = "something else"


def repeat_a_row(e: Evidence) -> None:
    e.logs[RUN].insert(4, e.logs[RUN][4])


def decide_twice(e: Evidence) -> None:
    e.received, log = [], e.logs[RUN]
    again = trace_pb2.TraceEvent(run=RUN, sequence=11, trial_decided=trace_pb2.TrialDecided(number=0, kept=False))
    log.append(again)
    e.last_numbers[RUN] = 11


def create_two_runs_for_one_request(e: Evidence) -> None:
    e.logs["runs/other"] = [trace_pb2.TraceEvent(run="runs/other", sequence=1, run_created=trace_pb2.RunCreated())]
    e.last_numbers["runs/other"] = 1
    e.acknowledged.append(Acknowledged("created", "runs/other", {"request": "a"}))


def swap_two_numbers(e: Evidence) -> None:
    log = e.logs[RUN]
    log[7].sequence, log[8].sequence = 9, 8
    log[7], log[8] = log[8], log[7]


def change_an_event(e: Evidence) -> None:
    of_run(e, 0).run_created.spec.max_trials = 7


def give_out_a_number_without_an_event(e: Evidence) -> None:
    e.last_numbers[RUN] = 11


def hide_an_event_from_a_watcher(e: Evidence) -> None:
    del e.received[4]


def send_an_event_twice(e: Evidence) -> None:
    e.received.insert(4, e.received[3])


def evaluate_a_measured_trial(e: Evidence) -> None:
    e.received = []
    of_run(e, 8).trial_started.CopyFrom(trace_pb2.TrialStarted(number=0, attempt=3))
    e.acknowledged.pop()


def evaluate_twice(e: Evidence) -> None:
    e.received = []
    of_run(e, 8).trial_evaluated.CopyFrom(of_run(e, 5).trial_evaluated)
    e.acknowledged.pop()


def cancel_what_nobody_cancelled(e: Evidence) -> None:
    e.received = []
    of_run(e, 5).trial_evaluated.result.outcome = common_pb2.OUTCOME_CANCELLED


def crash_what_was_killed(e: Evidence) -> None:
    e.received = []
    of_run(e, 5).trial_evaluated.result.outcome = common_pb2.OUTCOME_CRASHED


def begin_the_first_attempt_again(e: Evidence) -> None:
    e.received = []
    of_run(e, 4).trial_started.attempt = 1


def ask_a_stored_round_again(e: Evidence) -> None:
    e.asked.append(Asked(101.0, "explore", prompt_digest(PROMPT)))


def store_a_round_twice(e: Evidence) -> None:
    e.received = []
    e.logs[CAMPAIGN].insert(2, outer_pb2.CampaignEvent())
    e.logs[CAMPAIGN][2].CopyFrom(e.logs[CAMPAIGN][1])
    for number, event in enumerate(e.logs[CAMPAIGN], 1):
        event.sequence = number
    e.last_numbers[CAMPAIGN] = 4


def restore_another_state(e: Evidence) -> None:
    e.received = []
    of_run(e, 7).mechanism_replayed.matches = False


def lose_a_mechanism(e: Evidence) -> None:
    e.received = []
    of_run(e, 7).mechanism_suspended.CopyFrom(trace_pb2.MechanismSuspended(mechanism="m", kind="died"))


def pause_for_a_person(e: Evidence) -> None:
    e.received = []
    of_run(e, 8).run_state_changed.CopyFrom(
        trace_pb2.RunStateChanged(to_state=trace_pb2.RUN_STATE_PAUSED, reason="the task cannot be reached")
    )
    e.acknowledged.pop()


def fail_a_campaign(e: Evidence) -> None:
    e.received = []
    of_campaign(e, 2).campaign_state_changed.to_state = outer_pb2.CAMPAIGN_STATE_FAILED


def leave_rows_behind(e: Evidence) -> None:
    e.problems.append("runs/r: trial 0 is KEPT in its row and DISCARDED in the trace")


def leave_a_process(e: Evidence) -> None:
    e.orphans.append("4711 python")


def never_finish(e: Evidence) -> None:
    e.unfinished.append(RUN)


DAMAGES: list[tuple[Callable[[Evidence], None], str]] = [
    (drop_an_event, "lost"),
    (drop_an_event, "gaps"),
    (drop_the_newest_event_and_its_number, "lost"),
    (drop_the_whole_log, "lost"),
    (drop_what_was_acknowledged_but_never_watched, "lost"),
    (repeat_a_row, "duplicated"),
    (decide_twice, "duplicated"),
    (evaluate_twice, "duplicated"),
    (create_two_runs_for_one_request, "duplicated"),
    (send_an_event_twice, "duplicated"),
    (swap_two_numbers, "renumbered"),
    (change_an_event, "renumbered"),
    (give_out_a_number_without_an_event, "gaps"),
    (hide_an_event_from_a_watcher, "gaps"),
    (evaluate_a_measured_trial, "evaluated again"),
    (cancel_what_nobody_cancelled, "cancelled"),
    (crash_what_was_killed, "crashed"),
    (begin_the_first_attempt_again, "attempts"),
    (ask_a_stored_round_again, "rounds asked again"),
    (store_a_round_twice, "rounds asked again"),
    (restore_another_state, "replay differs"),
    (lose_a_mechanism, "replay differs"),
    (leave_rows_behind, "rows differ"),
    (pause_for_a_person, "stopped"),
    (fail_a_campaign, "stopped"),
    (leave_a_process, "orphans"),
    (never_finish, "unfinished"),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGES, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_each_damage_is_caught(damage: Callable[[Evidence], None], kind: str) -> None:
    evidence = sound()
    damage(evidence)
    assert kind in {finding.kind for finding in audit(evidence)}


def test_every_kind_of_finding_has_a_damage_that_shows_it() -> None:
    assert {kind for _, kind in DAMAGES} == set(KINDS)


ORPHAN = """
import asyncio, subprocess, sys
from tests.chaos.processes import adopt_orphans, leftovers

adopt_orphans()
sleep = "[sys.executable, '-S', '-c', 'import time; time.sleep(60)'], start_new_session=True"
nested = f"import subprocess, sys; subprocess.Popen({sleep})"
subprocess.run([sys.executable, "-S", "-c", nested], check=True)
[found] = asyncio.run(leftovers(0))
assert "time.sleep(60)" in found, found
import os, signal
os.kill(int(found.split()[0]), signal.SIGKILL)
print("found")
"""


def test_a_process_that_lost_its_parent_and_changed_its_session_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60)
    assert done.stdout == "found\n", done.stderr
